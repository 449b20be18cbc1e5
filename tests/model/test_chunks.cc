/* One arithmetic, whatever the order and the memory: backward in two parts, recomputation and
 * several chunks on a stage give the bits of one chunk that keeps everything; so do weights and
 * gradients that a store lends. The gradient of a tied weight, to which the head adds in the input
 * part of a backward and the embedding in the weight part, has those of the same order of parts. */
#include "base/status.h"
#include "model/step.h"
#include <gtest/gtest.h>
#include <map>

namespace
{

struct Which {
    const char *name;
    int is_llama, num_kv_heads, is_tied, T, is_sequence_parallel;
    bool has_documents = false;
};

constexpr tv_recompute_t recomputes[] = {TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE,
                                         TV_RECOMPUTE_FULL};

class SameBits : public testing::TestWithParam<Which>
{
  protected:
    /* Four micro-batches, on the kernels that are shipped. */
    void SetUp() override
    {
        struct tv_model_config config = GetParam().is_llama ? small_llama() : small_gpt2();
        config.num_kv_heads = GetParam().num_kv_heads;
        config.is_tied = GetParam().is_tied;
        step = some_step(config);
        step.micro_batch = 1;
        step.T = GetParam().T;
        step.is_sequence_parallel = GetParam().is_sequence_parallel;
        step.kernels = tv_kernels_cpu(TV_F32);
        if (GetParam().has_documents)
            reset_documents(&step);
        plain = step;
        want = run_step(step);
    }
    /* What keeps all, in one chunk, and has its parts in the same order. */
    const StepResult &in_order()
    {
        if (step.weight_delay <= 0 || !is_tied_here())
            return want;
        StepCase same_order = plain;
        same_order.weight_delay = step.weight_delay;
        const auto [place, is_new] = delayed.try_emplace(step.weight_delay);
        if (is_new)
            place->second = run_step(same_order);
        return place->second;
    }
    const char *tied_name() const
    {
        return GetParam().is_llama ? "model.embed_tokens.weight" : "transformer.wte.weight";
    }
    bool is_tied_here() const
    {
        return step.config.is_tied && (step.stages.empty() ? step.first_units.size() == 1
                                                           : step.stages[0] == step.stages.back());
    }
    void expect_same()
    {
        SCOPED_TRACE(std::string(tv_recompute_name(step.recompute)) + ", delay " +
                     std::to_string(step.weight_delay) + ", " +
                     std::to_string(step.first_units.size()) + " chunks");
        const StepResult got = run_step(step);
        ASSERT_FALSE(HasFatalFailure());
        EXPECT_EQ(want.loss_sum, got.loss_sum);
        const StepResult &ordered = in_order();
        EXPECT_NEAR(ordered.grad_square_sum, got.grad_square_sum, 1e-12 * want.grad_square_sum);
        ASSERT_EQ(want.grads.size(), got.grads.size());
        for (const auto &[name, grad] : want.grads) {
            const bool is_tied = step.config.is_tied && name == tied_name();
            EXPECT_TRUE(is_same_bits(got.grads.at(name), is_tied ? ordered.grads.at(name) : grad))
                << name;
            EXPECT_LT(relative_difference(got.grads.at(name), grad), 1e-6) << name;
        }
    }

    StepCase step, plain;
    StepResult want;
    std::map<int, StepResult> delayed;
};

TEST_P(SameBits, InTwoParts)
{
    for (const int delay : {0, 1, 3}) {
        step.weight_delay = delay;
        ASSERT_NO_FATAL_FAILURE(expect_same());
    }
}

TEST_P(SameBits, WithRecomputation)
{
    for (const tv_recompute_t recompute : recomputes)
        for (const int delay : {-1, 0, 1, 2}) {
            step.recompute = recompute;
            step.weight_delay = delay;
            ASSERT_NO_FATAL_FAILURE(expect_same());
        }
}

TEST_P(SameBits, InChunksOfOneStage)
{
    for (const std::vector<int> &first_units :
         std::vector<std::vector<int>>{{0, 2}, {0, 1, 4}, {0, 1, 2, 3, 4}})
        for (const tv_recompute_t recompute : recomputes)
            for (const int delay : {-1, 1}) {
                step.first_units = first_units;
                step.stages.assign(first_units.size(), 0);
                step.recompute = recompute;
                step.weight_delay = delay;
                ASSERT_NO_FATAL_FAILURE(expect_same());
            }
}

TEST_P(SameBits, WithLentMemory)
{
    step.first_units = {0, 1, 4};
    for (const std::vector<int> &stages : std::vector<std::vector<int>>{{0, 0, 0}, {0, 1, 2}})
        for (const tv_recompute_t recompute : recomputes)
            for (const int delay : {-1, 1}) {
                step.stages = stages;
                step.recompute = recompute;
                step.weight_delay = delay;
                step.is_lent = false;
                want = run_step(step);
                step.is_lent = true;
                ASSERT_NO_FATAL_FAILURE(expect_same());
            }
}

/* A stage with both ends, and another with what lies between. */
TEST_P(SameBits, InAV)
{
    const struct {
        std::vector<int> first_units, stages;
    } cases[] = {{{0, 1, 4}, {0, 1, 0}}, {{0, 2, 3}, {0, 1, 0}}, {{0, 1, 2, 3}, {0, 1, 1, 0}}};
    for (const auto &which : cases)
        for (const tv_recompute_t recompute : recomputes)
            for (const int delay : {-1, 0, 1}) {
                step.first_units = which.first_units;
                step.stages = which.stages;
                step.recompute = recompute;
                step.weight_delay = delay;
                ASSERT_NO_FATAL_FAILURE(expect_same());
            }
}

INSTANTIATE_TEST_SUITE_P(
    Model, SameBits,
    testing::Values(Which{"Gpt2T1", 0, 8, 1, 1, 0}, Which{"Gpt2T2", 0, 8, 1, 2, 0},
                    Which{"Gpt2T2CutRows", 0, 8, 1, 2, 1}, Which{"LlamaT1", 1, 4, 0, 1, 0},
                    Which{"LlamaT2", 1, 1, 0, 2, 0}, Which{"LlamaT2CutRows", 1, 1, 0, 2, 1},
                    Which{"LlamaTiedT1", 1, 4, 1, 1, 0}, Which{"LlamaTiedT2", 1, 4, 1, 2, 0},
                    Which{"Gpt2DocumentsT2", 0, 8, 1, 2, 1, true},
                    Which{"LlamaDocumentsT1", 1, 4, 0, 1, 0, true}),
    [](const testing::TestParamInfo<Which> &which) { return which.param.name; });

} // namespace
