// Learning rates against their formulas, the reference runs, and the edges of row B31.
#include "data/learning_rate.h"
#include <cmath>
#include <gtest/gtest.h>

namespace
{
tv_lr_schedule plain(tv_lr_style_t style, double lr, double min_lr, int64_t warmup, int64_t decay)
{
    return {style, lr, min_lr, 0, warmup, decay, TV_WSD_LINEAR, 0};
}

double rate(tv_lr_style_t style, int64_t warmup, int64_t decay, int64_t step)
{
    const tv_lr_schedule schedule = plain(style, 1e-3, 1e-4, warmup, decay);
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
    const tv_lr_schedule schedule = plain(TV_LR_COSINE, 3e-3, 3e-4, 3, 10);
    for (int64_t k = 1; k <= 10; k++)
        EXPECT_NEAR(tv_lr_at(&schedule, k), want[k - 1], 1e-17) << k;
}

TEST(LearningRate, B31EdgesOfTheScheduleStayInRange)
{
    const int64_t edges[][2] = {{0, 20}, {20, 20}, {25, 20}, {19, 20},
                                {1, 1},  {0, 0},   {0, 1},   {4, 20}};
    for (auto style : {TV_LR_COSINE, TV_LR_LINEAR, TV_LR_CONSTANT, TV_LR_INVERSE_SQUARE_ROOT})
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
    ASSERT_EQ(tv_lr_style_parse("WSD", &style), TV_OK);
    EXPECT_EQ(style, TV_LR_WSD);
    ASSERT_EQ(tv_lr_style_parse("inverse-square-root", &style), TV_OK);
    EXPECT_EQ(style, TV_LR_INVERSE_SQUARE_ROOT);
    ASSERT_EQ(tv_lr_style_parse("cosine", &style), TV_OK);
    EXPECT_EQ(style, TV_LR_COSINE);
}

TEST(LearningRate, WsdStyleWords)
{
    tv_wsd_style_t style = TV_WSD_LINEAR;
    for (auto [word, want] : {std::pair{"exponential", TV_WSD_EXPONENTIAL},
                              {"linear", TV_WSD_LINEAR},
                              {"cosine", TV_WSD_COSINE},
                              {"minus_sqrt", TV_WSD_MINUS_SQRT}}) {
        ASSERT_EQ(tv_wsd_style_parse(word, &style), TV_OK);
        EXPECT_EQ(style, want);
    }
    EXPECT_EQ(tv_wsd_style_parse("sqrt", &style), TV_INVALID);
    EXPECT_EQ(style, TV_WSD_MINUS_SQRT);
}

TEST(LearningRate, InverseSquareRoot)
{
    // continues the warm-up without a jump, and goes on behind the decay's end
    EXPECT_EQ(rate(TV_LR_INVERSE_SQUARE_ROOT, 4, 20, 4), 1e-3);
    EXPECT_DOUBLE_EQ(rate(TV_LR_INVERSE_SQUARE_ROOT, 4, 20, 16), 0.5e-3);
    EXPECT_DOUBLE_EQ(rate(TV_LR_INVERSE_SQUARE_ROOT, 4, 20, 64), 0.25e-3);
    EXPECT_EQ(rate(TV_LR_INVERSE_SQUARE_ROOT, 4, 20, 4000), 1e-4);
    EXPECT_EQ(rate(TV_LR_INVERSE_SQUARE_ROOT, 0, 20, 1), 1e-3);
    EXPECT_DOUBLE_EQ(rate(TV_LR_INVERSE_SQUARE_ROOT, 0, 20, 4), 0.5e-3);
}

TEST(LearningRate, WarmupStableDecay)
{
    const auto at = [](tv_wsd_style_t style, int64_t step) {
        const tv_lr_schedule schedule = {TV_LR_WSD, 1e-3, 1e-4, 0, 4, 20, style, 8};
        return tv_lr_at(&schedule, step);
    };
    for (auto style : {TV_WSD_EXPONENTIAL, TV_WSD_LINEAR, TV_WSD_COSINE, TV_WSD_MINUS_SQRT}) {
        EXPECT_DOUBLE_EQ(at(style, 2), 0.5e-3);
        EXPECT_EQ(at(style, 4), 1e-3);
        EXPECT_EQ(at(style, 12), 1e-3); // the decay takes steps 13 .. 20
        EXPECT_LT(at(style, 13), 1e-3);
        EXPECT_NEAR(at(style, 20), 1e-4, 1e-18);
        EXPECT_NEAR(at(style, 200), 1e-4, 1e-18);
    }
    EXPECT_NEAR(at(TV_WSD_LINEAR, 14), 1e-4 + 9e-4 * 0.75, 1e-18);
    EXPECT_NEAR(at(TV_WSD_COSINE, 14), 1e-4 + 9e-4 * (1 + std::cos(M_PI / 4)) / 2, 1e-18);
    EXPECT_NEAR(at(TV_WSD_EXPONENTIAL, 16), 1e-4 + 9e-4 * (std::sqrt(2) - 1), 1e-18);
    EXPECT_NEAR(at(TV_WSD_MINUS_SQRT, 14), 1e-4 + 9e-4 * 0.5, 1e-18);
}

TEST(LearningRate, B31EdgesOfWsdStayInRange)
{
    const int64_t edges[][3] = {{0, 20, 20}, {0, 20, 30}, {20, 20, 5}, {25, 20, 5},
                                {19, 20, 1}, {1, 1, 1},   {0, 0, 4},   {4, 20, 18}};
    for (auto style : {TV_WSD_EXPONENTIAL, TV_WSD_LINEAR, TV_WSD_COSINE, TV_WSD_MINUS_SQRT})
        for (auto &edge : edges)
            for (int64_t k = 1; k <= 60; k++) {
                const tv_lr_schedule schedule = {TV_LR_WSD, 1e-3,    1e-4,  0,
                                                 edge[0],   edge[1], style, edge[2]};
                const double lr = tv_lr_at(&schedule, k);
                EXPECT_GT(lr, 0) << edge[0] << " " << edge[1] << " " << k;
                EXPECT_LE(lr, 1e-3) << edge[0] << " " << edge[1] << " " << k;
                EXPECT_GE(lr, k > edge[0] ? 1e-4 : 0) << edge[0] << " " << edge[1] << " " << k;
            }
}

TEST(LearningRate, WarmUpMayStartAboveZero)
{
    const tv_lr_schedule schedule = {TV_LR_CONSTANT, 0.3, 0, 0.1, 4, 20, TV_WSD_LINEAR, 0};
    EXPECT_NEAR(tv_lr_at(&schedule, 1), 0.15, 1e-16);
    EXPECT_NEAR(tv_lr_at(&schedule, 2), 0.2, 1e-16);
    EXPECT_EQ(tv_lr_at(&schedule, 4), 0.3); // exactly
    EXPECT_EQ(tv_lr_at(&schedule, 5), 0.3);
}
