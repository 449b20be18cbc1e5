/* Column- and row-parallel matrices against the whole product. All values are small integers, so
 * float sums are exact in any order and every T must give the same bits. */
#include "tensor/axis_ranks.h"

namespace
{

constexpr int64_t rows = 5, in = 12, out = 8, gap = 3;
constexpr float untouched = 7777;

/* Integers in -3..3, a different pattern for each seed. */
float value_at(int seed, int64_t i, int64_t j)
{
    return (float)((i * 31 + j * 17 + i * j * 5 + seed * 13) % 7 - 3);
}

enum { X = 1, W, BIAS, DY, OLD_DW, OLD_DX };

struct Case {
    int T;
    tv_weight_layout_t layout;
};

/* One rank's part of a matrix W [in, out], with gradients that already hold something. */
struct Shard {
    int64_t first_in, first_out;
    std::vector<float> weight, bias, dweight, dbias;
    struct tv_linear linear;

    Shard(tv_weight_layout_t layout, int64_t from_in, int64_t num_in, int64_t from_out,
          int64_t num_out)
        : first_in(from_in), first_out(from_out), weight((size_t)(num_in * num_out)),
          bias((size_t)num_out), dweight(weight.size()),
          dbias((size_t)num_out, 100), linear{
                                           num_in,      num_out,        layout,       weight.data(),
                                           bias.data(), dweight.data(), dbias.data(), 1}
    {
        for (int64_t i = 0; i < num_in; i++)
            for (int64_t j = 0; j < num_out; j++) {
                weight[at(i, j)] = value_at(W, first_in + i, first_out + j);
                dweight[at(i, j)] = value_at(OLD_DW, first_in + i, first_out + j);
            }
        for (int64_t j = 0; j < num_out; j++)
            bias[(size_t)j] = value_at(BIAS, 0, first_out + j);
    }
    size_t at(int64_t i, int64_t j) const
    {
        return (size_t)(linear.layout == TV_WEIGHT_IN_OUT ? i * linear.out + j : j * linear.in + i);
    }
};

/* Columns [first, first + cols) of a tensor, with rows ld apart and `untouched` between them. */
std::vector<float> columns(int seed, int64_t first, int64_t cols, int64_t ld)
{
    std::vector<float> x((size_t)(rows * ld), untouched);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            x[(size_t)(r * ld + c)] = value_at(seed, r, first + c);
    return x;
}

float y_of(int64_t r, int64_t j)
{
    float sum = value_at(BIAS, 0, j);
    for (int64_t i = 0; i < in; i++)
        sum += value_at(X, r, i) * value_at(W, i, j);
    return sum;
}

float dx_of(int64_t r, int64_t i)
{
    float sum = 0;
    for (int64_t j = 0; j < out; j++)
        sum += value_at(DY, r, j) * value_at(W, i, j);
    return sum;
}

void expect_gaps_untouched(const std::vector<float> &x, int64_t cols, int64_t ld)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = cols; c < ld; c++)
            ASSERT_EQ(untouched, x[(size_t)(r * ld + c)]) << "row " << r << ", column " << c;
}

/* dW = (what was there +) x^T dy; dbias likewise. */
void expect_weight_gradients(const Shard &shard)
{
    for (int64_t j = 0; j < shard.linear.out; j++) {
        float dbias = shard.linear.accumulate ? 100 : 0;
        for (int64_t r = 0; r < rows; r++)
            dbias += value_at(DY, r, shard.first_out + j);
        ASSERT_EQ(dbias, shard.dbias[(size_t)j]) << "column " << j;
        for (int64_t i = 0; i < shard.linear.in; i++) {
            float dw = shard.linear.accumulate
                           ? value_at(OLD_DW, shard.first_in + i, shard.first_out + j)
                           : 0;
            for (int64_t r = 0; r < rows; r++)
                dw += value_at(X, r, shard.first_in + i) * value_at(DY, r, shard.first_out + j);
            ASSERT_EQ(dw, shard.dweight[shard.at(i, j)]) << i << ", " << j;
        }
    }
}

/* The input's part leaves them as they were. */
void expect_no_weight_gradients(const Shard &shard)
{
    for (int64_t j = 0; j < shard.linear.out; j++) {
        ASSERT_EQ(100, shard.dbias[(size_t)j]) << "column " << j;
        for (int64_t i = 0; i < shard.linear.in; i++)
            ASSERT_EQ(value_at(OLD_DW, shard.first_in + i, shard.first_out + j),
                      shard.dweight[shard.at(i, j)])
                << i << ", " << j;
    }
}

class Linear : public testing::TestWithParam<Case>
{
  protected:
    void run(const std::function<void(const struct tv_tensor_axis &, int64_t t)> &body)
    {
        run_axis(GetParam().T, tv_kernels_ref(TV_F32),
                 [&](const struct tv_tensor_axis &axis) { body(axis, tv_comm_rank(axis.comm)); });
    }
};

TEST_P(Linear, ColumnForwardGivesOwnColumns)
{
    const int64_t num = out / GetParam().T, ld = num + gap;
    run([&](const struct tv_tensor_axis &axis, int64_t t) {
        const Shard shard(GetParam().layout, 0, in, t * num, num);
        const std::vector<float> x = columns(X, 0, in, in);
        std::vector<float> y((size_t)(rows * ld), untouched);
        ASSERT_OK(tv_column_linear_forward(&axis, &shard.linear, rows, x.data(), y.data(), ld));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < num; j++)
                ASSERT_EQ(y_of(r, t * num + j), y[(size_t)(r * ld + j)]);
        expect_gaps_untouched(y, num, ld);
    });
}

TEST_P(Linear, ColumnBackwardIsPartialUntilSummed)
{
    const int64_t num = out / GetParam().T, ld = num + gap;
    run([&](const struct tv_tensor_axis &axis, int64_t t) {
        Shard shard(GetParam().layout, 0, in, t * num, num);
        const std::vector<float> x = columns(X, 0, in, in), dy = columns(DY, t * num, num, ld);
        std::vector<float> dx((size_t)(rows * in), untouched);
        ASSERT_OK(tv_column_linear_backward_input(&axis, &shard.linear, rows, dy.data(), ld, 0,
                                                  dx.data()));
        expect_no_weight_gradients(shard);
        ASSERT_OK(
            tv_column_linear_backward_weight(&axis, &shard.linear, rows, x.data(), dy.data(), ld));
        expect_weight_gradients(shard);
        shard.linear.accumulate = 0;
        ASSERT_OK(
            tv_column_linear_backward_weight(&axis, &shard.linear, rows, x.data(), dy.data(), ld));
        expect_weight_gradients(shard);
        ASSERT_OK(tv_tensor_sum(&axis, dx.data(), rows * in));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < in; i++)
                ASSERT_EQ(dx_of(r, i), dx[(size_t)(r * in + i)]);
    });
}

TEST_P(Linear, ColumnBackwardAddsToWhatAnotherMatrixGave)
{
    const int64_t num = out / GetParam().T;
    run([&](const struct tv_tensor_axis &axis, int64_t t) {
        Shard shard(GetParam().layout, 0, in, t * num, num);
        const std::vector<float> dy = columns(DY, t * num, num, num);
        std::vector<float> dx = columns(OLD_DX, 0, in, in);
        ASSERT_OK(tv_column_linear_backward_input(&axis, &shard.linear, rows, dy.data(), num, 1,
                                                  dx.data()));
        ASSERT_OK(tv_tensor_sum(&axis, dx.data(), rows * in));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < in; i++)
                ASSERT_EQ((float)GetParam().T * value_at(OLD_DX, r, i) + dx_of(r, i),
                          dx[(size_t)(r * in + i)]);
    });
}

TEST_P(Linear, RowForwardIsCompleteWithBiasOnce)
{
    const int64_t num = in / GetParam().T, ld = num + gap;
    run([&](const struct tv_tensor_axis &axis, int64_t t) {
        const Shard shard(GetParam().layout, t * num, num, 0, out);
        const std::vector<float> x = columns(X, t * num, num, ld);
        std::vector<float> y((size_t)(rows * out), untouched);
        ASSERT_OK(
            tv_row_linear_forward(&axis, &shard.linear, rows, x.data(), ld, nullptr, y.data()));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < out; j++)
                ASSERT_EQ(y_of(r, j), y[(size_t)(r * out + j)]);
    });
}

TEST_P(Linear, RowBackwardGivesOwnSlice)
{
    const int64_t num = in / GetParam().T, ld_x = num + gap, ld_dx = num + 2 * gap;
    run([&](const struct tv_tensor_axis &axis, int64_t t) {
        Shard shard(GetParam().layout, t * num, num, 0, out);
        const std::vector<float> x = columns(X, t * num, num, ld_x), dy = columns(DY, 0, out, out);
        std::vector<float> dx((size_t)(rows * ld_dx), untouched);
        ASSERT_OK(
            tv_row_linear_backward_input(&axis, &shard.linear, rows, dy.data(), dx.data(), ld_dx));
        expect_no_weight_gradients(shard);
        ASSERT_OK(
            tv_row_linear_backward_weight(&axis, &shard.linear, rows, x.data(), ld_x, dy.data()));
        expect_weight_gradients(shard);
        shard.linear.accumulate = 0;
        ASSERT_OK(
            tv_row_linear_backward_weight(&axis, &shard.linear, rows, x.data(), ld_x, dy.data()));
        expect_weight_gradients(shard);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < num; i++)
                ASSERT_EQ(dx_of(r, t * num + i), dx[(size_t)(r * ld_dx + i)]);
        expect_gaps_untouched(dx, num, ld_dx);
    });
}

INSTANTIATE_TEST_SUITE_P(Axis, Linear,
                         testing::Values(Case{1, TV_WEIGHT_IN_OUT}, Case{1, TV_WEIGHT_OUT_IN},
                                         Case{2, TV_WEIGHT_IN_OUT}, Case{2, TV_WEIGHT_OUT_IN},
                                         Case{4, TV_WEIGHT_IN_OUT}, Case{4, TV_WEIGHT_OUT_IN}),
                         [](const testing::TestParamInfo<Case> &which) {
                             return "T" + std::to_string(which.param.T) +
                                    (which.param.layout == TV_WEIGHT_IN_OUT ? "InOut" : "OutIn");
                         });

TEST(LinearWithoutBias, LeavesTheProductAlone)
{
    run_axis(1, tv_kernels_ref(TV_F32), [](const struct tv_tensor_axis &axis) {
        Shard shard(TV_WEIGHT_OUT_IN, 0, in, 0, out);
        shard.linear.bias = nullptr;
        shard.linear.dbias = nullptr;
        const std::vector<float> x = columns(X, 0, in, in), dy = columns(DY, 0, out, out);
        std::vector<float> y((size_t)(rows * out));
        ASSERT_OK(
            tv_row_linear_forward(&axis, &shard.linear, rows, x.data(), in, nullptr, y.data()));
        ASSERT_EQ(y_of(1, 2) - value_at(BIAS, 0, 2), y[1 * out + 2]);
        ASSERT_OK(
            tv_row_linear_backward_weight(&axis, &shard.linear, rows, x.data(), in, dy.data()));
        ASSERT_EQ(100, shard.dbias[0]);
    });
}

} // namespace
