// Each update rule against its definition in double; decay, gaps, memory.
#include <algorithm>
#include <cmath>
#include <functional>
#include <gtest/gtest.h>
#include <vector>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "data/optimizer.h"
#pragma GCC diagnostic pop

namespace
{
constexpr int64_t count = 40, shift = 3; // of the bf16 numbers
constexpr uint16_t untouched = 7;

tv_optimizer_range range(int64_t first, int64_t num, int has_decay, int group = TV_LR_BODY)
{
    return {first, first, first, num, has_decay, group, nullptr, first + shift};
}

tv_optimizer_config adam(double eps)
{
    return {TV_OPTIMIZER_ADAM, 0.9, 0.95, eps, 0, 0.1};
}
const tv_optimizer_config sgd = {TV_OPTIMIZER_SGD, 0, 0, 0, 0.9, 0.1};
const tv_optimizer_config lion = {TV_OPTIMIZER_LION, 0.9, 0.99, 0, 0, 0.1};

// The definitions, in double, one element.
struct Reference {
    double p, m = 0, v = 0;
    void step(double g, double lr, double decay, const tv_optimizer_config &c, int64_t k)
    {
        if (c.kind == TV_OPTIMIZER_SGD) {
            m = c.momentum * m + g;
            p -= lr * (m + decay * p);
        } else if (c.kind == TV_OPTIMIZER_LION) {
            const double s = c.beta1 * m + (1 - c.beta1) * g;
            p -= lr * ((s > 0) - (s < 0) + decay * p);
            m = c.beta2 * m + (1 - c.beta2) * g;
        } else {
            m = c.beta1 * m + (1 - c.beta1) * g;
            v = c.beta2 * v + (1 - c.beta2) * g * g;
            const double mh = m / (1 - std::pow(c.beta1, (double)k));
            const double vh = v / (1 - std::pow(c.beta2, (double)k));
            p -= lr * (mh / (std::sqrt(vh) + c.eps) + decay * p);
        }
    }
};

class Optimizer : public ::testing::Test
{
  protected:
    void SetUp() override
    {
        ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
        ASSERT_EQ(tv_stream_create(device, &stream), TV_OK);
    }
    void TearDown() override
    {
        tv_optimizer_destroy(optimizer);
        tv_stream_destroy(stream);
        tv_device_close(device);
    }
    tv_status_t create(const std::vector<tv_optimizer_range> &ranges,
                       const tv_optimizer_config &config)
    {
        const tv_optimizer_args args = {stream, tv_kernels_cpu(TV_F32), nullptr,      config,
                                        count,  (int)ranges.size(),     ranges.data()};
        return tv_optimizer_create(&args, &optimizer);
    }
    tv_status_t step(std::vector<float> &params, const std::vector<float> &grads, double lr,
                     double scale, int64_t k)
    {
        const double rates[TV_NUM_LR_GROUPS] = {lr, lr / 2};
        return tv_optimizer_step(optimizer, params.data(), rounded.data(), grads.data(), rates,
                                 scale, k);
    }
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;
    tv_optimizer *optimizer = nullptr;
    std::vector<uint16_t> rounded = std::vector<uint16_t>(count + shift, untouched);
};
} // namespace

TEST(Clip, Factor)
{
    EXPECT_EQ(tv_clip_factor(0.5, 1.0), 1.0);
    EXPECT_EQ(tv_clip_factor(1e30, 0), 1.0); // off
    EXPECT_EQ(tv_clip_factor(0, 1.0), 1.0);
    EXPECT_DOUBLE_EQ(tv_clip_factor(4.0, 1.0), 1.0 / (4.0 + 1e-6));
    EXPECT_LT(tv_clip_factor(1.0, 1.0), 1.0);
}

TEST(OptimizerKind, Words)
{
    tv_optimizer_kind_t kind = TV_OPTIMIZER_ADAM;
    for (auto [word, want] : {std::pair{"sgd", TV_OPTIMIZER_SGD},
                              {"lion", TV_OPTIMIZER_LION},
                              {"muon", TV_OPTIMIZER_MUON},
                              {"adam", TV_OPTIMIZER_ADAM}}) {
        ASSERT_EQ(tv_optimizer_kind_parse(word, &kind), TV_OK);
        EXPECT_EQ(kind, want);
    }
    EXPECT_EQ(tv_optimizer_kind_parse("adamw", &kind), TV_INVALID);
}

TEST_F(Optimizer, EachRuleFollowsItsDefinitionAndLeavesGapsAlone)
{
    for (const auto &config : {adam(1e-6), sgd, lion}) {
        // Elements 8..15 and 32..39 belong to no range; the second range has half the rate.
        const std::vector<tv_optimizer_range> ranges = {range(0, 8, 1),
                                                        range(16, 16, 0, TV_LR_VOCABULARY)};
        ASSERT_EQ(create(ranges, config), TV_OK);
        std::fill(rounded.begin(), rounded.end(), untouched);
        std::vector<float> params(count), grads(count);
        std::vector<Reference> want;
        for (int i = 0; i < count; i++) {
            params[(size_t)i] = 0.01f * (float)(i - 20) + 0.003f;
            want.push_back({params[(size_t)i]});
        }
        const std::vector<float> before = params;
        const double scale = 0.25;
        for (int64_t k = 1; k <= 10; k++) {
            const double lr = 1e-2 / (double)k;
            for (int i = 0; i < count; i++)
                grads[(size_t)i] = std::sin((float)(i * 7 + k * 3));
            ASSERT_EQ(step(params, grads, lr, scale, k), TV_OK);
            for (const auto &r : ranges)
                for (int64_t i = r.param; i < r.param + r.count; i++)
                    want[(size_t)i].step(grads[(size_t)i] * scale,
                                         r.lr_group == TV_LR_BODY ? lr : lr / 2,
                                         r.has_decay ? 0.1 : 0, config, k);
        }
        for (size_t i = 0; i < count; i++) {
            const bool in_range = i < 8 || (i >= 16 && i < 32);
            if (in_range)
                EXPECT_NEAR(params[i], want[i].p, 2e-6) << config.kind << " " << i;
            else
                EXPECT_EQ(params[i], before[i]) << config.kind << " " << i;
            EXPECT_EQ(rounded[i + shift], in_range ? tv_bf16_from_f32(params[i]) : untouched)
                << config.kind << " " << i;
        }
        tv_optimizer_destroy(optimizer);
        optimizer = nullptr;
    }
}

// Row B60. Gradients of zero leave nothing but the decay: matrices shrink by 1 - lr wd to one unit
// in the last place, the rest stays as it is, bit for bit.
TEST_F(Optimizer, B60DecayIsDecoupledAndOnlyWhereAsked)
{
    for (const auto &config : {adam(1e-8), sgd, lion}) {
        ASSERT_EQ(create({range(0, 20, 1), range(20, 20, 0)}, config), TV_OK);
        std::vector<float> params(count), grads(count, 0.0f);
        for (int i = 0; i < count; i++)
            params[(size_t)i] = 1.0f + (float)i / 16;
        const std::vector<float> before = params;
        ASSERT_EQ(step(params, grads, 0.1, 1, 1), TV_OK);
        for (size_t i = 0; i < 20; i++) {
            const float want = (float)(0.99 * (double)before[i]);
            EXPECT_LE(std::fabs(params[i] - want), std::nextafter(want, 9.0f) - want) << i;
        }
        for (size_t i = 20; i < count; i++)
            EXPECT_EQ(params[i], before[i]) << i;
        tv_optimizer_destroy(optimizer);
        optimizer = nullptr;
    }
}

TEST_F(Optimizer, LionStandsStillWhereTheSignIsZero)
{
    ASSERT_EQ(create({range(0, count, 0)}, lion), TV_OK);
    std::vector<float> params(count, 1.0f), grads(count, 0.0f);
    grads[1] = 1e-30f;
    grads[2] = -1e30f;
    ASSERT_EQ(step(params, grads, 0.5, 1, 1), TV_OK);
    EXPECT_EQ(params[0], 1.0f);
    EXPECT_EQ(params[1], 0.5f);
    EXPECT_EQ(params[2], 1.5f);
}

TEST_F(Optimizer, RangesThatDoNotFitAreRefused)
{
    const tv_optimizer_config config = adam(1e-8);
    EXPECT_EQ(create({range(0, 10, 1), range(9, 5, 0)}, config), TV_INTERNAL);
    EXPECT_EQ(create({range(30, 11, 1)}, config), TV_INTERNAL);
    EXPECT_EQ(create({range(-1, 4, 1)}, config), TV_INTERNAL);
    EXPECT_EQ(optimizer, nullptr);
    EXPECT_EQ(tv_device_bytes(device, TV_MEM_OPTIMIZER), 0u);
}

TEST_F(Optimizer, HoldsTheMomentsOfItsRule)
{
    for (const auto &config : {adam(1e-8), sgd, lion}) {
        ASSERT_EQ(create({range(0, count, 1)}, config), TV_OK);
        const int moments = config.kind == TV_OPTIMIZER_ADAM ? 2 : 1;
        EXPECT_EQ(tv_device_bytes(device, TV_MEM_OPTIMIZER), moments * count * sizeof(float));
        EXPECT_EQ(tv_optimizer_state_bytes(config.kind, count, 1, 0, nullptr),
                  moments * count * (int64_t)sizeof(float));
        EXPECT_NE(tv_optimizer_moment(optimizer, 0, 0), nullptr);
        EXPECT_EQ(tv_optimizer_moment(optimizer, 0, 1) != nullptr, moments == 2);
        std::vector<float> params(count), grads(count);
        EXPECT_EQ(step(params, grads, 0.1, 1, 0), TV_INTERNAL);
        tv_optimizer_destroy(optimizer);
        optimizer = nullptr;
    }
}
