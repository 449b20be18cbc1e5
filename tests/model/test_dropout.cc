/* Dropout of a whole model: masks do not depend on mesh, recomputation, parts of backward or sizes
 * of micro-batches, do depend on step and place in the batch, and are not used in evaluation. */
#include "base/status.h"
#include "model/step.h"
#include <cmath>
#include <gtest/gtest.h>

namespace
{

constexpr tv_recompute_t recomputes[] = {TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE,
                                         TV_RECOMPUTE_FULL};

class Dropout : public testing::TestWithParam<int>
{
  protected:
    void SetUp() override
    {
        step = some_step(GetParam() ? small_llama() : small_gpt2());
        step.kernels = tv_kernels_cpu(TV_F32);
        step.step = 5;
        step.attention_dropout = 0.2;
        step.hidden_dropout = 0.1;
        step.label_smoothing = 0.1;
    }
    StepCase step;
};

void expect_agreement(const StepResult &got, const StepResult &want)
{
    EXPECT_LT(std::fabs(got.loss_sum / want.loss_sum - 1), 1e-6);
    for (const auto &[name, grad] : want.grads)
        EXPECT_LT(relative_difference(got.grads.at(name), grad), 1e-5) << name;
}

TEST_P(Dropout, TensorRanksAgreeWithOne)
{
    const StepResult want = run_step(step);
    for (const int T : {2, 4})
        for (const int is_sequence_parallel : {0, 1}) {
            SCOPED_TRACE("T = " + std::to_string(T) + (is_sequence_parallel ? ", cut rows" : ""));
            step.T = T;
            step.is_sequence_parallel = is_sequence_parallel;
            const StepResult got = run_step(step);
            ASSERT_FALSE(HasFailure());
            expect_agreement(got, want);
        }
}

TEST_P(Dropout, ReferenceAgreesWithFastKernels)
{
    const StepResult want = run_step(step);
    step.kernels = tv_kernels_ref(TV_F32);
    const StepResult got = run_step(step);
    ASSERT_FALSE(HasFailure());
    expect_agreement(got, want);
}

/* B35, with T = 1 and 2 and several stages */
TEST_P(Dropout, RecomputationAndPartsGiveTheSameBits)
{
    for (const int T : {1, 2})
        for (const int is_sequence_parallel : {0, 1}) {
            step.T = T;
            step.is_sequence_parallel = is_sequence_parallel;
            step.first_units = {0, 2};
            step.recompute = TV_RECOMPUTE_NONE;
            step.weight_delay = -1;
            const StepResult want = run_step(step);
            for (const tv_recompute_t recompute : recomputes)
                for (const int delay : {-1, 0, 1}) {
                    SCOPED_TRACE(std::string(tv_recompute_name(recompute)) + ", delay " +
                                 std::to_string(delay) + ", T = " + std::to_string(T));
                    step.recompute = recompute;
                    step.weight_delay = delay;
                    const StepResult got = run_step(step);
                    ASSERT_FALSE(HasFailure());
                    EXPECT_EQ(want.loss_sum, got.loss_sum);
                    for (const auto &[name, grad] : want.grads)
                        EXPECT_TRUE(is_same_bits(got.grads.at(name), grad)) << name;
                }
        }
}

TEST_P(Dropout, DoesNotDependOnTheSizeOfAMicroBatch)
{
    const StepResult by_two = run_step(step);
    step.micro_batch = 1;
    const StepResult by_one = run_step(step);
    step.micro_batch = 4;
    const StepResult by_four = run_step(step);
    ASSERT_FALSE(HasFailure());
    expect_agreement(by_one, by_two);
    expect_agreement(by_four, by_two);
}

/* The second half of a batch alone gives what it gave within. */
TEST_P(Dropout, FollowsThePlaceInTheBatch)
{
    const size_t half = step.ids.size() / 2;
    StepCase first = step, second = step;
    first.ids.resize(half);
    first.targets.resize(half);
    second.ids.erase(second.ids.begin(), second.ids.begin() + (long)half);
    second.targets.erase(second.targets.begin(), second.targets.begin() + (long)half);
    second.first_sequence = step.micro_batch;
    const StepResult both = run_step(step), a = run_step(first), b = run_step(second);
    ASSERT_FALSE(HasFailure());
    EXPECT_NEAR(both.loss_sum, a.loss_sum + b.loss_sum, 1e-12 * both.loss_sum);
    second.first_sequence = 0;
    EXPECT_NE(b.loss_sum, run_step(second).loss_sum) << "the same masks elsewhere in the batch";
}

TEST_P(Dropout, ChangesWithTheStepAndEachOfItsKinds)
{
    const double loss = run_step(step).loss_sum;
    StepCase other = step;
    other.step = 6;
    EXPECT_NE(loss, run_step(other).loss_sum);
    for (double StepCase::*kind :
         {&StepCase::attention_dropout, &StepCase::hidden_dropout, &StepCase::label_smoothing}) {
        other = step;
        other.*kind = 0;
        EXPECT_NE(loss, run_step(other).loss_sum);
    }
}

TEST_P(Dropout, EvaluationHasNone)
{
    StepCase plain = step;
    plain.attention_dropout = plain.hidden_dropout = plain.label_smoothing = 0;
    const StepResult want = run_step(plain);
    step.step = 0;
    const StepResult got = run_step(step);
    EXPECT_EQ(want.loss_sum, got.loss_sum);
    for (const auto &[name, grad] : want.grads)
        EXPECT_TRUE(is_same_bits(got.grads.at(name), grad)) << name;
}

INSTANTIATE_TEST_SUITE_P(Model, Dropout, testing::Values(0, 1),
                         [](const testing::TestParamInfo<int> &which) {
                             return which.param ? "Llama" : "Gpt2";
                         });

} // namespace
