/* elementwise_ref.c -- sums of two tensors, with and without factors, column sums, sum of squares. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"

tv_status_t TV_REF(add)(struct tv_stream *stream, const struct tv_add_args *a)
{
    (void)stream;
    const tv_element_t *x = a->a, *b = a->b;
    tv_element_t *y = a->y;
    for (int64_t i = 0; i < a->count; i++)
        y[i] = tv_store(tv_load(x[i]) + tv_load(b[i]));
    return TV_OK;
}

tv_status_t TV_REF(axpby)(struct tv_stream *stream, const struct tv_axpby_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const float *x = a->x + r * a->ld_x;
        float *y = a->y + r * a->ld_y;
        for (int64_t c = 0; c < a->cols; c++)
            y[c] = (float)(a->alpha * (double)x[c] + (a->beta == 0 ? 0 : a->beta * (double)y[c]));
    }
    return TV_OK;
}

tv_status_t TV_REF(bias_backward)(struct tv_stream *stream, const struct tv_bias_backward_args *a)
{
    (void)stream;
    const tv_element_t *dy = a->dy;
    for (int64_t c = 0; c < a->cols; c++) {
        double sum = a->accumulate ? (double)a->dbias[c] : 0;
        for (int64_t r = 0; r < a->rows; r++)
            sum += (double)tv_load(dy[r * a->ld_dy + c]);
        a->dbias[c] = (float)sum;
    }
    return TV_OK;
}

tv_status_t TV_REF(square_sum)(struct tv_stream *stream, const struct tv_square_sum_args *a)
{
    (void)stream;
    for (int k = 0; k < a->num; k++) {
        const float *x = a->of[k].x;
        double sum = 0;
        for (int64_t i = 0; i < a->of[k].count; i++)
            sum += (double)x[i] * (double)x[i];
        a->sums_out[k] = sum;
    }
    return TV_OK;
}
