/* Products are cut into blocks, between which messages move. A kernel that multiplies nothing and writes down what it
 * is asked for shows the blocks of products that would take seconds. */
#include "tensor/axis_ranks.h"

namespace
{

constexpr int64_t rows = 700, in = 3000, out = 5001, ld_y = out + 7;

std::vector<struct tv_matmul_args> blocks;

tv_status_t write_down(struct tv_stream *, const struct tv_matmul_args *args)
{
    blocks.push_back(*args);
    return TV_OK;
}

/* Only the places are looked at. */
float x[1], weight[1], bias[1], y[1], dweight[1];

struct tv_linear linear_of(tv_weight_layout_t layout)
{
    return {in, out, layout, weight, bias, dweight, nullptr};
}

int64_t place(const void *data, const float *base)
{
    return ((int64_t)(uintptr_t)data - (int64_t)(uintptr_t)base) / (int64_t)sizeof(*base);
}

void run(const std::function<void(const struct tv_tensor_axis &)> &body)
{
    blocks.clear();
    struct tv_kernels kernels = *tv_kernels_ref(TV_F32);
    kernels.matmul = kernels.matmul_to_f32 = write_down;
    run_axis(1, &kernels, body);
}

/* Every element of c [m, n] in one block, whose rows of a and columns of b and of the bias are its own. */
void expect_blocks_of(int64_t m, int64_t n, const float *a, const float *b, const float *c)
{
    std::vector<int> times((size_t)(m * n));
    for (const struct tv_matmul_args &block : blocks) {
        const int64_t i = place(block.c, c) / block.ld_c, j = place(block.c, c) % block.ld_c;
        ASSERT_LE(i + block.m, m);
        ASSERT_LE(j + block.n, n);
        EXPECT_EQ(block.trans_a ? i : i * block.ld_a, place(block.a, a));
        EXPECT_EQ(block.trans_b ? j * block.ld_b : j, place(block.b, b));
        if (block.bias != nullptr) {
            EXPECT_EQ(j, place(block.bias, bias));
        }
        for (int64_t r = i; r < i + block.m; r++)
            for (int64_t s = j; s < j + block.n; s++)
                times[(size_t)(r * n + s)]++;
    }
    EXPECT_EQ(times, std::vector<int>(times.size(), 1));
}

class Blocks : public testing::TestWithParam<tv_weight_layout_t>
{
};

TEST_P(Blocks, CoverTheProductOfForward)
{
    const struct tv_linear linear = linear_of(GetParam());
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_forward(&axis, &linear, rows, x, y, ld_y));
    });
    expect_blocks_of(rows, out, x, weight, y);
    EXPECT_NE(nullptr, blocks[0].bias);
}

TEST_P(Blocks, CoverTheInputsGradient)
{
    const struct tv_linear linear = linear_of(GetParam());
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_backward_input(&axis, &linear, rows, y, ld_y, 1, x));
    });
    expect_blocks_of(rows, in, y, weight, x);
    for (const struct tv_matmul_args &block : blocks)
        EXPECT_EQ(1, block.accumulate);
}

TEST_P(Blocks, CoverTheWeightsGradient)
{
    const struct tv_linear linear = linear_of(GetParam());
    const bool is_out_in = GetParam() == TV_WEIGHT_OUT_IN;
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_backward_weight(&axis, &linear, rows, x, y, ld_y));
    });
    if (is_out_in)
        expect_blocks_of(out, in, y, x, dweight);
    else
        expect_blocks_of(in, out, x, y, dweight);
}

INSTANTIATE_TEST_SUITE_P(Layouts, Blocks, testing::Values(TV_WEIGHT_IN_OUT, TV_WEIGHT_OUT_IN));

/* No BLAS packs a matrix again for a sliver of the other. */
TEST(BlockSizes, AreMillisecondsAndNoSlivers)
{
    const struct tv_linear linear = linear_of(TV_WEIGHT_IN_OUT);
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_forward(&axis, &linear, rows, x, y, ld_y));
    });
    EXPECT_GT(blocks.size(), 10u) << "10.5 G products";
    for (const struct tv_matmul_args &block : blocks) {
        EXPECT_LE(block.m * block.n * block.k, (int64_t)512 << 20);
        EXPECT_GE(block.m * block.n * block.k, (int64_t)1 << 27) << block.m << " x " << block.n;
    }
}

TEST(BlockSizes, SmallProductIsWhole)
{
    const struct tv_linear linear = {384, 1152, TV_WEIGHT_IN_OUT, weight, bias, dweight, nullptr};
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_forward(&axis, &linear, 1024, x, y, 1152));
    });
    EXPECT_EQ(1u, blocks.size());
}

} // namespace
