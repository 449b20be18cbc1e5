/* Gradients of every weight against differences of the loss, along the gradient itself and along a
 * direction of its own: independent of any formula for the backward pass. */
#include "model/step.h"
#include <cmath>
#include <gtest/gtest.h>

namespace
{

struct tv_model_config tiny(tv_model_family_t family)
{
    struct tv_model_config config = family == TV_GPT2 ? small_gpt2() : small_llama();
    config.num_layers = 2;
    config.hidden_size = 8;
    config.num_heads = 2;
    config.num_kv_heads = family == TV_GPT2 ? 2 : 1;
    config.ffn_size = 12;
    config.vocab_size = 11;
    config.max_positions = 5;
    return config;
}

double loss_at(StepCase step, const std::string &name, const std::vector<double> &direction,
               double distance)
{
    std::vector<float> &weight = step.weights.at(name);
    for (size_t i = 0; i < weight.size(); i++)
        weight[i] = (float)((double)weight[i] + distance * direction[i]);
    return run_step(step).loss_sum;
}

/* Five points, error of order h^4: 1e-3 of the slope at h = 0.01, and 1/16 of that here, where fp32
 * rounding of the loss is still smaller. */
double slope(const StepCase &step, const std::string &name, const std::vector<double> &direction)
{
    const double h = 0.005;
    const auto at = [&](double distance) { return loss_at(step, name, direction, distance); };
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
}

double norm_of(const std::vector<double> &x)
{
    double sum = 0;
    for (const double v : x)
        sum += v * v;
    return std::sqrt(sum);
}

class Gradients : public testing::TestWithParam<tv_model_family_t>
{
  protected:
    void expect_differences(const StepCase &step);
};

void Gradients::expect_differences(const StepCase &step)
{
    const StepResult at_rest = run_step(step);
    ASSERT_FALSE(HasFailure());
    for (const auto &[name, grad] : at_rest.grads) {
        std::vector<double> along(grad.begin(), grad.end()), across(grad.size());
        const double norm = norm_of(along);
        ASSERT_GT(norm, 1e-3) << name << ": nothing to compare";
        for (double &v : along)
            v /= norm;
        EXPECT_NEAR(1, slope(step, name, along) / norm, 5e-4) << name;

        for (size_t i = 0; i < across.size(); i++)
            across[i] = std::sin((double)(i * i + 1));
        const double across_norm = norm_of(across);
        double want = 0;
        for (size_t i = 0; i < across.size(); i++) {
            across[i] /= across_norm;
            want += across[i] * (double)grad[i];
        }
        EXPECT_NEAR(want, slope(step, name, across), 5e-4 * norm) << name;
    }
}

TEST_P(Gradients, MatchDifferencesOfTheLoss)
{
    expect_differences(some_step(tiny(GetParam())));
}

TEST_P(Gradients, MatchDifferencesUnderDropoutAndLabelSmoothing)
{
    StepCase step = some_step(tiny(GetParam()));
    step.step = 3;
    step.attention_dropout = 0.3;
    step.hidden_dropout = 0.2;
    step.label_smoothing = 0.15;
    expect_differences(step);
}

TEST_P(Gradients, MatchDifferencesWithDocumentsReset)
{
    StepCase step = some_step(tiny(GetParam()));
    reset_documents(&step);
    expect_differences(step);
}

/* Documents in one sequence, reset, are as if each were a sequence of its own. */
TEST_P(Gradients, OfDocumentsAreThoseOfThemApart)
{
    StepCase together = some_step(tiny(GetParam()));
    together.config.max_positions = together.seq_length = 6;
    together.weights = some_weights(together.config, 0.3);
    together.ids.resize(12);
    together.targets.resize(12);
    together.micro_batch = 1;
    StepCase apart = together;
    apart.seq_length = 3;
    apart.micro_batch = 2;
    const StepResult want = run_step(apart);
    for (int i = 0; i < 12; i++) {
        together.positions.push_back(i % 3);
        together.first_keys.push_back(i % 6 / 3 * 3);
    }
    const StepResult got = run_step(together);
    together.first_keys.clear();
    const StepResult seeing = run_step(together);
    ASSERT_FALSE(HasFailure());
    EXPECT_NEAR(want.loss_sum, got.loss_sum, 1e-6 * want.loss_sum);
    EXPECT_GT(std::fabs(want.loss_sum - seeing.loss_sum), 1e-4 * want.loss_sum);
    for (const auto &[name, grad] : want.grads)
        EXPECT_LT(relative_difference(got.grads.at(name), grad), 1e-5) << name;
}

TEST_P(Gradients, UncountedTargetsGiveNone)
{
    StepCase step = some_step(tiny(GetParam()));
    for (int32_t &target : step.targets)
        target = -1;
    const StepResult got = run_step(step);
    EXPECT_EQ(0, got.loss_sum);
    EXPECT_EQ(0, got.grad_square_sum);
}

TEST_P(Gradients, AreSumsOverMicroBatches)
{
    StepCase step = some_step(tiny(GetParam()));
    const StepResult both = run_step(step);
    const size_t half = step.ids.size() / 2;
    StepCase first = step, second = step;
    first.ids.resize(half);
    first.targets.resize(half);
    second.ids.erase(second.ids.begin(), second.ids.begin() + (long)half);
    second.targets.erase(second.targets.begin(), second.targets.begin() + (long)half);
    const StepResult a = run_step(first), b = run_step(second);
    ASSERT_FALSE(HasFailure());
    EXPECT_NEAR(both.loss_sum, a.loss_sum + b.loss_sum, 1e-12 * both.loss_sum);
    for (const auto &[name, grad] : both.grads) {
        std::vector<float> sum = a.grads.at(name);
        for (size_t i = 0; i < sum.size(); i++)
            sum[i] += b.grads.at(name)[i];
        EXPECT_LT(relative_difference(grad, sum), 1e-6) << name;
    }
}

TEST_P(Gradients, DoNotDependOnTheSizeOfAMicroBatch)
{
    StepCase step = some_step(tiny(GetParam()));
    reset_documents(&step);
    const StepResult by_two = run_step(step);
    step.micro_batch = 1;
    const StepResult by_one = run_step(step);
    ASSERT_FALSE(HasFailure());
    EXPECT_NEAR(by_one.loss_sum, by_two.loss_sum, 1e-6 * by_one.loss_sum);
    for (const auto &[name, grad] : by_one.grads)
        EXPECT_LT(relative_difference(by_two.grads.at(name), grad), 1e-5) << name;
}

TEST(PositionTable, RowsBeyondTheSequenceGetNoGradient)
{
    StepCase step = some_step(tiny(TV_GPT2));
    step.seq_length = 3; /* of 5 positions; the same tokens, in more sequences */
    step.micro_batch = 1;
    step.ids.resize(12);
    step.targets.resize(12);
    const StepResult got = run_step(step);
    ASSERT_FALSE(HasFailure());
    const std::vector<float> &grad = got.grads.at("transformer.wpe.weight");
    for (size_t i = 0; i < grad.size(); i++) {
        if (i < 3 * 8)
            EXPECT_NE(0, grad[i]) << i;
        else
            EXPECT_EQ(0, grad[i]) << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Model, Gradients, testing::Values(TV_GPT2, TV_LLAMA),
                         [](const testing::TestParamInfo<tv_model_family_t> &which) {
                             return std::string(tv_model_family_name(which.param));
                         });

} // namespace
