// bf16: every number comes back, and rounding is to nearest with ties to even.
#include "base/dtype.h"
#include <cmath>
#include <gtest/gtest.h>

TEST(Bf16, EveryNumberComesBack)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const float value = tv_bf16_to_f32((uint16_t)bits);
        if (std::isnan(value))
            EXPECT_TRUE(std::isnan(tv_bf16_to_f32(tv_bf16_from_f32(value)))) << bits;
        else
            EXPECT_EQ(tv_bf16_from_f32(value), bits);
    }
}

TEST(Bf16, RoundsToNearestTiesToEven)
{
    const float even = 1, odd = 1 + 0x1p-7f, above = 1 + 0x1p-6f;
    const struct {
        float x, want;
    } cases[] = {{1 + 0x1p-8f, even},
                 {1 + 0x1p-8f + 0x1p-23f, odd},
                 {1 + 0x1.8p-7f, above},
                 {1 + 0x1.8p-7f - 0x1p-23f, odd},
                 {-(1 + 0x1p-8f), -even},
                 {0x1.fep127f, 0x1.fep127f},
                 {0x1.ffp127f, INFINITY},
                 {-0x1.fffffep127f, -INFINITY},
                 {0x1p-149f, 0},
                 {0x1p-133f, 0x1p-133f},
                 {1.9921875f + 0x1p-8f, 2},
                 {INFINITY, INFINITY}};
    for (const auto &c : cases)
        EXPECT_EQ(tv_bf16_to_f32(tv_bf16_from_f32(c.x)), c.want) << c.x;
    EXPECT_TRUE(std::signbit(tv_bf16_to_f32(tv_bf16_from_f32(-0.0f))));
    EXPECT_TRUE(std::isnan(tv_bf16_to_f32(tv_bf16_from_f32(std::nanf("1")))));
}

TEST(Bf16, ElementsAreFoundByTheirBytes)
{
    float x[4] = {};
    EXPECT_EQ(tv_at(x, 2, TV_F32), &x[2]);
    EXPECT_EQ(tv_at(x, 6, TV_BF16), &x[3]);
    EXPECT_EQ(tv_const_at(&x[3], -2, TV_BF16), &x[2]);
}
