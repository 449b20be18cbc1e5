// The table of flags: what is accepted, what is refused and with which words, --args, the help text.
#include "train/options.h"
#include <cstdio>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace
{
struct Parsed {
    std::vector<std::string> words;
    std::vector<char *> argv;
    tv_train_options options = {};
    tv_status_t status;

    explicit Parsed(std::vector<std::string> flags) : words(std::move(flags))
    {
        words.insert(words.begin(), "train");
        for (std::string &word : words)
            argv.push_back(word.data());
        argv.push_back(nullptr);
        status = tv_train_options_parse((int)words.size(), argv.data(), &options);
    }
    ~Parsed()
    {
        if (status == TV_OK)
            tv_train_options_free(&options);
    }
    Parsed(const Parsed &) = delete;
    Parsed &operator=(const Parsed &) = delete;
};

void expect_refused(std::vector<std::string> flags, const char *words)
{
    Parsed parsed(std::move(flags));
    EXPECT_EQ(parsed.status, TV_INVALID);
    EXPECT_NE(std::strstr(tv_error_message(), words), nullptr) << tv_error_message();
}
} // namespace

TEST(Options, DefaultsAreTheDocumentedOnes)
{
    Parsed p({});
    ASSERT_EQ(p.status, TV_OK);
    EXPECT_EQ(p.options.pp, 1);
    EXPECT_EQ(p.options.dp, 0);
    EXPECT_STREQ(p.options.schedule, "1f1b");
    EXPECT_EQ(p.options.micro_batch, 1);
    EXPECT_EQ(p.options.decay_iters, -1);
    EXPECT_EQ(p.options.beta2, 0.95);
    EXPECT_EQ(p.options.adam_eps, 1e-8);
    EXPECT_EQ(p.options.clip_grad, 1.0);
    EXPECT_EQ(p.options.weight_decay, 0.1);
    EXPECT_EQ(p.options.seed, 1234);
    EXPECT_EQ(p.options.mask_token, -1);
    EXPECT_EQ(p.options.timeout_seconds, 120);
    EXPECT_STREQ(p.options.shuffle, "on");
}

TEST(Options, MegatronNamesAndBothWaysToGiveAValue)
{
    Parsed p({"--tensor-model-parallel-size", "4", "--pipeline-model-parallel-size=2",
              "--data-path", "x", "--lr=1e-3"});
    ASSERT_EQ(p.status, TV_OK);
    EXPECT_EQ(p.options.tp, 4);
    EXPECT_EQ(p.options.pp, 2);
    EXPECT_STREQ(p.options.data, "x");
    EXPECT_EQ(p.options.lr, 1e-3);
    EXPECT_TRUE(tv_train_options_has(&p.options, "tp"));
    EXPECT_FALSE(tv_train_options_has(&p.options, "dp"));
}

TEST(Options, RefusesWhatItDoesNotKnow)
{
    expect_refused({"--zero-stage", "1"}, "--zero-stage");
    expect_refused({"--train-it", "3"}, "--train-it");
    expect_refused({"-p", "3"}, "-p");
    expect_refused({"words"}, "'words'");
    expect_refused({"--"}, "--");
    expect_refused({"--pp"}, "--pp needs a value");
    expect_refused({"--dry-run=1"}, "takes no value");
}

TEST(Options, RefusesBadNumbers)
{
    expect_refused({"--pp", "0"}, "--pp 0");
    expect_refused({"--pp", "-1"}, "--pp -1");
    expect_refused({"--pp", "2x"}, "not a whole number");
    expect_refused({"--pp", ""}, "not a whole number");
    expect_refused({"--pp", "99999999999999999999"}, "--pp 9999");
    expect_refused({"--lr", "inf"}, "not a number");
    expect_refused({"--lr", "-1"}, "--lr -1");
    expect_refused({"--adam-beta1", "1"}, "--adam-beta1 1");
    expect_refused({"--adam-eps", "0"}, "--adam-eps 0");
    expect_refused({"--data", ""}, "empty");
}

TEST(Options, TheLastValueWinsAndTheCommandLineBeatsTheFile)
{
    const std::string path = testing::TempDir() + "trivet_args";
    std::ofstream(path) << "# from a file\n--pp 2\t--lr 1e-2 # both\n--dry-run\n";
    Parsed p({"--pp", "3", "--pp", "4", "--args", path});
    ASSERT_EQ(p.status, TV_OK) << tv_error_message();
    EXPECT_EQ(p.options.pp, 4);
    EXPECT_EQ(p.options.lr, 1e-2);
    EXPECT_EQ(p.options.is_dry_run, 1);
    std::remove(path.c_str());
}

TEST(Options, ArgsFilesAreChecked)
{
    const std::string path = testing::TempDir() + "trivet_args_bad";
    std::ofstream(path) << "--bogus 1\n";
    expect_refused({"--args", path}, "--bogus");
    std::ofstream(path) << "--args " << path << "\n";
    expect_refused({"--args", path}, "--args inside");
    std::remove(path.c_str());
    Parsed missing({"--args", path});
    EXPECT_EQ(missing.status, TV_BAD_FILE);
}

TEST(Options, HelpNamesEveryDefaultAndFits80Columns)
{
    char *text = nullptr;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    tv_train_options_help(out);
    std::fclose(out);
    const std::string help(text, bytes);
    free(text);
    for (const char *words :
         {"--pp N", "(default 1f1b)", "[also", "--export-hf TEXT", "(default 0.95)"})
        EXPECT_NE(help.find(words), std::string::npos) << words;
    size_t start = 0;
    while (start < help.size()) {
        const size_t end = help.find('\n', start);
        EXPECT_LE(end - start, 80u) << help.substr(start, end - start);
        start = end + 1;
    }
}
