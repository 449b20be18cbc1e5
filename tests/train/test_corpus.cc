// What a run reads: shards, blends and documents, all of them from files, seed and position alone.
#include "base/status.h"
#include "data/samples.h"
#include "peers.h"
#include "train/corpus.h"
#include <algorithm>
#include <deque>
#include <map>
#include <numeric>

namespace
{
constexpr int64_t S = 4;

struct Corpus {
    explicit Corpus(const tv_corpus_args &args)
    {
        status = tv_corpus_open(&args, &corpus);
        message = status == TV_OK ? "" : tv_error_message();
    }
    ~Corpus()
    {
        tv_corpus_close(corpus);
    }
    Corpus(const Corpus &) = delete;
    Corpus &operator=(const Corpus &) = delete;
    int64_t num_samples() const
    {
        return tv_corpus_num_samples(corpus);
    }
    std::vector<int32_t> read(int64_t sample) const
    {
        std::vector<int32_t> tokens((size_t)S + 1, -7);
        EXPECT_EQ(tv_corpus_read(corpus, sample, tokens.data()), TV_OK) << tv_error_message();
        return tokens;
    }
    std::vector<int64_t> order(int64_t first, int64_t num) const
    {
        std::vector<int64_t> samples;
        for (int64_t i = first; i < first + num; i++)
            samples.push_back(tv_corpus_sample_at(corpus, i));
        return samples;
    }
    tv_corpus *corpus = nullptr;
    tv_status_t status;
    std::string message;
};

tv_corpus_args args_of(const std::vector<std::string> &words)
{
    static std::deque<std::string> kept; // the words are borrowed
    tv_corpus_args args = {};
    args.flag = "data";
    for (const std::string &word : words)
        args.words.words[args.words.num++] = kept.emplace_back(word).c_str();
    args.format = "auto";
    args.seq_length = S;
    args.eod_token = -1;
    args.shuffle = 1;
    args.seed = 1234;
    return args;
}

// n + 1 tokens count up from `first`: n / S samples.
std::string counting(const Temporary &dir, const std::string &name, int first, int n)
{
    std::vector<uint16_t> ids((size_t)n + 1);
    std::iota(ids.begin(), ids.end(), (uint16_t)first);
    return dir.write(name, file_of(ids));
}

void expect_refused(const Corpus &corpus, tv_status_t status, const std::string &part)
{
    EXPECT_EQ(corpus.status, status);
    expect_message_has(part, corpus.message);
}
} // namespace

// One epoch reads every sample of every shard once, in an order of the seed; samples stay in a shard.
TEST(Corpus, ShardsAreOneDataSet)
{
    Temporary dir;
    std::vector<std::string> words;
    for (int shard = 0; shard < 4; shard++)
        words.push_back(
            counting(dir, "s" + std::to_string(shard) + ".bin", 1000 * shard, 64 * S + 2));
    const Corpus corpus(args_of(words));
    ASSERT_EQ(corpus.status, TV_OK) << corpus.message;
    ASSERT_EQ(corpus.num_samples(), 256);
    EXPECT_EQ(tv_corpus_unused_tokens(corpus.corpus), 4 * 2);
    EXPECT_EQ(tv_corpus_num_sources(corpus.corpus), 1);
    std::vector<int64_t> epoch = corpus.order(0, 256), next = corpus.order(256, 256);
    EXPECT_NE(epoch, next);
    tv_corpus_args other = args_of(words);
    other.seed = 5;
    EXPECT_NE(Corpus(other).order(0, 256), epoch);
    std::sort(epoch.begin(), epoch.end());
    for (int64_t i = 0; i < 256; i++) {
        EXPECT_EQ(epoch[(size_t)i], i);
        const auto at = (int32_t)(1000 * (i / 64) + i % 64 * S);
        EXPECT_EQ(corpus.read(i), (std::vector<int32_t>{at, at + 1, at + 2, at + 3, at + 4}));
    }
    int32_t out[S + 1];
    EXPECT_EQ(tv_corpus_read(corpus.corpus, 256, out), TV_INTERNAL);
    EXPECT_EQ(tv_corpus_read(corpus.corpus, -1, out), TV_INTERNAL);
    const std::string pattern = dir.path("s*.bin");
    EXPECT_EQ(Corpus(args_of({pattern})).order(0, 512), corpus.order(0, 512));
}

// One file keeps the order that it always had; without shuffling it is that of the file.
TEST(Corpus, OfOneFileIsItsSamplesInOrder)
{
    Temporary dir;
    const std::string path = counting(dir, "a.u16", 0, 10 * S);
    tv_corpus_args args = args_of({path});
    const tv_sample_order want = {10, 1234, 1};
    const Corpus shuffled(args);
    for (int64_t i = 0; i < 30; i++)
        EXPECT_EQ(tv_corpus_sample_at(shuffled.corpus, i), tv_sample_at(&want, i));
    args.shuffle = 0;
    const Corpus plain(args);
    EXPECT_EQ(plain.order(8, 4), (std::vector<int64_t>{8, 9, 0, 1}));
}

TEST(Corpus, BlendsToTheSampleWithEpochsOfEachSource)
{
    Temporary dir;
    const std::string a = counting(dir, "a.bin", 0, 7 * S),
                      b = counting(dir, "b1.bin", 1000, 30 * S),
                      c = counting(dir, "b2.bin", 2000, 20 * S);
    const Corpus corpus(args_of({a + ":0.3", dir.path("b*.bin") + ":0.7"}));
    ASSERT_EQ(corpus.status, TV_OK) << corpus.message;
    ASSERT_EQ(tv_corpus_num_sources(corpus.corpus), 2);
    EXPECT_EQ(tv_corpus_source_at(corpus.corpus, 0).share, 0.3);
    EXPECT_EQ(tv_corpus_source_at(corpus.corpus, 1).num_files, 2);
    EXPECT_EQ(tv_corpus_source_at(corpus.corpus, 1).num_samples, 50);
    const std::vector<int64_t> order = corpus.order(0, 100);
    std::map<int64_t, int> times;
    for (int64_t sample : order)
        times[sample]++;
    int of_a = 0;
    for (int64_t i = 0; i < 7; i++) {
        of_a += times[i];
        EXPECT_TRUE(times[i] == 4 || times[i] == 5) << "30 draws from 7: whole epochs of it";
    }
    EXPECT_EQ(of_a, 30);
    for (int64_t i = 7; i < 57; i++)
        EXPECT_TRUE(times[i] == 1 || times[i] == 2) << i << ": 70 draws from 50";
    EXPECT_EQ(corpus.read(7 + 30)[0], 2000);
    const Corpus pairs(args_of({"30", a, "70", dir.path("b*.bin")}));
    ASSERT_EQ(pairs.status, TV_OK) << pairs.message;
    EXPECT_EQ(pairs.order(0, 100), order);
}

TEST(Corpus, WordsThatCannotBe)
{
    Temporary dir;
    const std::string a = counting(dir, "a.bin", 0, S),
                      small = counting(dir, "small.bin", 0, S - 1);
    expect_refused(Corpus(args_of({a + ":1", a})), TV_INVALID, "a.bin:1 has a weight");
    expect_refused(Corpus(args_of({a, a + ":1"})), TV_INVALID, "give each one");
    expect_refused(Corpus(args_of({a + ":0", a + ":1"})), TV_INVALID, "not above 0");
    expect_refused(Corpus(args_of({a + ":99999999", a + ":1"})), TV_INVALID, "round them");
    expect_refused(Corpus(args_of({"1", a, "2"})), TV_INVALID, "WEIGHT");
    expect_refused(Corpus(args_of({"1", a, a, "2"})), TV_INVALID, "WEIGHT");
    expect_refused(Corpus(args_of({dir.path("z*.bin")})), TV_INVALID, "no file");
    expect_refused(Corpus(args_of({dir.path("z.bin")})), TV_BAD_FILE, "z.bin");
    expect_refused(Corpus(args_of({small})), TV_BAD_FILE, "4 tokens, one sample needs 5");
    expect_refused(Corpus(args_of({a + ":1", small + ":1"})), TV_BAD_FILE, "small.bin: 4 tokens");
    EXPECT_EQ(Corpus(args_of({a, small})).num_samples(), 1); // a shard may be too short
    const Corpus with_colon(args_of({counting(dir, "x:2", 0, S) + ":1"}));
    expect_refused(with_colon, TV_INVALID, "x:2: the name does not end");
}

TEST(Corpus, FormatIsTextWhenAllAre)
{
    Temporary dir;
    const std::string text = dir.write("a.txt", "abc"), bin = counting(dir, "a.bin", 0, S);
    tv_tokens_format_t format = TV_TOKENS_U32;
    tv_option_list words = {2, {text.c_str(), text.c_str()}};
    ASSERT_EQ(tv_corpus_format("data", &words, "auto", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_TEXT);
    words.words[1] = bin.c_str();
    ASSERT_EQ(tv_corpus_format("data", &words, "auto", &format), TV_OK);
    EXPECT_EQ(format, TV_TOKENS_U16);
}

TEST(Corpus, ChecksEveryFile)
{
    Temporary dir;
    const Corpus corpus(args_of({counting(dir, "a.bin", 0, S), counting(dir, "b.bin", 90, S)}));
    EXPECT_EQ(tv_corpus_check(corpus.corpus, 95), TV_OK);
    EXPECT_EQ(tv_corpus_check(corpus.corpus, 94), TV_BAD_FILE);
    expect_message_has("b.bin: token 4 is 94", tv_error_message());
}

// Documents of 6, 1, 2, 9 and, without an end, 3 tokens; 0 ends them.
TEST(Corpus, SamplesWithinDocuments)
{
    Temporary dir;
    const std::string path = dir.write(
        "a.bin",
        file_of<uint16_t>({1, 2, 3, 4, 5, 0, 0, 6, 0, 7, 8, 9, 10, 11, 12, 13, 14, 0, 15, 16, 17}));
    tv_corpus_args args = args_of({path});
    args.is_within_documents = 1;
    expect_refused(Corpus(args), TV_INVALID, "--eod-token");
    args.eod_token = 0;
    const Corpus corpus(args);
    ASSERT_EQ(corpus.status, TV_OK) << corpus.message;
    const std::vector<std::vector<int32_t>> want = {{1, 2, 3, 4, 5},     {5, 0, -1, -1, -1},
                                                    {6, 0, -1, -1, -1},  {7, 8, 9, 10, 11},
                                                    {11, 12, 13, 14, 0}, {15, 16, 17, -1, -1}};
    ASSERT_EQ(corpus.num_samples(), (int64_t)want.size());
    for (size_t i = 0; i < want.size(); i++)
        EXPECT_EQ(corpus.read((int64_t)i), want[i]) << i;
    EXPECT_EQ(tv_corpus_unused_tokens(corpus.corpus), 1);
    const std::string ends = dir.write("ends.bin", file_of<uint16_t>({0, 0, 0, 0, 0, 0}));
    tv_corpus_args none = args_of({ends});
    none.is_within_documents = 1;
    none.eod_token = 0;
    expect_refused(Corpus(none), TV_BAD_FILE, "6 tokens, no document has 2");
}

TEST(Corpus, SamplesWithinDocumentsOfAnIndex)
{
    Temporary dir;
    dir.write("m.bin", file_of<uint16_t>({1, 2, 3, 4, 5, 6, 7, 8, 9}));
    dir.write("m.idx", MegatronIndex{8, {2, 1, 0, 6}, {0, 2, 3, 4}}.text()); // the second is empty
    const std::string prefix = dir.path("m");
    tv_corpus_args args = args_of({prefix});
    EXPECT_EQ(Corpus(args).num_samples(), 2);
    args.is_within_documents = 1;
    const Corpus corpus(args);
    ASSERT_EQ(corpus.num_samples(), 3);
    EXPECT_EQ(corpus.read(0), (std::vector<int32_t>{1, 2, 3, -1, -1}));
    EXPECT_EQ(corpus.read(1), (std::vector<int32_t>{4, 5, 6, 7, 8}));
    EXPECT_EQ(corpus.read(2), (std::vector<int32_t>{8, 9, -1, -1, -1}));
}

// In place of files: one source of random ids, in an order like that of a file of as many samples.
TEST(CorpusMock, IsOneSourceOfRandomIds)
{
    tv_corpus_args args = args_of({});
    args.mock_vocab = 100;
    Corpus mock(args);
    ASSERT_EQ(mock.status, TV_OK) << mock.message;
    EXPECT_EQ(tv_corpus_num_sources(mock.corpus), 1);
    EXPECT_EQ(mock.num_samples(), TV_CORPUS_MOCK_SAMPLES);
    EXPECT_EQ(tv_corpus_unused_tokens(mock.corpus), 0);
    EXPECT_STREQ(tv_corpus_source_at(mock.corpus, 0).path, "--mock-data");
    EXPECT_EQ(tv_corpus_check(mock.corpus, 100), TV_OK);
    const tv_sample_order order = {TV_CORPUS_MOCK_SAMPLES, args.seed, 1};
    tv_tokens *tokens = nullptr;
    ASSERT_EQ(tv_tokens_mock(TV_CORPUS_MOCK_SAMPLES * S + 1, 100, args.seed, &tokens), TV_OK);
    std::vector<int32_t> want((size_t)S + 1);
    for (int64_t position : {INT64_C(0), INT64_C(1), TV_CORPUS_MOCK_SAMPLES - 1}) {
        const int64_t sample = tv_sample_at(&order, position);
        EXPECT_EQ(mock.order(position, 1), std::vector<int64_t>{sample});
        ASSERT_EQ(tv_tokens_read(tokens, sample * S, S + 1, want.data()), TV_OK);
        EXPECT_EQ(mock.read(sample), want);
    }
    EXPECT_NE(mock.read(0), mock.read(1));
    tv_tokens_close(tokens);
}
