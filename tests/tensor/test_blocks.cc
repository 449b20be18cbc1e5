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
    return {in, out, layout, weight, bias, dweight, nullptr, 0};
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

/* Every element of c [m, n] gets all of k, part after part; a block's rows of a and columns of b and of the bias are
 * its own, the bias comes once, and only parts behind the first add to what is there (but in a gradient that adds). */
void expect_blocks_of(int64_t m, int64_t n, int64_t k, const float *a, const float *b,
                      const float *c, bool adds = false)
{
    std::vector<int64_t> depth((size_t)(m * n));
    for (const struct tv_matmul_args &block : blocks) {
        const int64_t i = place(block.c, c) / block.ld_c, j = place(block.c, c) % block.ld_c;
        ASSERT_LE(i + block.m, m);
        ASSERT_LE(j + block.n, n);
        const int64_t done = depth[(size_t)(i * n + j)];
        EXPECT_EQ(block.trans_a ? done * block.ld_a + i : i * block.ld_a + done, place(block.a, a));
        EXPECT_EQ(block.trans_b ? j * block.ld_b + done : done * block.ld_b + j, place(block.b, b));
        EXPECT_EQ(done > 0 || adds, block.accumulate == 1);
        if (block.bias != nullptr) {
            EXPECT_EQ(0, done);
            EXPECT_EQ(j, place(block.bias, bias));
        }
        for (int64_t r = i; r < i + block.m; r++)
            for (int64_t s = j; s < j + block.n; s++) {
                EXPECT_EQ(done, depth[(size_t)(r * n + s)]);
                depth[(size_t)(r * n + s)] += block.k;
            }
    }
    EXPECT_EQ(depth, std::vector<int64_t>(depth.size(), k));
}

class Blocks : public testing::TestWithParam<tv_weight_layout_t>
{
};

/* The gradient into a head: the vocabulary is cut, not the rows and channels that keep packing cheap. */
TEST_P(Blocks, CutALongDepthFirst)
{
    const int64_t chunk = 256, channels = 384, vocabulary = 50304;
    const struct tv_linear linear = {channels, vocabulary, GetParam(), weight,
                                     nullptr,  dweight,    nullptr,    0};
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_backward_input(&axis, &linear, chunk, y, vocabulary, 0, x));
    });
    EXPECT_EQ(4U, blocks.size());
    for (const struct tv_matmul_args &block : blocks) {
        EXPECT_EQ(chunk * channels, block.m * block.n);
        EXPECT_LE(block.m * block.n * block.k, (int64_t)4 * (512 << 20));
    }
    expect_blocks_of(chunk, channels, vocabulary, y, weight, x);
}

TEST_P(Blocks, AreOneWhereNobodyElseIsThere)
{
    const struct tv_linear linear = linear_of(GetParam());
    run([&](const struct tv_tensor_axis &axis) {
        struct tv_tensor_axis alone = axis;
        alone.is_alone = 1;
        ASSERT_OK(tv_column_linear_forward(&alone, &linear, rows, x, y, ld_y));
    });
    EXPECT_EQ(1U, blocks.size());
    expect_blocks_of(rows, out, in, x, weight, y);
}

TEST_P(Blocks, CoverTheProductOfForward)
{
    const struct tv_linear linear = linear_of(GetParam());
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_forward(&axis, &linear, rows, x, y, ld_y));
    });
    expect_blocks_of(rows, out, in, x, weight, y);
    EXPECT_NE(nullptr, blocks[0].bias);
}

TEST_P(Blocks, CoverTheInputsGradient)
{
    const struct tv_linear linear = linear_of(GetParam());
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_backward_input(&axis, &linear, rows, y, ld_y, 1, x));
    });
    expect_blocks_of(rows, in, out, y, weight, x, true);
    for (const struct tv_matmul_args &block : blocks)
        EXPECT_EQ(1, block.accumulate);
}

TEST_P(Blocks, CoverTheWeightsGradient)
{
    struct tv_linear linear = linear_of(GetParam());
    const bool is_out_in = GetParam() == TV_WEIGHT_OUT_IN;
    for (const bool adds : {false, true}) {
        linear.accumulate = adds;
        run([&](const struct tv_tensor_axis &axis) {
            ASSERT_OK(tv_column_linear_backward_weight(&axis, &linear, rows, x, y, ld_y));
        });
        if (is_out_in)
            expect_blocks_of(out, in, rows, y, x, dweight, adds);
        else
            expect_blocks_of(in, out, rows, x, y, dweight, adds);
    }
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
    const struct tv_linear linear = {384,  1152,    TV_WEIGHT_IN_OUT, weight,
                                     bias, dweight, nullptr,          0};
    run([&](const struct tv_tensor_axis &axis) {
        ASSERT_OK(tv_column_linear_forward(&axis, &linear, 1024, x, y, 1152));
    });
    EXPECT_EQ(1u, blocks.size());
}

} // namespace
