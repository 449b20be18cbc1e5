/* Bytes that a rank sends over the tensor axis in a step, counted against the formulas of
 * model/model.h. */
#include "model/step.h"
#include <gtest/gtest.h>

namespace
{

/* Messages of the comm, mesh/comm.h: a sum of at most 8 KiB goes to every peer whole. */
int64_t all_reduce(int64_t count, int T)
{
    const int64_t bytes = 4 * count;
    return bytes <= 8192 ? (T - 1) * bytes : 2 * (T - 1) * bytes / T;
}
/* A reduce-scatter or an all-gather of [R, C] in all. */
int64_t half_sum(int64_t count, int T)
{
    return 4 * count / T * (T - 1);
}

struct Counts {
    int64_t sums, halves; /* whole sums of [R, C]; reduce-scatters and all-gathers of it */
};

/* Of one micro-batch through a whole model in one chunk of L layers. */
Counts counts_of(const StepCase &step)
{
    const int64_t L = step.config.num_layers;
    if (!step.is_sequence_parallel)
        return {step.recompute == TV_RECOMPUTE_FULL ? (4 * L + 2) + (2 * L + 1) : 4 * L + 2, 0};
    int64_t halves = 2 * (4 * L + 2);
    if (step.recompute == TV_RECOMPUTE_SELECTIVE)
        halves += 2 * L; /* norm outputs are gathered again; the head's is made once */
    if (step.recompute == TV_RECOMPUTE_FULL)
        halves += 4 * L + 1; /* the forward once more, without the head's part */
    if (step.weight_delay >= 0)
        halves += 2 * L; /* weight parts gather the gradients behind row matrices again */
    return {0, halves};
}

int64_t bytes_of(const StepCase &step)
{
    const int T = step.T;
    const int64_t R = (int64_t)step.micro_batch * step.seq_length, C = step.config.hidden_size;
    const auto num_micro = (int64_t)step.ids.size() / R;
    const Counts counts = counts_of(step);
    const int64_t per_micro = counts.sums * all_reduce(R * C, T) +
                              counts.halves * half_sum(R * C, T) + all_reduce(R, T) +
                              all_reduce((step.label_smoothing > 0 ? 3 : 2) * R, T);
    int64_t per_step = 0;
    if (step.is_sequence_parallel) /* 2 L + 1 norms; gpt2: their biases, 2 L row biases */
        per_step = all_reduce((step.config.family == TV_GPT2 ? 6 * step.config.num_layers + 2
                                                             : 2 * step.config.num_layers + 1) *
                                  C,
                              T);
    return num_micro * per_micro + per_step;
}

class Bytes : public testing::TestWithParam<int>
{
};

TEST_P(Bytes, AreThoseOfTheFormula)
{
    StepCase step = some_step(GetParam() ? small_llama() : small_gpt2());
    step.config.max_positions = step.seq_length = 48; /* sums of 12 KiB and more */
    step.weights = some_weights(step.config, 0.3);
    step.ids.assign(4 * 48, 5);
    step.targets.assign(4 * 48, 7);
    step.kernels = tv_kernels_cpu(TV_F32);
    step.step = 1;
    for (const int T : {2, 4})
        for (const int is_sequence_parallel : {0, 1})
            for (const tv_recompute_t recompute :
                 {TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE, TV_RECOMPUTE_FULL})
                for (const int delay : {-1, 1}) {
                    SCOPED_TRACE("T = " + std::to_string(T) + ", " + tv_recompute_name(recompute) +
                                 ", delay " + std::to_string(delay) +
                                 (is_sequence_parallel ? ", cut rows" : ""));
                    step.T = T;
                    step.is_sequence_parallel = is_sequence_parallel;
                    step.recompute = recompute;
                    step.weight_delay = delay;
                    step.label_smoothing = T == 4 ? 0.1 : 0;
                    const StepResult got = run_step(step);
                    ASSERT_FALSE(HasFailure());
                    EXPECT_EQ(bytes_of(step), got.sent_bytes);
                    EXPECT_EQ(is_sequence_parallel, got.num_gradient_sums);
                }
}

INSTANTIATE_TEST_SUITE_P(Model, Bytes, testing::Values(0, 1),
                         [](const testing::TestParamInfo<int> &which) {
                             return which.param ? "Llama" : "Gpt2";
                         });

} // namespace
