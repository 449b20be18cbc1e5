// What dropout masks are: a function of place and key, with the promised share and scale.
#include "base/rng.h"
#include "kernels/harness.h"
#include <cmath>

namespace
{
// p = 1/4
const tv_dropout quarter = {0xfedcba9876543210u, 1u << 30, 4.0f / 3, 12345678901, 6};

// As kernels.h defines it.
float factor_of(const tv_dropout &d, int64_t row, int plane, int64_t column)
{
    const uint64_t token = (uint64_t)(d.first_token + row);
    const uint32_t counter[] = {(uint32_t)(column / 4), (uint32_t)token, (uint32_t)(token >> 32),
                                (uint32_t)(d.first_plane + plane)};
    const uint32_t key[] = {(uint32_t)d.key, (uint32_t)(d.key >> 32)};
    uint32_t word[4];
    tv_philox(counter, key, word);
    return word[column % 4] < d.threshold ? 0 : d.scale;
}

class Dropout : public ::testing::TestWithParam<const tv_kernels *>
{
  protected:
    std::vector<float> of_ones(int64_t rows, int64_t cols, const tv_dropout &dropout)
    {
        std::vector<float> y((size_t)(rows * cols), 1);
        const tv_dropout_args args = {rows, cols, dropout, y.data(), y.data()};
        EXPECT_EQ(GetParam()->dropout(device.stream, &args), TV_OK);
        return y;
    }
    Device device{2};
};
} // namespace

TEST_P(Dropout, IsPhiloxOfThePlace)
{
    const std::vector<float> y = of_ones(9, 131, quarter);
    for (int64_t r = 0; r < 9; r++)
        for (int64_t c = 0; c < 131; c++)
            ASSERT_EQ(y[(size_t)(r * 131 + c)], factor_of(quarter, r, 0, c)) << r << " " << c;
}

TEST_P(Dropout, DropsTheShareAndKeepsTheMean)
{
    const int64_t rows = 500, cols = 400;
    const std::vector<float> y = of_ones(rows, cols, quarter);
    double zeros = 0, sum = 0;
    for (const float v : y) {
        zeros += v == 0;
        sum += (double)v;
    }
    // five standard deviations of 200000 draws: 5 sqrt(3/16 / 200000)
    EXPECT_NEAR(zeros / (double)y.size(), 0.25, 0.005);
    EXPECT_NEAR(sum / (double)y.size(), 1, 0.007);
}

TEST_P(Dropout, RowsMayBeSpread)
{
    const int64_t rows = 12, cols = 37;
    const std::vector<float> whole = of_ones(rows, cols, quarter);
    for (const int64_t first : {0, 5, 11}) {
        tv_dropout part = quarter;
        part.first_token += first;
        const std::vector<float> y = of_ones(rows - first, cols, part);
        for (size_t i = 0; i < y.size(); i++)
            ASSERT_EQ(y[i], whole[i + (size_t)(first * cols)]) << first << " " << i;
    }
    tv_dropout other = quarter;
    other.key ^= 1;
    EXPECT_NE(of_ones(rows, cols, other), whole);
}

// With queries of zero all keys weigh the same, so the output is a mean of masked values.
TEST_P(Dropout, OfAttentionHasAMaskPerHeadAndQuery)
{
    const int batch = 2, length = 67, heads = 2, h = 4;
    const int64_t rows = batch * length, cols = heads * h;
    std::vector<float> q((size_t)(rows * cols)), k = q, v = q, o = q, lse((size_t)(rows * heads));
    for (size_t i = 0; i < v.size(); i++)
        v[i] = std::sin((float)i);
    tv_attention_args args = {batch, length, heads, heads,    h,    q.data(),   k.data(), v.data(),
                              cols,  cols,   cols,  o.data(), cols, lse.data(), quarter,  nullptr};
    ASSERT_EQ(GetParam()->attention_forward(device.stream, &args), TV_OK);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            const int64_t first = r / length * length;
            double sum = 0;
            for (int64_t key = first; key <= r; key++)
                sum += (double)factor_of(quarter, r, (int)(c / h), key - first) *
                       (double)v[(size_t)(key * cols + c)];
            ASSERT_NEAR((double)o[(size_t)(r * cols + c)], sum / (double)(r - first + 1), 2e-6)
                << r << " " << c;
        }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Dropout,
                         ::testing::Values(tv_kernels_ref(TV_F32), tv_kernels_cpu(TV_F32)),
                         [](const ::testing::TestParamInfo<const tv_kernels *> &each) {
                             return std::string(each.param->name);
                         });
