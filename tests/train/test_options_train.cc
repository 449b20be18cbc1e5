// The flags of `trivet train`: defaults, Megatron-LM's names, fields.
#include "test_options.h"
#include "train/train_options.h"
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>

namespace
{
struct Parsed {
    Words words;
    tv_train_options options = {};
    tv_status_t status;

    explicit Parsed(std::vector<std::string> flags) : words("train", std::move(flags))
    {
        status = tv_train_options_parse(words.argc(), words.argv.data(), &options);
    }
    ~Parsed()
    {
        tv_train_options_free(&options);
    }
};

void expect_refused(std::vector<std::string> flags, const char *words)
{
    Parsed parsed(std::move(flags));
    EXPECT_EQ(parsed.status, TV_INVALID);
    EXPECT_NE(std::strstr(tv_error_message(), words), nullptr) << tv_error_message();
}
} // namespace

TEST(TrainOptions, DefaultsAreTheDocumentedOnes)
{
    Parsed p({});
    ASSERT_EQ(p.status, TV_OK);
    EXPECT_EQ(p.options.pp, 1);
    EXPECT_EQ(p.options.dp, 0);
    EXPECT_EQ(p.options.schedule, nullptr);
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
    EXPECT_EQ(p.options.vpp, 0);
    EXPECT_EQ(p.options.slot_limit, 0);
    EXPECT_STREQ(p.options.partition, "uniform");
    EXPECT_STREQ(p.options.recompute, "none");
    EXPECT_EQ(p.options.memory_limit_mib, 0);
    EXPECT_EQ(p.options.trace_steps, 1);
    for (const char *text :
         {p.options.stage_layout, p.options.save_profile, p.options.load_profile, p.options.trace})
        EXPECT_EQ(text, nullptr);
}

TEST(TrainOptions, MegatronNamesAndBothWaysToGiveAValue)
{
    Parsed p({"--tensor-model-parallel-size", "4", "--pipeline-model-parallel-size=2",
              "--data-path", "x", "--lr=1e-3"});
    ASSERT_EQ(p.status, TV_OK);
    EXPECT_EQ(p.options.tp, 4);
    EXPECT_EQ(p.options.pp, 2);
    ASSERT_EQ(p.options.data.num, 1);
    EXPECT_STREQ(p.options.data.words[0], "x");
    EXPECT_EQ(p.options.lr, 1e-3);
    EXPECT_TRUE(tv_train_options_has(&p.options, "tp"));
    EXPECT_FALSE(tv_train_options_has(&p.options, "dp"));
}

TEST(TrainOptions, ListsEndAtTheNextFlagAndTheLastOneCounts)
{
    Parsed p({"--data", "a", "b:2", "--valid-data-path=v", "w", "--train-data-path", "c", "d",
              "--eod-token", "0", "--eod-mask-loss", "--reset-position-ids",
              "--reset-attention-mask", "--samples-cross-documents", "off"});
    ASSERT_EQ(p.status, TV_OK) << tv_error_message();
    ASSERT_EQ(p.options.data.num, 2);
    EXPECT_STREQ(p.options.data.words[0], "c");
    EXPECT_STREQ(p.options.data.words[1], "d");
    ASSERT_EQ(p.options.valid_data.num, 2);
    EXPECT_STREQ(p.options.valid_data.words[0], "v");
    EXPECT_EQ(p.options.eod_token, 0);
    EXPECT_TRUE(p.options.masks_eod_loss && p.options.resets_position_ids &&
                p.options.resets_attention_mask);
    EXPECT_STREQ(p.options.samples_cross_documents, "off");
    Parsed none({});
    EXPECT_EQ(none.options.data.num, 0);
    EXPECT_EQ(none.options.eod_token, -1);
    std::vector<std::string> many(66, "x");
    many[0] = "--data";
    EXPECT_EQ(Parsed(many).status, TV_INVALID);
    EXPECT_EQ(Parsed({"--data", ""}).status, TV_INVALID);
    EXPECT_EQ(Parsed({"--data"}).status, TV_INVALID);
}

TEST(TrainOptions, FlagsOfTheScheduleReachTheirFields)
{
    Parsed p({"--schedule",     "zb-v",    "--vpp",          "2",      "--slot-limit",   "6",
              "--partition",    "profile", "--stage-layout", "Et|ttL", "--recompute",    "full",
              "--memory-limit", "512.5",   "--save-profile", "s",      "--load-profile", "l",
              "--trace",        "t",       "--trace-steps",  "3"});
    ASSERT_EQ(p.status, TV_OK) << tv_error_message();
    EXPECT_STREQ(p.options.schedule, "zb-v");
    EXPECT_EQ(p.options.vpp, 2);
    EXPECT_EQ(p.options.slot_limit, 6);
    EXPECT_STREQ(p.options.partition, "profile");
    EXPECT_STREQ(p.options.stage_layout, "Et|ttL");
    EXPECT_STREQ(p.options.recompute, "full");
    EXPECT_EQ(p.options.memory_limit_mib, 512.5);
    EXPECT_STREQ(p.options.save_profile, "s");
    EXPECT_STREQ(p.options.load_profile, "l");
    EXPECT_STREQ(p.options.trace, "t");
    EXPECT_EQ(p.options.trace_steps, 3);
    Parsed longer({"--num-virtual-stages-per-pipeline-rank", "4", "--recompute-granularity",
                   "selective", "--pipeline-model-parallel-layout", "Et|L"});
    ASSERT_EQ(longer.status, TV_OK) << tv_error_message();
    EXPECT_EQ(longer.options.vpp, 4);
    EXPECT_STREQ(longer.options.recompute, "selective");
    EXPECT_STREQ(longer.options.stage_layout, "Et|L");
}

TEST(TrainOptions, DropoutHasADefaultOfItsOwn)
{
    Parsed none({});
    EXPECT_EQ(none.options.dropout, 0);
    EXPECT_EQ(none.options.attention_dropout, -1);
    EXPECT_EQ(none.options.hidden_dropout, -1);
    EXPECT_EQ(none.options.label_smoothing, 0);
    EXPECT_EQ(none.options.is_sequence_parallel, 0);
    Parsed p({"--dropout", "0.1", "--attention-dropout", "0", "--hidden-dropout", "0.2",
              "--label-smoothing", "0.3", "--sequence-parallel"});
    ASSERT_EQ(p.status, TV_OK) << tv_error_message();
    EXPECT_EQ(p.options.dropout, 0.1);
    EXPECT_EQ(p.options.attention_dropout, 0);
    EXPECT_EQ(p.options.hidden_dropout, 0.2);
    EXPECT_EQ(p.options.label_smoothing, 0.3);
    EXPECT_EQ(p.options.is_sequence_parallel, 1);
}

TEST(TrainOptions, OverlapHasASwitchForEachAxis)
{
    Parsed none({});
    EXPECT_EQ(none.options.is_tensor_overlapped, 0);
    EXPECT_EQ(none.options.is_grad_reduce_late, 0);
    Parsed p({"--tp-comm-overlap", "--no-overlap-grad-reduce"});
    ASSERT_EQ(p.status, TV_OK) << tv_error_message();
    EXPECT_EQ(p.options.is_tensor_overlapped, 1);
    EXPECT_EQ(p.options.is_grad_reduce_late, 1);
}

TEST(TrainOptions, RefusesWhatItDoesNotKnow)
{
    expect_refused({"--zero-stage", "4"}, "--zero-stage 4");
    expect_refused({"--train-it", "3"}, "--train-it");
    expect_refused({"-p", "3"}, "-p");
    expect_refused({"words"}, "'words'");
    expect_refused({"--"}, "--");
    expect_refused({"--pp"}, "--pp needs a value");
    expect_refused({"--dry-run=1"}, "takes no value");
}

TEST(TrainOptions, RefusesBadNumbers)
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

TEST(TrainOptions, TheLastValueWinsAndTheCommandLineBeatsTheFile)
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

TEST(TrainOptions, HelpOfFlagsWhoseDefaultDependsOnOthers)
{
    const std::string help = help_of(tv_train_option_table);
    for (const char *words : {"(default 1f1b;\n", "--export-hf TEXT", "(default 0.95)"})
        EXPECT_NE(help.find(words), std::string::npos) << words;
}
