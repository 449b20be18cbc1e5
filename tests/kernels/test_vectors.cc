// The vector exp and log against the library's over their whole ranges; how work is shared; that the copies of
// the CPU functions for different instruction sets give the same bits.
#include "kernels/harness.h"
#include "kernels/kernels_internal.h"
#include "kernels/reduce_internal.h"
#include <cmath>

TEST(Exp, WithinTwoUnitsInTheLastPlace)
{
    double worst = 0;
    for (double x = -87.3; x <= 88; x += 0.000317) {
        const double want = std::exp((double)(float)x);
        const double unit = std::ldexp(1.0, std::ilogb(want) - 23);
        worst = std::fmax(worst, std::fabs((double)tv_fast_exp((float)x) - want) / unit);
    }
    EXPECT_LE(worst, 2.0);
    EXPECT_EQ(tv_fast_exp(0.0f), 1.0f);
}

TEST(Exp, Edges)
{
    EXPECT_EQ(tv_fast_exp(-INFINITY), 0.0f);
    EXPECT_EQ(tv_fast_exp(-87.7f), 0.0f);
    EXPECT_EQ(tv_fast_exp(-3e38f), 0.0f);
    EXPECT_GT(tv_fast_exp(-87.3f), 0.0f);
    EXPECT_NEAR(tv_fast_exp(INFINITY) / std::exp(88.0), 1.0, 1e-6);
    EXPECT_TRUE(std::isnan(tv_fast_exp(NAN)));
}

TEST(Exp2, WithinTwoUnitsInTheLastPlace)
{
    double worst = 0;
    for (double x = -126; x <= 126; x += 0.000317) {
        const double want = std::exp2((double)(float)x);
        const double unit = std::ldexp(1.0, std::ilogb(want) - 23);
        worst = std::fmax(worst, std::fabs((double)tv_fast_exp2((float)x) - want) / unit);
    }
    EXPECT_LE(worst, 2.0);
    for (int n = -126; n <= 126; n++)
        EXPECT_EQ(tv_fast_exp2((float)n), std::ldexp(1.0f, n)) << n;
}

TEST(Exp2, Edges)
{
    for (float x : {-126.6f, -200.0f, -3e38f, -INFINITY})
        EXPECT_EQ(tv_fast_exp2(x), 0.0f) << x;
    for (uint32_t payload : {0x7fc00000u, 0x7fc0beefu, 0xffffffffu}) {
        float x;
        memcpy(&x, &payload, sizeof(x));
        EXPECT_TRUE(std::isnan(tv_fast_exp2(x))) << payload;
        EXPECT_TRUE(std::isnan(tv_fast_exp(x))) << payload;
    }
}

TEST(Log2, WithinTwoUnitsInTheLastPlace)
{
    double worst = 0;
    const auto look_at = [&](float x) {
        const double want = std::log2((double)x);
        const double unit = x == 1 ? 1e-45 : std::ldexp(1.0, std::ilogb(want) - 23);
        worst = std::fmax(worst, std::fabs((double)tv_fast_log2(x) - want) / unit);
    };
    for (double x = 1e-30; x < 1e30; x *= 1.0000317)
        look_at((float)x);
    for (int32_t i = -100000; i <= 100000; i++) /* both sides of 1 */
        look_at(1 + (float)i / (1 << 23));
    EXPECT_LE(worst, 2.0);
    for (int n = -126; n <= 127; n++)
        EXPECT_EQ(tv_fast_log2(std::ldexp(1.0f, n)), (float)n);
    EXPECT_TRUE(std::isnan(tv_fast_log2(NAN)) && std::isnan(tv_fast_log2(INFINITY)));
}

// Lengths around the numbers of lanes; the largest and the NaN at every place.
TEST(Reduce, MaximumAndNaNAtEveryPlace)
{
    EXPECT_EQ(tv_stored_row_max(nullptr, 0), -INFINITY);
    for (int64_t count : {1, 7, 31, 32, 33, 64, 75}) {
        for (size_t place = 0; place < (size_t)count; place++) {
            std::vector<float> x((size_t)count, -3.0f);
            x[place] = -2.0f;
            EXPECT_EQ(tv_stored_row_max(x.data(), count), -2.0f) << count << " " << place;
            x[place] = NAN;
            EXPECT_TRUE(std::isnan(tv_stored_row_max(x.data(), count))) << count << " " << place;
        }
    }
}

TEST(Reduce, SumsOfWholeNumbersAreExact)
{
    for (int64_t count : {0, 1, 7, 8, 9, 64, 75}) {
        std::vector<float> x((size_t)count), y((size_t)count);
        double sum = 0, dot = 0;
        for (size_t i = 0; i < (size_t)count; i++) {
            x[i] = (float)(i + 1);
            y[i] = (float)(3 * i) - 5;
            sum += (double)x[i];
            dot += (double)x[i] * (double)y[i];
        }
        EXPECT_EQ(tv_stored_row_sum(x.data(), count), sum) << count;
        EXPECT_EQ(tv_stored_row_dot(x.data(), y.data(), count), dot) << count;
    }
}

TEST(Share, CoversEverythingOnceInOrder)
{
    for (int64_t total : {0, 1, 15, 16, 17, 1000}) {
        for (int n : {1, 2, 3, 13}) {
            int64_t next = 0;
            for (int i = 0; i < n; i++) {
                int64_t first;
                const int64_t count = tv_share(total, 16, n, i, &first);
                EXPECT_EQ(first, next) << total << " " << n << " " << i;
                EXPECT_GE(count, 0);
                next = first + count;
            }
            EXPECT_EQ(next, total) << n;
        }
    }
}

TEST(Copies, EndWithThePortableOne)
{
    for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {
        int num = 0;
        while (tv_table_copy(num, dtype) != nullptr)
            num++;
        ASSERT_GE(num, 1);
        EXPECT_EQ(tv_table_copy(num - 1, dtype), tv_table_portable(dtype));
        EXPECT_EQ(tv_table_copy(0, dtype), tv_kernels_cpu(dtype));
    }
}

TEST(Copies, GiveTheSameBits)
{
    if (tv_table_copy(1, TV_F32) == nullptr)
        GTEST_SKIP() << "this CPU runs the portable copy alone";
    std::vector<Case> cases;
    add_elementwise_cases(cases);
    add_norm_cases(cases);
    add_attention_cases(cases);
    add_loss_cases(cases);
    Device one(1);
    for (const Case &c : cases) {
        SCOPED_TRACE(c.op + " " + c.shape);
        for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {
            const Call want = run_case(c, tv_table_portable(dtype), one.stream);
            for (int i = 0; tv_table_copy(i, dtype) != tv_table_portable(dtype); i++)
                expect_same_bits(run_case(c, tv_table_copy(i, dtype), one.stream), want);
        }
    }
}
