// The bytes of a stage that the solver of --partition weighs, against those that the dry run prints and training
// allocates.
#include "test_options.h"
#include <gtest/gtest.h>
#include <numeric>

#include "train/split.h"

namespace
{
using Flags = std::vector<std::string>;

const Flags GPT2 = {"--model",
                    "gpt2",
                    "--num-layers",
                    "8",
                    "--hidden-size",
                    "40",
                    "--num-attention-heads",
                    "4",
                    "--vocab-size",
                    "97",
                    "--seq-length",
                    "16",
                    "--global-batch-size",
                    "24",
                    "--dry-run"};
const Flags LLAMA = {"--model", "llama", "--untie-embeddings-and-output-weights",
                     "--ffn-hidden-size", "108"};

Flags operator+(Flags a, const Flags &b)
{
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

struct Stages {
    std::vector<int64_t> solver, dry;
};

Stages stages_of(const Flags &flags)
{
    Words words("train", GPT2 + flags);
    tv_train_options options = {};
    tv_run run = {};
    EXPECT_EQ(tv_train_options_parse(words.argc(), words.argv.data(), &options), TV_OK)
        << tv_error_message();
    EXPECT_EQ(tv_run_resolve(&options, 0, &run), TV_OK) << tv_error_message();
    const auto P = (size_t)run.extent.at[TV_PIPE];
    Stages stages;
    std::vector<double> seconds(P);
    stages.solver.resize(P);
    const tv_profile profile = {};
    EXPECT_EQ(tv_split_costs(&run, &profile, 0, seconds.data(), stages.solver.data()), TV_OK);
    for (size_t p = 0; p < P; p++) {
        int64_t bytes[TV_NUM_MEM_KINDS];
        EXPECT_EQ(tv_run_stage_bytes(&run, (int)p, bytes), TV_OK);
        stages.dry.push_back(std::accumulate(bytes, bytes + TV_NUM_MEM_KINDS, (int64_t)0));
    }
    tv_run_free(&run);
    tv_train_options_free(&options);
    return stages;
}

const std::vector<Flags> MESHES = {
    {"--dp", "2"},
    {"--dp", "3", "--pp", "2"},
    {"--dp", "2", "--pp", "2", "--schedule", "zb-v"},
    {"--dp", "3", "--pp", "2", "--vpp", "2", "--tp", "2", "--sequence-parallel"}};

template <typename Check> void on_all(const char *zero, const Flags &more, Check check)
{
    for (const Flags &mesh : MESHES)
        for (const char *recompute : {"none", "selective", "full"})
            for (const Flags &model : {Flags{}, LLAMA}) {
                const Flags flags =
                    mesh + model + more + Flags{"--recompute", recompute, "--zero-stage", zero};
                SCOPED_TRACE(std::accumulate(flags.begin(), flags.end(), std::string(),
                                             [](auto a, auto b) { return a + " " + b; }));
                check(stages_of(flags));
            }
}
} // namespace

TEST(Split, WeighsTheBytesOfTheDryRun)
{
    for (const char *zero : {"0", "2", "3"})
        on_all(zero, {}, [](const Stages &stages) { EXPECT_EQ(stages.solver, stages.dry); });
}

// small units share a bucket, muon's matrices are not cut
TEST(Split, WeighsAboutThemWhereUnitsShareShards)
{
    const auto check = [](const Stages &stages, int64_t less, int64_t more) {
        for (size_t p = 0; p < stages.dry.size(); p++) {
            EXPECT_GE(stages.solver[p], stages.dry[p] - less);
            EXPECT_LE(stages.solver[p], stages.dry[p] + more);
        }
    };
    // A block of 16 elements of two moments for each unit but one.
    on_all("1", {}, [&](const Stages &stages) { check(stages, 0, 9 * 16 * 8); });
    const Flags muon = {"--optimizer", "muon"};
    on_all("1", muon, [&](const Stages &s) { check(s, s.dry[0] / 100, s.dry[0] / 10); });
    for (const char *zero : {"2", "3"})
        on_all(zero, muon, [&](const Stages &s) { check(s, 0, s.dry[0] / 10); });
}
