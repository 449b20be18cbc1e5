// Token files of llm.c and Megatron-LM: read as written, refused where they contradict themselves.
#include "base/status.h"
#include "peers.h"
#include "train/tokens.h"
#include <algorithm>
#include <fcntl.h>
#include <unistd.h>

namespace
{
struct Read {
    tv_status_t status;
    int64_t count = 0;
    std::vector<int32_t> ids;
    std::vector<int64_t> ends; // of documents
    std::string message;
};

Read read_all(const std::string &path, const char *word = "auto")
{
    tv_tokens_format_t format = TV_TOKENS_TEXT;
    tv_tokens *tokens = nullptr;
    Read read = {tv_tokens_format_of(path.c_str(), word, &format), 0, {}, {}, ""};
    if (read.status == TV_OK)
        read.status = tv_tokens_open(path.c_str(), format, &tokens);
    read.message = read.status == TV_OK ? "" : tv_error_message();
    if (read.status != TV_OK)
        return read;
    read.count = tv_tokens_count(tokens);
    read.ids.resize((size_t)std::min<int64_t>(read.count, 1000));
    EXPECT_EQ(tv_tokens_read(tokens, 0, (int64_t)read.ids.size(), read.ids.data()), TV_OK);
    for (int64_t d = 0; d < tv_tokens_num_documents(tokens); d++)
        read.ends.push_back(tv_tokens_document_end(tokens, d));
    tv_tokens_close(tokens);
    return read;
}

void expect_refused(const Read &read, const std::string &part)
{
    EXPECT_EQ(read.status, TV_BAD_FILE);
    expect_message_has(part, read.message);
}
} // namespace

TEST(Llmc, BothWidths)
{
    Temporary dir;
    const Read gpt2 = read_all(dir.write("a.bin", llmc_file<uint16_t>({50256, 0, 65535})));
    EXPECT_EQ(gpt2.ids, (std::vector<int32_t>{50256, 0, 65535}));
    EXPECT_TRUE(gpt2.ends.empty());
    const Read llama3 = read_all(dir.write("b.bin", llmc_file<uint32_t>({128000, 3})));
    EXPECT_EQ(llama3.ids, (std::vector<int32_t>{128000, 3}));
    EXPECT_EQ(read_all(dir.write("c.bin", llmc_file<uint16_t>({}))).count, 0);
    EXPECT_EQ(read_all(dir.path("a.bin"), "llmc").count, 3);
}

TEST(Llmc, HeadersThatTheFileDoesNotBearOut)
{
    Temporary dir;
    const std::string whole = llmc_file<uint16_t>({1, 2, 3});
    expect_refused(read_all(dir.write("a.bin", whole.substr(0, whole.size() - 1))), "3 tokens");
    expect_refused(read_all(dir.write("a.bin", whole + "xx")), "1032"); // bytes in the file
    expect_refused(read_all(dir.write("a.bin", whole.substr(0, 100))), "1024");
    std::string other = whole;
    other[4] = 2;
    expect_refused(read_all(dir.write("a.bin", other)), "version 2");
    other = whole;
    other[11] = '\x80'; // a count beyond 2^31
    expect_refused(read_all(dir.write("a.bin", other)), "2147483651 tokens");
    other[0] = 1;
    expect_refused(read_all(dir.write("a.bin", other), "llmc"), "does not begin");
}

TEST(Megatron, EveryWidthAndName)
{
    Temporary dir;
    MegatronIndex index = {8, {2, 3, 0, 1}, {0, 1, 3, 4}};
    dir.write("a.bin", file_of<uint16_t>({1, 2, 3, 4, 65535, 6}));
    dir.write("a.idx", index.text());
    for (const char *name : {"a", "a.bin", "a.idx"}) {
        const Read read = read_all(dir.path(name));
        EXPECT_EQ(read.ids, (std::vector<int32_t>{1, 2, 3, 4, 65535, 6})) << name << read.message;
        EXPECT_EQ(read.ends, (std::vector<int64_t>{2, 5, 6})) << name;
    }
    index.code = 4;
    dir.write("b.bin", file_of<int32_t>({1, 2, 3, 4, 70000, 6}));
    dir.write("b.idx", index.text());
    EXPECT_EQ(read_all(dir.path("b")).ids, (std::vector<int32_t>{1, 2, 3, 4, 70000, 6}));
    index.code = 1;
    dir.write("c.bin", "abcdef");
    dir.write("c.idx", index.text() + std::string(4, '\0')); // modes of a multimodal one
    EXPECT_EQ(read_all(dir.path("c")).ids[5], 'f');
    dir.write("d.bin", "");
    dir.write("d.idx", MegatronIndex{8, {}, {0}}.text());
    EXPECT_EQ(read_all(dir.path("d")).count, 0);
}

TEST(Megatron, IndexesThatTheFilesDoNotBearOut)
{
    Temporary dir;
    const MegatronIndex good = {8, {2, 3, 1}, {0, 1, 3}};
    dir.write("a.bin", file_of<uint16_t>({1, 2, 3, 4, 5, 6}));
    const auto with = [&](const std::string &text) {
        dir.write("a.idx", text);
        return read_all(dir.path("a"), "megatron");
    };
    const auto changed = [&](size_t at, const std::string &bytes) {
        std::string text = good.text();
        return text.replace(at, bytes.size(), bytes);
    };
    EXPECT_EQ(with(good.text()).count, 6);
    expect_refused(with(""), "does not begin");
    expect_refused(with(good.text().substr(0, 33)), "does not begin");
    expect_refused(with(changed(0, "X")), "does not begin");
    expect_refused(with(changed(9, bytes_of<uint64_t>(2))), "version 2");
    for (int code : {0, 2, 3, 5, 6, 7, 9, 255})
        expect_refused(with(changed(17, std::string(1, (char)code))),
                       "type " + std::to_string(code));
    expect_refused(with(changed(18, bytes_of(UINT64_MAX))), "18446744073709551615 sequences");
    expect_refused(with(changed(26, bytes_of(UINT64_MAX / 8 + 2))), "document bounds");
    expect_refused(with(good.text() + "x"), "do not hold");
    expect_refused(with(changed(34, bytes_of<int32_t>(-2))), "sequence 0 of -2 tokens");
    expect_refused(with(changed(34, bytes_of<int32_t>(7))), "sequence 0 of 7 tokens");
    expect_refused(with(changed(34 + 12 + 8, bytes_of<int64_t>(6))), "starts at byte 6");
    expect_refused(with(changed(34 + 36, bytes_of<int64_t>(1))), "document 0 starts");
    expect_refused(with(changed(34 + 36 + 8, bytes_of<int64_t>(4))), "document 1 starts");
    expect_refused(with(changed(34 + 36 + 16, bytes_of<int64_t>(2))), "end with sequence 2");
    expect_refused(with(MegatronIndex{8, {2, 3}, {0, 2}}.text()), "end at byte 10");
    expect_refused(with(MegatronIndex{8, {2, 3, 1}, {}}.text()), "end with sequence 0");
    dir.write("b.idx", good.text());
    expect_refused(read_all(dir.path("b")), "b.bin");
}

// 5 sequences of 10^9 ids: their bytes and places are beyond 32 bits, and the third document is found.
TEST(Megatron, BeyondThirtyTwoBits)
{
    Temporary dir;
    const std::string path = dir.write("big.bin", "");
    if (truncate(path.c_str(), 10000000000) != 0)
        GTEST_SKIP() << "this file system has no sparse file of 10 GB";
    dir.write("big.idx",
              MegatronIndex{8, std::vector<int32_t>(5, 1000000000), {0, 1, 4, 5}}.text());
    const int64_t at = 4999999998;
    const uint16_t last[] = {11, 22};
    const int fd = open(path.c_str(), O_WRONLY);
    ASSERT_EQ(pwrite(fd, last, 4, at * 2), 4);
    close(fd);
    tv_tokens *tokens = nullptr;
    ASSERT_EQ(tv_tokens_open(dir.path("big").c_str(), TV_TOKENS_MEGATRON, &tokens), TV_OK)
        << tv_error_message();
    EXPECT_EQ(tv_tokens_count(tokens), 5000000000);
    EXPECT_EQ(tv_tokens_document_end(tokens, 1), 4000000000);
    int32_t ids[2];
    ASSERT_EQ(tv_tokens_read(tokens, at, 2, ids), TV_OK);
    EXPECT_EQ(ids[0], 11);
    EXPECT_EQ(ids[1], 22);
    tv_tokens_close(tokens);
}
