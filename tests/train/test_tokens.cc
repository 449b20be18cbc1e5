// Token files: counts, places beyond 32 bits, formats, and ids that the model does not have.
#include "base/status.h"
#include "data/samples.h"
#include "peers.h"
#include "train/tokens.h"
#include <cmath>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace
{
class Tokens
{
  public:
    Tokens(const std::string &path, tv_tokens_format_t format)
    {
        EXPECT_EQ(tv_tokens_open(path.c_str(), format, &tokens), TV_OK) << tv_error_message();
    }
    ~Tokens()
    {
        tv_tokens_close(tokens);
    }
    Tokens(const Tokens &) = delete;
    Tokens &operator=(const Tokens &) = delete;

    int64_t count() const
    {
        return tv_tokens_count(tokens);
    }
    std::vector<int32_t> read(int64_t first, int64_t n) const
    {
        std::vector<int32_t> out((size_t)n, -7);
        EXPECT_EQ(tv_tokens_read(tokens, first, n, out.data()), TV_OK) << tv_error_message();
        return out;
    }
    tv_status_t check(int64_t vocab_size) const
    {
        return tv_tokens_check(tokens, vocab_size);
    }
    tv_tokens *tokens = nullptr;
};

tv_status_t format_of(const std::string &path, const char *word, tv_tokens_format_t *out)
{
    return tv_tokens_format_of(path.c_str(), word, out);
}
} // namespace

TEST(Tokens, ReadsEveryWidth)
{
    Temporary dir;
    Tokens text(dir.write("a.txt", std::string("\x00g\xFF", 3)), TV_TOKENS_TEXT);
    EXPECT_EQ(text.count(), 3);
    EXPECT_EQ(text.read(0, 3), (std::vector<int32_t>{0, 'g', 255}));
    Tokens u16(dir.write("a.u16", file_of<uint16_t>({1, 65535, 300})), TV_TOKENS_U16);
    EXPECT_EQ(u16.count(), 3);
    EXPECT_EQ(u16.read(1, 2), (std::vector<int32_t>{65535, 300}));
    Tokens u32(dir.write("a.u32", file_of<uint32_t>({1, 119546, 65536})), TV_TOKENS_U32);
    EXPECT_EQ(u32.count(), 3);
    EXPECT_EQ(u32.read(0, 3), (std::vector<int32_t>{1, 119546, 65536}));
    EXPECT_TRUE(u32.read(3, 0).empty());
}

TEST(Tokens, ReadingOutsideIsRefused)
{
    Temporary dir;
    Tokens u16(dir.write("a.u16", file_of<uint16_t>({1, 2, 3})), TV_TOKENS_U16);
    int32_t out[4] = {-7, -7, -7, -7};
    EXPECT_EQ(tv_tokens_read(u16.tokens, 1, 3, out), TV_INTERNAL);
    EXPECT_EQ(tv_tokens_read(u16.tokens, -1, 1, out), TV_INTERNAL);
    EXPECT_EQ(tv_tokens_read(u16.tokens, INT64_MAX, 1, out), TV_INTERNAL);
    EXPECT_EQ(out[0], -7);
}

// Files of 0, 1, S and S + 1 tokens: only the last has a sample.
TEST(Tokens, TinyFiles)
{
    Temporary dir;
    const int64_t S = 8;
    const int64_t sizes[] = {0, 1, S, S + 1}, samples[] = {0, 0, 0, 1};
    for (int i = 0; i < 4; i++) {
        Tokens tokens(dir.write("a", file_of(std::vector<uint16_t>((size_t)sizes[i], 3))),
                      TV_TOKENS_U16);
        EXPECT_EQ(tokens.count(), sizes[i]);
        EXPECT_EQ(tokens.check(4), TV_OK);
        EXPECT_EQ(tv_samples_count(tokens.count(), S), samples[i]);
    }
}

TEST(Tokens, FilesThatCannotBe)
{
    Temporary dir;
    tv_tokens *tokens = nullptr;
    EXPECT_EQ(tv_tokens_open(dir.path("absent").c_str(), TV_TOKENS_U16, &tokens), TV_BAD_FILE);
    expect_message_has("absent", tv_error_message());
    EXPECT_EQ(tv_tokens_open(dir.path("").c_str(), TV_TOKENS_U16, &tokens), TV_BAD_FILE);
    const std::string odd = dir.write("odd.bin", "12345");
    EXPECT_EQ(tv_tokens_open(odd.c_str(), TV_TOKENS_U16, &tokens), TV_BAD_FILE);
    expect_message_has("odd.bin: 5 bytes", tv_error_message());
    EXPECT_EQ(tv_tokens_open(odd.c_str(), TV_TOKENS_U32, &tokens), TV_BAD_FILE);
    ASSERT_EQ(mkfifo(dir.path("pipe").c_str(), 0600), 0);
    EXPECT_EQ(tv_tokens_open(dir.path("pipe").c_str(), TV_TOKENS_TEXT, &tokens), TV_BAD_FILE);
    EXPECT_EQ(tokens, nullptr);
    tv_tokens_close(nullptr);
}

TEST(Tokens, IdsBeyondTheVocabularyAreNamed)
{
    Temporary dir;
    std::vector<uint16_t> ids(200001, 5);
    ids.back() = 250; // only ever a target
    Tokens last(dir.write("last.bin", file_of(ids)), TV_TOKENS_U16);
    EXPECT_EQ(last.check(251), TV_OK);
    EXPECT_EQ(last.check(250), TV_BAD_FILE);
    expect_message_has("last.bin: token 200000 is 250", tv_error_message());
    expect_message_has("vocabulary of 250", tv_error_message());
    ids[65536] = 300;
    ids[70000] = 999; // the first one is named, not the largest
    Tokens middle(dir.write("middle.bin", file_of(ids)), TV_TOKENS_U16);
    EXPECT_EQ(middle.check(251), TV_BAD_FILE);
    expect_message_has("token 65536 is 300", tv_error_message());

    Tokens wide(dir.write("a.u32", file_of<uint32_t>({0, 70000, 4294967295u})), TV_TOKENS_U32);
    EXPECT_EQ(wide.check(50257), TV_BAD_FILE);
    expect_message_has("token 1 is 70000", tv_error_message());
    EXPECT_EQ(wide.check(2147483647), TV_BAD_FILE); // would be negative as int32
    expect_message_has("token 2 is 4294967295", tv_error_message());

    Tokens text(dir.write("a.txt", "ab\xFF"), TV_TOKENS_TEXT);
    EXPECT_EQ(text.check(256), TV_OK);
    EXPECT_EQ(text.check(255), TV_BAD_FILE);
    expect_message_has("token 2 is 255", tv_error_message());
}

// Token 4 915 200 000 is sample 2 400 000 of 2048: beyond 32 bits as a token and as a byte.
TEST(Tokens, PlacesBeyondThirtyTwoBits)
{
    Temporary dir;
    const std::string path = dir.write("big.bin", "");
    if (truncate(path.c_str(), 10000000000) != 0)
        GTEST_SKIP() << "this file system has no sparse file of 10 GB";
    const int64_t S = 2048, sample = 2400000;
    std::vector<uint16_t> pattern(S + 1);
    for (size_t i = 0; i < pattern.size(); i++)
        pattern[i] = (uint16_t)(i * 31 + 7);
    const int fd = open(path.c_str(), O_WRONLY);
    ASSERT_GE(fd, 0);
    const size_t bytes = pattern.size() * 2;
    ASSERT_EQ(pwrite(fd, pattern.data(), bytes, sample * S * 2), (ssize_t)bytes);
    close(fd);
    Tokens tokens(path, TV_TOKENS_U16);
    EXPECT_EQ(tokens.count(), 5000000000);
    EXPECT_EQ(tokens.read(sample * S, S + 1), std::vector<int32_t>(pattern.begin(), pattern.end()));
    EXPECT_EQ(tokens.read(sample * S - 1, 2), (std::vector<int32_t>{0, 7}));
    EXPECT_EQ(tokens.check(65536), TV_OK); // 16 bits cannot hold more: nothing is read
}

TEST(Tokens, FormatByName)
{
    Temporary dir;
    tv_tokens_format_t format = TV_TOKENS_U32;
    const std::string bin = dir.write("a.bin", file_of<uint16_t>({1, 2, 3}));
    ASSERT_EQ(format_of("some.dir/a.txt", "auto", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_TEXT);
    ASSERT_EQ(format_of("a.u32", "auto", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_U32);
    ASSERT_EQ(format_of("a.text", "auto", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_TEXT);
    ASSERT_EQ(format_of("a.u16", "auto", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_U16);
    format = TV_TOKENS_TEXT;
    ASSERT_EQ(format_of(bin, "auto", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_U16);
    for (const char *path : {"a", "a.json", "dir.bin/a", "a.bin.gz"}) {
        EXPECT_EQ(format_of(path, "auto", &format), TV_INVALID) << path;
        expect_message_has("--data-format", tv_error_message());
    }
    ASSERT_EQ(format_of("a", "u32", &format), TV_OK); // a word needs no file
    EXPECT_EQ(format, TV_TOKENS_U32);
    EXPECT_EQ(format_of("a", "u64", &format), TV_INVALID);
    ASSERT_EQ(format_of("a", "llmc", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_LLMC);
    ASSERT_EQ(format_of("a", "megatron", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_MEGATRON);
    format = TV_TOKENS_U32;
    EXPECT_EQ(format_of(dir.path("absent.bin"), "auto", &format), TV_BAD_FILE);
    EXPECT_EQ(format, TV_TOKENS_U32);
    EXPECT_STREQ(tv_tokens_format_name(TV_TOKENS_TEXT), "text");
    EXPECT_STREQ(tv_tokens_format_name(TV_TOKENS_U16), "u16");
    EXPECT_STREQ(tv_tokens_format_name(TV_TOKENS_U32), "u32");
}

TEST(Tokens, ABinaryFileOfAnotherWidthIsDetected)
{
    Temporary dir;
    tv_tokens_format_t format = TV_TOKENS_TEXT;
    std::vector<uint32_t> wide(100);
    for (size_t i = 0; i < wide.size(); i++)
        wide[i] = (uint32_t)(i % 7);
    const std::string path = dir.write("wide.bin", file_of(wide));
    EXPECT_EQ(format_of(path, "auto", &format), TV_BAD_FILE);
    expect_message_has("32-bit", tv_error_message());
    EXPECT_EQ(format_of(path, "u16", &format), TV_OK); // what is said is believed
    const std::string llmc = dir.write("llmc.bin", file_of<uint32_t>({20240520, 1, 1024, 0}));
    EXPECT_EQ(format_of(llmc, "auto", &format), TV_OK); // refused when it is opened
    EXPECT_EQ(format, TV_TOKENS_LLMC);
    for (const auto &ids :
         {std::vector<uint16_t>(64, 0), std::vector<uint16_t>{5, 0, 5, 0}, std::vector<uint16_t>{}})
        EXPECT_EQ(format_of(dir.write("plain.bin", file_of(ids)), "auto", &format), TV_OK);
}

TEST(Tokens, MockIdsAreAFunctionOfSeedAndPlace)
{
    const int64_t count = INT64_C(1) << 40; // nothing is kept
    tv_tokens *mock = nullptr, *other = nullptr;
    ASSERT_EQ(tv_tokens_mock(count, 50257, 7, &mock), TV_OK);
    ASSERT_EQ(tv_tokens_mock(count, 50257, 8, &other), TV_OK);
    EXPECT_EQ(tv_tokens_count(mock), count);
    EXPECT_EQ(tv_tokens_check(mock, 50257), TV_OK);
    std::vector<int32_t> a(1000), b(500), c(1000), last(1);
    ASSERT_EQ(tv_tokens_read(mock, 5, 1000, a.data()), TV_OK);
    ASSERT_EQ(tv_tokens_read(mock, 505, 500, b.data()), TV_OK);
    ASSERT_EQ(tv_tokens_read(other, 5, 1000, c.data()), TV_OK);
    EXPECT_EQ(std::vector<int32_t>(a.begin() + 500, a.end()), b);
    EXPECT_NE(a, c);
    double sum = 0;
    for (int32_t id : a) {
        EXPECT_GE(id, 0);
        EXPECT_LT(id, 50257);
        sum += id;
    }
    EXPECT_NEAR(sum / 1000, 25128, 5 * 50257 / std::sqrt(12.0 * 1000)); // uniform: 5 deviations
    EXPECT_EQ(tv_tokens_read(mock, count - 1, 1, last.data()), TV_OK);
    EXPECT_EQ(tv_tokens_read(mock, count, 1, last.data()), TV_INTERNAL);
    tv_tokens_close(mock);
    tv_tokens_close(other);
}
