// What a training step sends, against the formulas worked by hand.
#include "train/traffic.h"
#include <gtest/gtest.h>
#include <vector>

namespace
{
constexpr tv_traffic_sizes BF16 = {2, 2, 2};

// A run as tv_run_resolve leaves it, without a schedule: layers uniform over the pieces.
struct ModelRun {
    tv_run run = {};
    std::vector<tv_unit_range> pieces;

    ModelRun(int layers, int hidden, int64_t vocabulary, tv_mesh_coord extent, int chunks = 1)
    {
        run.model.family = TV_GPT2;
        run.model.num_layers = layers;
        run.model.hidden_size = hidden;
        run.model.num_heads = hidden / 16;
        run.model.vocab_size = vocabulary;
        run.model.max_positions = 64;
        run.model.is_tied = 1;
        tv_model_config_defaults(&run.model);
        run.extent = extent;
        run.micro_batch = 1;
        run.seq_length = 64;
        run.num_micro = 8;
        run.num_chunks = chunks;
        pieces.resize((size_t)(extent.at[TV_PIPE] * chunks));
        EXPECT_EQ(tv_partition_uniform(layers, (int)pieces.size(), pieces.data()), TV_OK);
        run.pieces = pieces.data();
    }
    tv_traffic traffic(tv_traffic_sizes sizes = BF16)
    {
        tv_traffic traffic = {};
        EXPECT_EQ(tv_run_traffic(&run, sizes, &traffic), TV_OK);
        return traffic;
    }
};
} // namespace

TEST(Traffic, IsThatOfGpt3AtItsScale)
{
    ModelRun r(96, 12288, 50257, {{8, 8, 8}});
    r.run.seq_length = 2048;
    r.run.num_micro = 192;
    r.run.options.is_sequence_parallel = 1;
    const tv_traffic t = r.traffic();
    const double message = 2.0 * 2048 * 12288;
    EXPECT_DOUBLE_EQ(t.load[TV_TENSOR], 2 * 7.0 / 8 * message * 4 * 12 * 192);
    EXPECT_NEAR(t.load[TV_TENSOR], 812e9, 1e9);
    EXPECT_DOUBLE_EQ(t.load[TV_PIPE], 192 * message / 8);
    EXPECT_NEAR(t.load[TV_PIPE], 1.2e9, 0.01e9);
    EXPECT_NEAR(t.load[TV_DATA], 9.8e9, 0.1e9); // 9.5 of the layers, and the token table
    EXPECT_EQ(t.rounds[TV_TENSOR], 2 * 4 * 12 * 192);
    EXPECT_EQ(t.rounds[TV_PIPE], 192);
    EXPECT_EQ(t.rounds[TV_DATA], 2);
    EXPECT_EQ(t.wraps_pipe, 0);
    for (int axis = 0; axis < TV_NUM_AXES; axis++) {
        EXPECT_EQ(t.alpha[axis], 0);
        EXPECT_EQ(t.exposed[axis], 1);
    }
}

TEST(Traffic, IsNoneOnAnAxisOfOne)
{
    const tv_traffic t = ModelRun(4, 32, 96, {{1, 1, 1}}, 2).traffic();
    for (int axis = 0; axis < TV_NUM_AXES; axis++)
        EXPECT_EQ(t.load[axis], 0);
    EXPECT_EQ(t.wraps_pipe, 0);
}

TEST(Traffic, FollowsTheZeroStage)
{
    ModelRun r(5, 32, 96, {{1, 4, 1}});
    const double params = 5 * (12.0 * 32 * 32 + 13 * 32) + 96 * 32 + 64 * 32 + 2 * 32;
    const double m = 8, g = 4, q = 2;
    const auto load = [&](int stage, int group) {
        r.run.zero_stage = stage;
        r.run.zero_group = group;
        return r.traffic({4, 4, 2}).load[TV_DATA] / params;
    };
    EXPECT_DOUBLE_EQ(load(0, 1), 0.75 * (g + q));
    EXPECT_DOUBLE_EQ(load(1, 4), 0.75 * (g + q));
    EXPECT_DOUBLE_EQ(load(2, 4), 0.75 * (m * g + q));
    EXPECT_DOUBLE_EQ(load(3, 4), 0.75 * (m * g + 2 * m * q));
    EXPECT_DOUBLE_EQ(load(3, 2), 0.5 * (m * g + 2 * m * q) + 2 * 0.5 * g / 2);
    r.run.recompute = TV_RECOMPUTE_FULL;
    EXPECT_DOUBLE_EQ(load(3, 4), 0.75 * (m * g + 3 * m * q));
    EXPECT_DOUBLE_EQ(load(2, 4), 0.75 * (m * g + q));
}

TEST(Traffic, FollowsTheFullestStage)
{
    // Five layers on two stages: three on the first, with the embeddings.
    const double layer = 12.0 * 32 * 32 + 13 * 32, tokens = 96 * 32, positions = 64 * 32;
    const tv_traffic t = ModelRun(5, 32, 96, {{2, 3, 1}}).traffic({4, 4, 2});
    EXPECT_DOUBLE_EQ(t.load[TV_DATA], 2.0 / 3 * 6 * (3 * layer + tokens + positions));
    EXPECT_DOUBLE_EQ(t.load[TV_PIPE], 8 * 4.0 * 64 * 32);
    const tv_traffic cut = ModelRun(5, 32, 96, {{2, 1, 2}}).traffic({4, 4, 4});
    EXPECT_DOUBLE_EQ(cut.load[TV_TENSOR], 4.0 * 64 * 32 * 4 * 3 * 8);
}

TEST(Traffic, CountsATiedTableOnBothEnds)
{
    // One layer on the first stage, a large vocabulary: the last stage has table and final norm.
    ModelRun r(2, 32, 4096, {{2, 2, 1}});
    r.run.model.max_positions = 1;
    const double layer = 12.0 * 32 * 32 + 13 * 32;
    EXPECT_DOUBLE_EQ(r.traffic().load[TV_DATA], 0.5 * 4 * (layer + 4096 * 32 + 2 * 32));
    // Both on one stage: once.
    const tv_traffic one = ModelRun(2, 32, 4096, {{1, 2, 1}}).traffic();
    EXPECT_DOUBLE_EQ(one.load[TV_DATA], 0.5 * 4 * (2 * layer + (4096 + 64 + 2) * 32));
}

TEST(Traffic, GrowsWithChunksAndRecomputation)
{
    const tv_mesh_coord extent = {{2, 1, 2}};
    const tv_traffic plain = ModelRun(8, 32, 96, extent).traffic();
    ModelRun loop(8, 32, 96, extent, 2);
    EXPECT_DOUBLE_EQ(loop.traffic().load[TV_PIPE], 2 * plain.load[TV_PIPE]);
    EXPECT_EQ(loop.traffic().wraps_pipe, 1);
    EXPECT_DOUBLE_EQ(loop.traffic().load[TV_TENSOR], plain.load[TV_TENSOR]);
    loop.run.options.schedule = "zb-v"; // down and up again: no wrap
    EXPECT_EQ(loop.traffic().wraps_pipe, 0);
    EXPECT_DOUBLE_EQ(loop.traffic().load[TV_PIPE], 2 * plain.load[TV_PIPE]);
    loop.run.recompute = TV_RECOMPUTE_FULL;
    EXPECT_DOUBLE_EQ(loop.traffic().load[TV_TENSOR], 1.5 * plain.load[TV_TENSOR]);
    loop.run.recompute = TV_RECOMPUTE_SELECTIVE;
    EXPECT_DOUBLE_EQ(loop.traffic().load[TV_TENSOR], plain.load[TV_TENSOR]);
}

TEST(Traffic, TakesTheScheduleOfARun)
{
    ModelRun r(8, 32, 96, {{4, 1, 1}}, 2);
    const tv_schedule_args args = {"zb-v", 4, 2, 8, 0};
    ASSERT_EQ(tv_schedule_build(&args, &r.run.schedule), TV_OK);
    r.run.options.schedule = "interleaved"; // not read when there are actions
    EXPECT_EQ(r.traffic().wraps_pipe, 0);
    tv_schedule_destroy(&r.run.schedule);
}
