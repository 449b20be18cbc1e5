// What the program's tests of tokenizing do not reach: text that is no UTF-8, places to cut, a build
// without SentencePiece, and the writer's limits.
#include "base/status.h"
#include "temporary.h"
#include "train/tokenizer_internal.h"
#include "train/tokens_writer.h"
#include <algorithm>
#include <vector>

TEST(Utf8, WholeCharactersOnly)
{
    const auto length = [](const std::string &text) {
        return tv_utf8_length(text.data(), (int64_t)text.size());
    };
    const std::string good[] = {"",
                                "abcdefghijklm",
                                "\x7f",
                                "\xc2\x80",
                                "\xdf\xbf",
                                "\xe0\xa0\x80",
                                "\xed\x9f\xbf",
                                "\xee\x80\x80",
                                "\xef\xbf\xbf",
                                "\xf0\x90\x80\x80",
                                "\xf4\x8f\xbf\xbf",
                                std::string("\0", 1)};
    for (const std::string &text : good)
        EXPECT_EQ(length("12345678" + text + "x"), (int64_t)text.size() + 9) << text;
    const char *bad[] = {"\x80",
                         "\xbf",
                         "\xc0\x80",
                         "\xc1\xbf",
                         "\xc2",
                         "\xc2x",
                         "\xe0\x9f\xbf",
                         "\xe1\x80",
                         "\xed\xa0\x80",
                         "\xf0\x8f\xbf\xbf",
                         "\xf4\x90\x80\x80",
                         "\xf5\x80\x80\x80",
                         "\xff"};
    for (const char *text : bad)
        EXPECT_EQ(length(std::string("12345678") + text), 8) << text;
}

TEST(Tokenizer, CutsBehindALineThatWhiteSpaceDoesNotFollow)
{
    tv_tokenizer *bytes = nullptr;
    ASSERT_EQ(tv_tokenizer_open("bytes", &bytes), TV_OK);
    const std::string text = "a\n\nb\n c\n\u00e9\nd\n";
    const auto cut = [&](int64_t at) {
        return tv_tokenizer_cut(bytes, text.data(), (int64_t)text.size(), at);
    };
    EXPECT_EQ(cut(0), 3);
    EXPECT_EQ(cut(3), 11); // not before a blank, nor before what is beyond ASCII
    EXPECT_EQ(cut(12), 13);
    EXPECT_EQ(cut(13), 13);
    bytes->may_cut = 0;
    EXPECT_EQ(cut(0), 13);
    EXPECT_STREQ(tv_tokenizer_kind(bytes), "bytes");
    EXPECT_EQ(tv_tokenizer_vocab_size(bytes), 256);
    EXPECT_EQ(tv_tokenizer_find(bytes, "a"), -1);
    tv_tokenizer_close(bytes);
    tv_tokenizer_close(nullptr);
}

// The module lies beside the program, where this test does not look.
TEST(Tokenizer, SentencePieceThatIsNotThereIsSaid)
{
    Temporary dir;
    tv_tokenizer *none = nullptr;
    EXPECT_EQ(tv_tokenizer_open(dir.path("absent.model").c_str(), &none), TV_BAD_FILE);
    EXPECT_EQ(tv_tokenizer_open(dir.write("a.model", "x").c_str(), &none), TV_UNSUPPORTED);
    expect_message_has("libsentencepiece-dev", tv_error_message());
    EXPECT_EQ(tv_tokenizer_open(dir.write("a.json", "[]").c_str(), &none), TV_BAD_FILE);
    EXPECT_EQ(none, nullptr);
}

// Ids that a narrower type would wrap are refused; nothing is left of what was not finished.
TEST(TokensWriter, RefusesWhatItsWidthDoesNotHold)
{
    Temporary dir;
    tv_tokens_writer *writer = nullptr;
    const std::string path = dir.path("a.u16");
    EXPECT_EQ(tv_tokens_writer_open(path.c_str(), TV_TOKENS_U16, 119547, &writer), TV_INVALID);
    expect_message_has("16 bits", tv_error_message());
    EXPECT_EQ(tv_tokens_writer_open(path.c_str(), TV_TOKENS_TEXT, 256, &writer), TV_INVALID);
    ASSERT_EQ(tv_tokens_writer_open(path.c_str(), TV_TOKENS_U16, 65536, &writer), TV_OK);
    const uint32_t ids[] = {65535, 65536};
    EXPECT_EQ(tv_tokens_writer_add(writer, ids, 1), TV_OK);
    EXPECT_EQ(tv_tokens_writer_add(writer, ids, 2), TV_INVALID);
    expect_message_has("token 2 is 65536", tv_error_message());
    tv_tokens_writer_close(writer);
    EXPECT_FALSE(dir.has("a.u16") || dir.has("a.u16.tmp"));
}

// More ids than one block, and 65500 of a vocabulary, where Megatron-LM turns to 32 bits.
TEST(TokensWriter, WritesWhatTheReaderReads)
{
    Temporary dir;
    std::vector<uint32_t> ids(40000);
    for (size_t i = 0; i < ids.size(); i++)
        ids[i] = (uint32_t)(i * 7 % 65499);
    const struct {
        tv_tokens_format_t format;
        int64_t vocab_size, bytes;
    } cases[] = {{TV_TOKENS_U16, 65499, 80000},         {TV_TOKENS_U32, 65499, 160000},
                 {TV_TOKENS_LLMC, 65536, 1024 + 80000}, {TV_TOKENS_LLMC, 65537, 1024 + 160000},
                 {TV_TOKENS_MEGATRON, 65499, 80000},    {TV_TOKENS_MEGATRON, 65500, 160000}};
    for (const auto &which : cases) {
        const std::string path = dir.path("a.bin");
        tv_tokens_writer *writer = nullptr;
        ASSERT_EQ(tv_tokens_writer_open(path.c_str(), which.format, which.vocab_size, &writer),
                  TV_OK);
        ASSERT_EQ(tv_tokens_writer_add(writer, ids.data(), 3), TV_OK);
        ASSERT_EQ(tv_tokens_writer_end_document(writer), TV_OK);
        ASSERT_EQ(tv_tokens_writer_end_document(writer), TV_OK); // an empty one
        ASSERT_EQ(tv_tokens_writer_add(writer, ids.data() + 3, (int64_t)ids.size() - 3), TV_OK);
        EXPECT_EQ(tv_tokens_writer_count(writer), (int64_t)ids.size());
        ASSERT_EQ(tv_tokens_writer_finish(writer), TV_OK) << tv_error_message();
        tv_tokens_writer_close(writer);
        EXPECT_EQ((int64_t)dir.read("a.bin").size(), which.bytes);
        tv_tokens *tokens = nullptr;
        ASSERT_EQ(tv_tokens_open(path.c_str(), which.format, &tokens), TV_OK) << tv_error_message();
        std::vector<int32_t> got(ids.size());
        ASSERT_EQ(tv_tokens_read(tokens, 0, (int64_t)got.size(), got.data()), TV_OK);
        EXPECT_TRUE(std::equal(ids.begin(), ids.end(), got.begin()));
        if (which.format == TV_TOKENS_MEGATRON) {
            ASSERT_EQ(tv_tokens_num_documents(tokens), 3);
            EXPECT_EQ(tv_tokens_document_end(tokens, 0), 3);
            EXPECT_EQ(tv_tokens_document_end(tokens, 1), 3);
        }
        tv_tokens_close(tokens);
    }
}
