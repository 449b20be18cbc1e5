// 16-bit numbers: every one of them, and what lies between two neighbours.
#include "base/dtype.h"
#include "train/narrow.h"
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>

namespace
{
struct Format {
    float (*widen)(uint16_t);
    uint16_t (*narrow)(float);
    uint16_t infinity;
};
const Format formats[] = {{tv_f32_of_f16, tv_f16_of_f32, 0x7C00},
                          {tv_bf16_to_f32, tv_bf16_from_f32, 0x7F80}};

float next(float x)
{
    return std::nextafter(x, std::numeric_limits<float>::infinity());
}

float before(float x)
{
    return std::nextafter(x, -std::numeric_limits<float>::infinity());
}
} // namespace

TEST(Narrow, EveryNumberComesBack)
{
    for (const Format &f : formats)
        for (uint32_t bits = 0; bits < 0x10000; bits++) {
            const float value = f.widen((uint16_t)bits);
            if (std::isnan(value))
                EXPECT_TRUE(std::isnan(f.widen(f.narrow(value)))) << bits;
            else
                EXPECT_EQ(f.narrow(value), bits);
        }
}

// The middle of two neighbours goes to the even one, anything beside it to the nearer; above the
// largest number the next would be infinity's place.
TEST(Narrow, RoundsToNearestEven)
{
    for (const Format &f : formats)
        for (uint32_t low = 0; low < f.infinity; low++) {
            const double a = f.widen((uint16_t)low);
            const double b = low + 1 < f.infinity ? (double)f.widen((uint16_t)(low + 1))
                                                  : 2 * a - (double)f.widen((uint16_t)(low - 1));
            const auto middle = (float)((a + b) / 2); // exact, also in the subnormal range
            const uint16_t even = (uint16_t)(low + (low & 1));
            ASSERT_EQ(f.narrow(middle), even) << low;
            ASSERT_EQ(f.narrow(-middle), even | 0x8000) << low;
            ASSERT_EQ(f.narrow(before(middle)), low);
            ASSERT_EQ(f.narrow(next(middle)), low + 1);
        }
}

TEST(Narrow, Extremes)
{
    const float inf = std::numeric_limits<float>::infinity();
    EXPECT_EQ(tv_f16_of_f32(65504.0f), 0x7BFF);
    EXPECT_EQ(tv_f16_of_f32(65519.0f), 0x7BFF);
    EXPECT_EQ(tv_f16_of_f32(65520.0f), 0x7C00);
    EXPECT_EQ(tv_f16_of_f32(std::numeric_limits<float>::max()), 0x7C00);
    EXPECT_EQ(tv_bf16_from_f32(std::numeric_limits<float>::max()), 0x7F80);
    EXPECT_EQ(tv_f16_of_f32(std::numeric_limits<float>::denorm_min()), 0);
    for (const Format &f : formats) {
        EXPECT_EQ(f.narrow(inf), f.infinity);
        EXPECT_EQ(f.narrow(-inf), f.infinity | 0x8000);
        EXPECT_EQ(f.narrow(-0.0f), 0x8000);
    }
    // NaNs whose set bits are all among those that are cut off
    for (uint32_t bits : {0x7F800001u, 0xFF800001u}) {
        float nan;
        memcpy(&nan, &bits, sizeof(nan));
        EXPECT_TRUE(std::isnan(tv_bf16_to_f32(tv_bf16_from_f32(nan))));
        EXPECT_TRUE(std::isnan(tv_f32_of_f16(tv_f16_of_f32(nan))));
    }
}
