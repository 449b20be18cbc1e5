/* tensor/linear.c -- column- and row-parallel matrices (Shoeybi et al. 2019, arXiv:1909.08053). */
#include "tensor/tensor.h"

/* y[rows, out] = x[rows, in] W (+ bias) */
static tv_status_t multiply(const struct tv_tensor_axis *axis, const struct tv_linear *linear,
                            int64_t rows, const float *x, int64_t ld_x, const float *bias, float *y,
                            int64_t ld_y)
{
    const int is_out_in = linear->layout == TV_WEIGHT_OUT_IN;
    const struct tv_matmul_args args = {
        .m = rows,
        .n = linear->out,
        .k = linear->in,
        .a = x,
        .ld_a = ld_x,
        .b = linear->weight,
        .ld_b = is_out_in ? linear->in : linear->out,
        .trans_b = is_out_in,
        .bias = bias,
        .c = y,
        .ld_c = ld_y,
    };
    return axis->kernels->matmul(axis->stream, &args);
}

/* dx[rows, in] = (+=) dy[rows, out] W^T */
static tv_status_t input_gradient(const struct tv_tensor_axis *axis, const struct tv_linear *linear,
                                  int64_t rows, const float *dy, int64_t ld_dy, int add_dx,
                                  float *dx, int64_t ld_dx)
{
    const int is_out_in = linear->layout == TV_WEIGHT_OUT_IN;
    const struct tv_matmul_args args = {
        .m = rows,
        .n = linear->in,
        .k = linear->out,
        .a = dy,
        .ld_a = ld_dy,
        .b = linear->weight,
        .ld_b = is_out_in ? linear->in : linear->out,
        .trans_b = !is_out_in,
        .accumulate = add_dx,
        .c = dx,
        .ld_c = ld_dx,
    };
    return axis->kernels->matmul(axis->stream, &args);
}

tv_status_t tv_column_linear_forward(const struct tv_tensor_axis *axis,
                                     const struct tv_linear *linear, int64_t rows, const float *x,
                                     float *y, int64_t ld_y)
{
    return multiply(axis, linear, rows, x, linear->in, linear->bias, y, ld_y);
}

tv_status_t tv_column_linear_backward_input(const struct tv_tensor_axis *axis,
                                            const struct tv_linear *linear, int64_t rows,
                                            const float *dy, int64_t ld_dy, int add_dx, float *dx)
{
    return input_gradient(axis, linear, rows, dy, ld_dy, add_dx, dx, linear->in);
}

tv_status_t tv_row_linear_forward(const struct tv_tensor_axis *axis, const struct tv_linear *linear,
                                  int64_t rows, const float *x, int64_t ld_x, float *room, float *y)
{
    /* The bias enters the sum once: through rank 0's part. */
    const float *bias = tv_comm_rank(axis->comm) == 0 ? linear->bias : NULL;
    float *partial = axis->is_sequence_parallel ? room : y;
    TV_TRY(multiply(axis, linear, rows, x, ld_x, bias, partial, linear->out));
    return tv_tensor_sum_rows(axis, rows, linear->out, partial, y);
}

tv_status_t tv_row_linear_backward_input(const struct tv_tensor_axis *axis,
                                         const struct tv_linear *linear, int64_t rows,
                                         const float *dy, float *dx, int64_t ld_dx)
{
    return input_gradient(axis, linear, rows, dy, linear->out, 0, dx, ld_dx);
}

/* dweight += x^T dy, [in, out], or its transpose */
static tv_status_t weight_gradient(const struct tv_tensor_axis *axis,
                                   const struct tv_linear *linear, int64_t rows, const float *x,
                                   int64_t ld_x, const float *dy, int64_t ld_dy)
{
    const int is_out_in = linear->layout == TV_WEIGHT_OUT_IN;
    const struct tv_matmul_args args = {
        .m = is_out_in ? linear->out : linear->in,
        .n = is_out_in ? linear->in : linear->out,
        .k = rows,
        .a = is_out_in ? dy : x,
        .ld_a = is_out_in ? ld_dy : ld_x,
        .trans_a = 1,
        .b = is_out_in ? x : dy,
        .ld_b = is_out_in ? ld_x : ld_dy,
        .accumulate = 1,
        .c = linear->dweight,
        .ld_c = is_out_in ? linear->in : linear->out,
    };
    return axis->kernels->matmul(axis->stream, &args);
}

/* dbias += column sums of dy[rows, out] */
static tv_status_t bias_gradient(const struct tv_tensor_axis *axis, const struct tv_linear *linear,
                                 int64_t rows, const float *dy, int64_t ld_dy)
{
    if (linear->dbias == NULL)
        return TV_OK;
    const struct tv_bias_backward_args bias = {
        .rows = rows, .cols = linear->out, .ld_dy = ld_dy, .dy = dy, .dbias = linear->dbias};
    return axis->kernels->bias_backward(axis->stream, &bias);
}

tv_status_t tv_column_linear_backward_weight(const struct tv_tensor_axis *axis,
                                             const struct tv_linear *linear, int64_t rows,
                                             const float *x, const float *dy, int64_t ld_dy)
{
    TV_TRY(weight_gradient(axis, linear, rows, x, linear->in, dy, ld_dy));
    return bias_gradient(axis, linear, rows, dy, ld_dy);
}

tv_status_t tv_row_linear_backward_weight(const struct tv_tensor_axis *axis,
                                          const struct tv_linear *linear, int64_t rows,
                                          const float *x, int64_t ld_x, const float *dy)
{
    const struct tv_row_shard own = tv_tensor_own_rows(axis, rows);
    TV_TRY(weight_gradient(axis, linear, rows, x, ld_x, dy, linear->out));
    return bias_gradient(axis, linear, own.num, dy + own.first * linear->out, linear->out);
}
