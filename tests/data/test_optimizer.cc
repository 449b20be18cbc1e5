// Each update rule against its definition in double; decay, gaps, memory.
#include "data/optimizer.h"
#include <cmath>
#include <gtest/gtest.h>
#include <vector>

namespace
{
constexpr int64_t count = 40;

// The definition, in double, one element.
struct Reference {
    double p, m = 0, v = 0;
    void step(double g, double lr, double decay, const tv_optimizer_config &c, int64_t k)
    {
        m = c.beta1 * m + (1 - c.beta1) * g;
        v = c.beta2 * v + (1 - c.beta2) * g * g;
        const double mh = m / (1 - std::pow(c.beta1, (double)k));
        const double vh = v / (1 - std::pow(c.beta2, (double)k));
        p -= lr * (mh / (std::sqrt(vh) + c.eps) + decay * p);
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
        const tv_optimizer_args args = {stream, tv_kernels_cpu(),   nullptr,      config,
                                        count,  (int)ranges.size(), ranges.data()};
        return tv_optimizer_create(&args, &optimizer);
    }
    tv_status_t step(std::vector<float> &params, const std::vector<float> &grads, double lr,
                     double scale, int64_t k)
    {
        const double rates[TV_NUM_LR_GROUPS] = {lr, lr / 2};
        return tv_optimizer_step(optimizer, params.data(), grads.data(), rates, scale, k);
    }
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;
    tv_optimizer *optimizer = nullptr;
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

TEST_F(Optimizer, FollowsTheDefinitionAndLeavesGapsAlone)
{
    const tv_adamw_config config = {0.9, 0.95, 1e-6, 0.1};
    // Elements 8..15 and 32..39 belong to no range.
    const std::vector<tv_optimizer_range> ranges = {{0, 8, 1}, {16, 16, 0}};
    ASSERT_EQ(create(ranges, config), TV_OK);
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
        ASSERT_EQ(tv_optimizer_step(optimizer, params.data(), grads.data(), lr, scale, k), TV_OK);
        for (const auto &range : ranges)
            for (int64_t i = range.first; i < range.first + range.count; i++)
                want[(size_t)i].step(grads[(size_t)i] * scale, lr, range.has_decay ? 0.1 : 0,
                                     config, k);
    }
    for (size_t i = 0; i < count; i++) {
        const bool in_range = i < 8 || (i >= 16 && i < 32);
        if (in_range)
            EXPECT_NEAR(params[i], want[i].p, 2e-6) << i;
        else
            EXPECT_EQ(params[i], before[i]) << i;
    }
}

// Gradients of zero leave nothing but the decay: matrices shrink by 1 - lr wd, the rest stays as it
// is, bit for bit.
TEST_F(Optimizer, DecayIsDecoupledAndOnlyWhereAsked)
{
    ASSERT_EQ(create({{0, 20, 1}, {20, 20, 0}}, {0.9, 0.95, 1e-8, 0.1}), TV_OK);
    std::vector<float> params(count), grads(count, 0.0f);
    for (int i = 0; i < count; i++)
        params[(size_t)i] = 1.0f + (float)i / 16;
    const std::vector<float> before = params;
    ASSERT_EQ(tv_optimizer_step(optimizer, params.data(), grads.data(), 0.1, 1, 1), TV_OK);
    for (size_t i = 0; i < 20; i++)
        EXPECT_FLOAT_EQ(params[i], before[i] * 0.99f) << i;
    for (size_t i = 20; i < count; i++)
        EXPECT_EQ(params[i], before[i]) << i;
}

TEST_F(Optimizer, RangesThatDoNotFitAreRefused)
{
    const tv_adamw_config config = {0.9, 0.95, 1e-8, 0.1};
    EXPECT_EQ(create({{0, 10, 1}, {9, 5, 0}}, config), TV_INTERNAL);
    EXPECT_EQ(create({{30, 11, 1}}, config), TV_INTERNAL);
    EXPECT_EQ(create({{-1, 4, 1}}, config), TV_INTERNAL);
    EXPECT_EQ(optimizer, nullptr);
    EXPECT_EQ(tv_device_bytes(device, TV_MEM_OPTIMIZER), 0u);
}

TEST_F(Optimizer, HoldsTwoMoments)
{
    ASSERT_EQ(create({{0, count, 1}}, {0.9, 0.95, 1e-8, 0.1}), TV_OK);
    EXPECT_EQ(tv_device_bytes(device, TV_MEM_OPTIMIZER), 2 * count * sizeof(float));
    float param[count] = {}, grad[count] = {};
    EXPECT_EQ(tv_optimizer_step(optimizer, param, grad, 0.1, 1, 0), TV_INTERNAL);
}
