/* The head's chunks of rows, in values and in bytes: a vocabulary so large that one micro-batch has
 * several, and one that the tensor axis does not divide. */
#include "base/status.h"
#include "model/step.h"
#include <array>
#include <cmath>
#include <gtest/gtest.h>

namespace
{

/* 96 rows; logits of 64 are 17 MB on each of T ranks, so 64 is all that a chunk may have. */
StepCase large_step(int T, bool is_tied)
{
    struct tv_model_config config = is_tied ? small_gpt2() : small_llama();
    config.num_layers = 1;
    config.hidden_size = 8;
    config.num_heads = config.num_kv_heads = 4;
    config.ffn_size = 8;
    config.vocab_size = 131135 * T + (T > 1);
    config.max_positions = 48;
    StepCase step = some_step(config);
    step.kernels = tv_kernels_cpu(TV_F32);
    step.T = T;
    step.step = 1;
    step.ids.resize(96);
    step.targets.resize(96);
    return step;
}

class Head : public testing::TestWithParam<int>
{
};

/* Two micro-batches of one chunk each, against one of two. */
TEST_P(Head, ChunksAreAsMicroBatches)
{
    StepCase step = large_step(GetParam(), GetParam() == 2);
    ASSERT_EQ(2, tv_vocab_chunks_of(96, tv_vocabulary_share(step.config.vocab_size, step.T), TV_F32,
                                    TV_DEVICE_CPU)
                     .num);
    step.label_smoothing = 0.1;
    const StepResult got = run_step(step);
    step.micro_batch = 1;
    const StepResult want = run_step(step);
    ASSERT_FALSE(HasFailure());
    EXPECT_NEAR(want.loss_sum, got.loss_sum, 1e-7 * want.loss_sum);
    for (const auto &[name, grad] : want.grads)
        EXPECT_LT(relative_difference(got.grads.at(name), grad), 1e-5) << name;
}

INSTANTIATE_TEST_SUITE_P(Model, Head, testing::Values(1, 2, 4),
                         [](const testing::TestParamInfo<int> &which) {
                             return "T" + std::to_string(which.param);
                         });

/* Along the gradient of the head's matrix and of its norm, whatever the chunks and the cut. */
class HeadGradient : public testing::TestWithParam<int>
{
};

TEST_P(HeadGradient, MatchesDifferencesOfTheLoss)
{
    StepCase step = large_step(GetParam(), false);
    if (GetParam() == 4) /* one chunk, and 73 is no multiple of 4 */
        step.config.vocab_size = 73;
    step.config.is_tied = 0;
    step.weights = some_weights(step.config, 0.3);
    for (size_t i = 0; i < step.targets.size(); i++)
        step.targets[i] = (int32_t)(i * i % (size_t)step.config.vocab_size);
    const StepResult at_rest = run_step(step);
    for (const char *name : {"lm_head.weight", "model.norm.weight"}) {
        const std::vector<float> &grad = at_rest.grads.at(name);
        double norm = 0;
        for (const float g : grad)
            norm += (double)g * g;
        norm = std::sqrt(norm);
        ASSERT_GT(norm, 1e-2);
        const auto loss_at = [&](double distance) {
            StepCase moved = step;
            for (size_t i = 0; i < grad.size(); i++)
                moved.weights.at(name)[i] += (float)(distance * grad[i] / norm);
            return run_step(moved).loss_sum;
        };
        const double h = 0.02, slope = (loss_at(h) - loss_at(-h)) / (2 * h);
        ASSERT_FALSE(HasFailure());
        EXPECT_NEAR(1, slope / norm, 1e-3) << name;
    }
}

INSTANTIATE_TEST_SUITE_P(Model, HeadGradient, testing::Values(1, 2, 4),
                         [](const testing::TestParamInfo<int> &which) {
                             return "T" + std::to_string(which.param);
                         });

std::array<int64_t, TV_NUM_MEM_KINDS> bytes_of_a_head(int64_t vocab_size, int micro_batch,
                                                      tv_recompute_t recompute)
{
    std::array<int64_t, TV_NUM_MEM_KINDS> bytes = {};
    const struct tv_model_chunk chunk = {4, 1, 3, 2};
    struct tv_model_args args = {};
    args.config = small_gpt2();
    args.config.vocab_size = vocab_size;
    args.config.max_positions = args.seq_length = 64;
    args.micro_batch = micro_batch;
    args.num_chunks = 1;
    args.chunks = &chunk;
    args.recompute = recompute;
    EXPECT_EQ(TV_OK, tv_model_memory(&args, 1, TV_F32, bytes.data())) << tv_error_message();
    return bytes;
}

/* Norm output and statistics, logits of a chunk, lse and four numbers of each of its rows, losses in double: in the
 * place of a layer's gradients. */
TEST(Memory, OfAHeadByHand)
{
    for (const auto recompute : {TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE, TV_RECOMPUTE_FULL}) {
        const auto bytes = bytes_of_a_head(50257, 8, recompute);
        const int64_t R = 512, logits = 256 * 50304;
        EXPECT_EQ(0, bytes[TV_MEM_ACTIVATIONS]);
        /* two residual gradients before them; positions, ids and targets of 3 slots behind */
        EXPECT_EQ(4 * (2 * R * 32 + R * 32 + 2 * R + logits + 5 * 256 + 2 * R + 7 * R),
                  bytes[TV_MEM_BUFFERS]);
        /* few columns: what a layer needs is more */
        EXPECT_EQ(4 * (2 * R * 32 + R * (128 + 96 + 32) + 7 * R),
                  bytes_of_a_head(37, 8, recompute)[TV_MEM_BUFFERS]);
    }
}

/* From the first whole chunk on rows cost what channels do, whatever the vocabulary. */
TEST(Memory, OfLogitsDoesNotGrowWithTheRows)
{
    int64_t more[2];
    for (const int which : {0, 1}) {
        const int64_t vocab_size = which ? 400009 : 100003;
        const auto few = bytes_of_a_head(vocab_size, 2, TV_RECOMPUTE_NONE),
                   many = bytes_of_a_head(vocab_size, 16, TV_RECOMPUTE_NONE);
        more[which] = 0;
        for (int kind = 0; kind < TV_NUM_MEM_KINDS; kind++)
            more[which] += many[(size_t)kind] - few[(size_t)kind];
    }
    EXPECT_EQ(more[0], more[1]);
    EXPECT_EQ(14 * 64 * 4 * (3 * 32 + 2 + 2 + 7), more[0]);
}

} // namespace
