/* Overlap of the tensor axis changes no bit and no byte of a whole step. */
#include "model/step.h"
#include <gtest/gtest.h>

namespace
{

/* 260 rows: pieces of 65 on two ranks. */
StepCase large_step(int is_llama)
{
    StepCase step = some_step(is_llama ? small_llama() : small_gpt2());
    step.config.num_layers = 2;
    step.config.hidden_size = 64;
    step.config.max_positions = step.seq_length = 130;
    step.weights = some_weights(step.config, 0.3);
    step.ids.clear();
    step.targets.clear();
    for (int i = 0; i < 2 * step.micro_batch * step.seq_length; i++) {
        step.ids.push_back(i * 7 % 37);
        step.targets.push_back(i % 5 == 3 ? -100 : i * 11 % 37);
    }
    step.kernels = tv_kernels_cpu(TV_F32);
    step.step = 1;
    step.hidden_dropout = 0.1;
    return step;
}

void expect_same(const StepResult &got, const StepResult &want)
{
    EXPECT_EQ(want.loss_sum, got.loss_sum);
    EXPECT_EQ(want.grad_square_sum, got.grad_square_sum);
    EXPECT_EQ(want.sent_bytes, got.sent_bytes);
    for (const auto &[name, grad] : want.grads)
        EXPECT_TRUE(is_same_bits(got.grads.at(name), grad)) << name;
}

class Overlap : public testing::TestWithParam<int>
{
};

TEST_P(Overlap, ChangesNoBitAndNoByte)
{
    StepCase step = large_step(GetParam());
    for (const int T : {2, 4})
        for (const int is_sequence_parallel : {0, 1})
            for (const tv_recompute_t recompute :
                 {TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE, TV_RECOMPUTE_FULL})
                for (const int delay : {-1, 1}) {
                    if (T == 4 && recompute != TV_RECOMPUTE_NONE)
                        continue; /* four threads on few cores take long */
                    SCOPED_TRACE("T = " + std::to_string(T) + ", " + tv_recompute_name(recompute) +
                                 ", delay " + std::to_string(delay) +
                                 (is_sequence_parallel ? ", cut rows" : ""));
                    step.T = T;
                    step.is_sequence_parallel = is_sequence_parallel;
                    step.recompute = recompute;
                    step.weight_delay = delay;
                    step.is_tensor_overlapped = 0;
                    const StepResult want = run_step(step);
                    step.is_tensor_overlapped = 1;
                    const StepResult got = run_step(step);
                    ASSERT_FALSE(HasFailure());
                    expect_same(got, want);
                }
}

INSTANTIATE_TEST_SUITE_P(Model, Overlap, testing::Values(0, 1),
                         [](const testing::TestParamInfo<int> &which) {
                             return which.param ? "Llama" : "Gpt2";
                         });

} // namespace
