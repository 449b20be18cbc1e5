// Learning rates against their formula and the reference runs; AdamW against its definition in
// double.
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
    void step(double g, double lr, double decay, const tv_adamw_config &c, int64_t k)
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
    tv_status_t create(const std::vector<tv_optimizer_range> &ranges, const tv_adamw_config &config)
    {
        return tv_optimizer_create(stream, tv_kernels_ref(), config, count, (int)ranges.size(),
                                   ranges.data(), &optimizer);
    }
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;
    tv_optimizer *optimizer = nullptr;
};

double rate(tv_lr_style_t style, int64_t warmup, int64_t decay, int64_t step)
{
    const tv_lr_schedule schedule = {style, 1e-3, 1e-4, warmup, decay};
    return tv_lr_at(&schedule, step);
}
} // namespace

TEST(LearningRate, AgreesWithTheReferenceRuns)
{
    const double want[10] = {0.001,
                             0.002,
                             0.0030000000000000005,
                             0.0028663079716682656,
                             0.0024917112325092902,
                             0.0019504032608410244,
                             0.0013495967391589756,
                             0.0008082887674907098,
                             0.00043369202833173426,
                             0.0003};
    const tv_lr_schedule schedule = {TV_LR_COSINE, 3e-3, 3e-4, 3, 10};
    for (int64_t k = 1; k <= 10; k++)
        EXPECT_NEAR(tv_lr_at(&schedule, k), want[k - 1], 1e-17) << k;
}

TEST(LearningRate, EdgesOfTheScheduleStayInRange)
{
    const int64_t edges[][2] = {{0, 20}, {20, 20}, {25, 20}, {19, 20},
                                {1, 1},  {0, 0},   {0, 1},   {4, 20}};
    for (auto style : {TV_LR_COSINE, TV_LR_LINEAR, TV_LR_CONSTANT})
        for (auto &edge : edges)
            for (int64_t k = 1; k <= 60; k++) {
                const double lr = rate(style, edge[0], edge[1], k);
                EXPECT_GT(lr, 0) << edge[0] << " " << edge[1] << " " << k;
                EXPECT_LE(lr, 1e-3) << edge[0] << " " << edge[1] << " " << k;
                EXPECT_GE(lr, k > edge[0] ? 1e-4 : 0) << edge[0] << " " << edge[1] << " " << k;
            }
}

TEST(LearningRate, WarmUpCountsFromOne)
{
    for (int64_t k = 1; k <= 4; k++)
        EXPECT_DOUBLE_EQ(rate(TV_LR_COSINE, 4, 20, k), 1e-3 * (double)k / 4);
    EXPECT_EQ(rate(TV_LR_COSINE, 4, 20, 4), 1e-3);
    EXPECT_EQ(rate(TV_LR_COSINE, 25, 20, 25), 1e-3);
    EXPECT_EQ(rate(TV_LR_COSINE, 25, 20, 26), 1e-4);
    EXPECT_EQ(rate(TV_LR_COSINE, 20, 20, 21), 1e-4);
    EXPECT_EQ(rate(TV_LR_COSINE, 19, 20, 20), 1e-4);
    EXPECT_EQ(rate(TV_LR_COSINE, 1, 1, 1), 1e-3);
}

TEST(LearningRate, Shapes)
{
    EXPECT_NEAR(rate(TV_LR_COSINE, 0, 20, 10), (1e-3 + 1e-4) / 2, 1e-18);
    EXPECT_NEAR(rate(TV_LR_LINEAR, 0, 20, 5), 1e-3 - 0.25 * 9e-4, 1e-18);
    EXPECT_DOUBLE_EQ(rate(TV_LR_LINEAR, 0, 20, 20), 1e-4);
    EXPECT_DOUBLE_EQ(rate(TV_LR_LINEAR, 0, 20, 2000), 1e-4);
    EXPECT_EQ(rate(TV_LR_CONSTANT, 3, 20, 2000), 1e-3);
    const double t = 7.0 / 16;
    EXPECT_NEAR(rate(TV_LR_COSINE, 4, 20, 11), 1e-4 + 9e-4 * (1 + std::cos(M_PI * t)) / 2, 1e-18);
}

TEST(LearningRate, StyleWords)
{
    tv_lr_style_t style = TV_LR_COSINE;
    ASSERT_EQ(tv_lr_style_parse("linear", &style), TV_OK);
    EXPECT_EQ(style, TV_LR_LINEAR);
    ASSERT_EQ(tv_lr_style_parse("constant", &style), TV_OK);
    EXPECT_EQ(style, TV_LR_CONSTANT);
    EXPECT_EQ(tv_lr_style_parse("cosin", &style), TV_INVALID);
    EXPECT_EQ(style, TV_LR_CONSTANT);
    ASSERT_EQ(tv_lr_style_parse("cosine", &style), TV_OK);
    EXPECT_EQ(style, TV_LR_COSINE);
}

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
