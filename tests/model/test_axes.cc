/* The same model on every mesh: losses and gradients of T tensor ranks and any stages agree with
 * one rank. step.cc checks equal bits of what several ranks hold. */
#include "base/status.h"
#include "model/step.h"
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>

namespace
{

struct Family {
    const char *name;
    int is_llama, num_kv_heads, is_tied;
    std::vector<int> tensor_sizes;
    bool has_documents = false;
    int hidden_size = 32;
};

struct tv_model_config config_of(const Family &family)
{
    struct tv_model_config config = family.is_llama ? small_llama() : small_gpt2();
    config.num_kv_heads = family.num_kv_heads;
    config.is_tied = family.is_tied;
    config.hidden_size = family.hidden_size;
    return config;
}

StepCase step_of(const Family &family)
{
    StepCase step = some_step(config_of(family));
    if (family.hidden_size > 32) /* scores no steeper than those of 32 channels */
        step.weights = some_weights(step.config, 0.1 * std::sqrt(32.0 / family.hidden_size));
    if (family.has_documents)
        reset_documents(&step);
    return step;
}

/* Limits of fp32 rounding in another order of summation. */
void expect_agreement(const StepResult &got, const StepResult &want)
{
    EXPECT_LT(std::fabs(got.loss_sum / want.loss_sum - 1), 2e-6);
    EXPECT_LT(std::fabs(std::sqrt(got.grad_square_sum / want.grad_square_sum) - 1), 2e-5);
    ASSERT_EQ(want.grads.size(), got.grads.size());
    for (const auto &[name, grad] : want.grads)
        EXPECT_LT(relative_difference(got.grads.at(name), grad), 1e-5) << name;
}

/* Stages do not change a single operation, except that a tied weight's two gradients are summed
 * over the micro-batches apart. */
void expect_same_bits(const StepResult &got, const StepResult &want, bool is_tied)
{
    EXPECT_EQ(want.loss_sum, got.loss_sum);
    for (const auto &[name, grad] : want.grads) {
        const bool is_shared =
            is_tied && (name == "transformer.wte.weight" || name == "model.embed_tokens.weight");
        if (is_shared)
            EXPECT_LT(relative_difference(got.grads.at(name), grad), 1e-6) << name;
        else
            EXPECT_TRUE(is_same_bits(got.grads.at(name), grad)) << name;
    }
}

/* Norms, and the biases behind row matrices. */
bool is_for_rows(const std::string &name)
{
    const bool is_norm =
        name.find("ln_") != std::string::npos || name.find("norm") != std::string::npos;
    const char *bias = "c_proj.bias";
    return is_norm || (name.size() > std::strlen(bias) &&
                       name.compare(name.size() - std::strlen(bias), std::string::npos, bias) == 0);
}

void expect_same_but_row_weights(const StepResult &got, const StepResult &want, bool all)
{
    EXPECT_EQ(want.loss_sum, got.loss_sum);
    ASSERT_EQ(want.outputs.size(), got.outputs.size());
    for (size_t i = 0; i < want.outputs.size(); i++)
        EXPECT_TRUE(is_same_bits(got.outputs[i], want.outputs[i])) << "activation " << i;
    for (const auto &[name, grad] : want.grads)
        if (is_for_rows(name) && !all)
            EXPECT_LT(relative_difference(got.grads.at(name), grad), 1e-6) << name;
        else
            EXPECT_TRUE(is_same_bits(got.grads.at(name), grad)) << name;
    EXPECT_NEAR(want.grad_square_sum, got.grad_square_sum, 1e-6 * want.grad_square_sum);
}

class Axes : public testing::TestWithParam<Family>
{
};

TEST_P(Axes, TensorRanksAgreeWithOne)
{
    StepCase step = step_of(GetParam());
    const StepResult want = run_step(step);
    ASSERT_FALSE(HasFailure());
    double square_sum = 0;
    for (const auto &[name, grad] : want.grads)
        for (const float g : grad)
            square_sum += (double)g * (double)g;
    EXPECT_NEAR(square_sum, want.grad_square_sum, 1e-12 * square_sum);
    for (const int T : GetParam().tensor_sizes)
        for (const int is_sequence_parallel : {0, 1}) {
            if (is_sequence_parallel && T == 8)
                continue; /* 12 rows */
            SCOPED_TRACE("T = " + std::to_string(T) + (is_sequence_parallel ? ", cut rows" : ""));
            step.T = T;
            step.is_sequence_parallel = is_sequence_parallel;
            expect_agreement(run_step(step), want);
            if (HasFatalFailure())
                return;
        }
}

/* The same sums in the same order, but for gradients that each rank has from its own rows. */
TEST_P(Axes, CutRowsGiveTheSameBits)
{
    StepCase step = step_of(GetParam());
    step.kernels = tv_kernels_cpu(TV_F32);
    step.first_units = {0, 2, 4};
    for (const int T : {1, 2, 4})
        for (const tv_recompute_t recompute :
             {TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE, TV_RECOMPUTE_FULL})
            for (const int delay : {-1, 1}) {
                SCOPED_TRACE("T = " + std::to_string(T) + ", " + tv_recompute_name(recompute) +
                             ", delay " + std::to_string(delay));
                step.T = T;
                step.recompute = recompute;
                step.weight_delay = delay;
                step.is_sequence_parallel = 0;
                const StepResult want = run_step(step);
                step.is_sequence_parallel = 1;
                const StepResult got = run_step(step);
                ASSERT_FALSE(HasFailure());
                expect_same_but_row_weights(got, want, T == 1);
            }
}

TEST_P(Axes, FastKernelsAgreeWithReference)
{
    StepCase step = step_of(GetParam());
    const StepResult want = run_step(step);
    ASSERT_FALSE(HasFailure());
    step.kernels = tv_kernels_cpu(TV_F32);
    step.T = 2;
    expect_agreement(run_step(step), want);
}

TEST_P(Axes, StagesGiveTheSameBits)
{
    StepCase step = step_of(GetParam());
    step.T = GetParam().tensor_sizes[0];
    const StepResult want = run_step(step);
    ASSERT_FALSE(HasFailure());
    const std::vector<std::vector<int>> cuts = {{0, 2}, {0, 1, 3}, {0, 1, 2, 4}, {0, 1, 2, 3, 4}};
    for (const std::vector<int> &first_units : cuts) {
        SCOPED_TRACE(std::to_string(first_units.size()) + " stages");
        step.first_units = first_units;
        const StepResult got = run_step(step);
        ASSERT_FALSE(HasFailure());
        expect_same_bits(got, want, GetParam().is_tied);
        EXPECT_LT(std::fabs(got.grad_square_sum / want.grad_square_sum - 1), 1e-6);
    }
}

TEST_P(Axes, TwiceTheSameBits)
{
    StepCase step = step_of(GetParam());
    step.T = 4;
    step.kernels = tv_kernels_cpu(TV_F32);
    const StepResult once = run_step(step), twice = run_step(step);
    ASSERT_FALSE(HasFailure());
    expect_same_bits(twice, once, false);
    EXPECT_EQ(once.grad_square_sum, twice.grad_square_sum);
}

/* kv heads: as many as heads, one per rank or fewer than ranks (4 and 2 over 8; 2 over 4; 1). Wide: attention's rows on
 * one rank are multiples of 1 KiB, and lie a line further apart (tv_attention_row_stride); on 2 ranks they are not. */
INSTANTIATE_TEST_SUITE_P(Model, Axes,
                         testing::Values(Family{"Gpt2", 0, 8, 1, {2, 4, 8}},
                                         Family{"Llama", 1, 8, 0, {2, 4, 8}},
                                         Family{"LlamaTiedKv4", 1, 4, 1, {2, 4, 8}},
                                         Family{"LlamaKv2", 1, 2, 0, {2, 4, 8}},
                                         Family{"LlamaTiedKv1", 1, 1, 1, {2, 4, 8}},
                                         Family{"Gpt2Documents", 0, 8, 1, {2, 4, 8}, true},
                                         Family{"LlamaDocuments", 1, 4, 0, {2, 4, 8}, true},
                                         Family{"Gpt2Wide", 0, 8, 1, {2, 4}, false, 256},
                                         Family{"LlamaWide", 1, 4, 0, {2, 4}, false, 256}),
                         [](const testing::TestParamInfo<Family> &which) {
                             return which.param.name;
                         });

} // namespace
