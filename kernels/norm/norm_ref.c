/* norm_ref.c -- LayerNorm (arXiv:1607.06450) and RMSNorm (arXiv:1910.07467), row by row.
 *
 * LayerNorm backward, with n = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - n mean(g n)).
 * RMSNorm: the same without mean(g), with n = x rstd. Gradients of weights are column sums: columns
 * outside, rows inside. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include <math.h>

/* Row r of what is normalized: of x, or of the sum, which is written. */
static const tv_element_t *row_of(const struct tv_norm_args *a, int64_t r)
{
    const tv_element_t *x = (const tv_element_t *)a->x + r * a->cols;
    if (a->added == NULL)
        return x;
    const tv_element_t *added = (const tv_element_t *)a->added + r * a->cols;
    tv_element_t *sum = (tv_element_t *)a->sum + r * a->cols;
    for (int64_t c = 0; c < a->cols; c++)
        sum[c] = tv_store(tv_load(x[c]) + tv_load(added[c]));
    return sum;
}

tv_status_t TV_REF(layernorm_forward)(struct tv_stream *stream, const struct tv_norm_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *x = row_of(a, r), *weight = a->weight, *bias = a->bias;
        tv_element_t *y = (tv_element_t *)a->y + r * a->cols;
        double sum = 0, squares = 0;
        for (int64_t c = 0; c < a->cols; c++)
            sum += (double)tv_load(x[c]);
        const double mean = sum / (double)a->cols;
        for (int64_t c = 0; c < a->cols; c++)
            squares += ((double)tv_load(x[c]) - mean) * ((double)tv_load(x[c]) - mean);
        const double rstd = 1 / sqrt(squares / (double)a->cols + a->eps);
        for (int64_t c = 0; c < a->cols; c++)
            y[c] = tv_store(
                (float)(((double)tv_load(x[c]) - mean) * rstd * (double)tv_load(weight[c]) +
                        (double)tv_load(bias[c])));
        a->mean[r] = (float)mean;
        a->rstd[r] = (float)rstd;
    }
    return TV_OK;
}

tv_status_t TV_REF(rmsnorm_forward)(struct tv_stream *stream, const struct tv_norm_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *x = row_of(a, r), *weight = a->weight;
        tv_element_t *y = (tv_element_t *)a->y + r * a->cols;
        double squares = 0;
        for (int64_t c = 0; c < a->cols; c++)
            squares += (double)tv_load(x[c]) * (double)tv_load(x[c]);
        const double rstd = 1 / sqrt(squares / (double)a->cols + a->eps);
        for (int64_t c = 0; c < a->cols; c++)
            y[c] = tv_store((float)((double)tv_load(x[c]) * rstd * (double)tv_load(weight[c])));
        a->rstd[r] = (float)rstd;
    }
    return TV_OK;
}

/* mean NULL: RMSNorm */
static double normalized(const struct tv_norm_backward_args *a, int64_t r, int64_t c)
{
    const double mean = a->mean != NULL ? (double)a->mean[r] : 0;
    const tv_element_t *x = a->x;
    return ((double)tv_load(x[r * a->cols + c]) - mean) * (double)a->rstd[r];
}

static void weight_gradients(const struct tv_norm_backward_args *a)
{
    const tv_element_t *dy = a->dy;
    for (int64_t c = 0; c < a->cols; c++) {
        double dweight = 0, dbias = 0;
        for (int64_t r = 0; r < a->rows; r++) {
            dweight += (double)tv_load(dy[r * a->cols + c]) * normalized(a, r, c);
            dbias += (double)tv_load(dy[r * a->cols + c]);
        }
        a->dweight[c] = (float)((a->accumulate ? (double)a->dweight[c] : 0) + dweight);
        if (a->dbias != NULL)
            a->dbias[c] = (float)((a->accumulate ? (double)a->dbias[c] : 0) + dbias);
    }
}

static void input_gradient(const struct tv_norm_backward_args *a, int64_t r)
{
    const tv_element_t *dy = (const tv_element_t *)a->dy + r * a->cols, *weight = a->weight;
    tv_element_t *dx = (tv_element_t *)a->dx + r * a->cols;
    double mean_g = 0, mean_gn = 0;
    for (int64_t c = 0; c < a->cols; c++) {
        const double g = (double)tv_load(dy[c]) * (double)tv_load(weight[c]);
        mean_g += a->mean != NULL ? g : 0;
        mean_gn += g * normalized(a, r, c);
    }
    mean_g /= (double)a->cols;
    mean_gn /= (double)a->cols;
    for (int64_t c = 0; c < a->cols; c++) {
        const double g = (double)tv_load(dy[c]) * (double)tv_load(weight[c]);
        const double d = (double)a->rstd[r] * (g - mean_g - normalized(a, r, c) * mean_gn);
        dx[c] = tv_store((float)(a->add_dx ? (double)tv_load(dx[c]) + d : d));
    }
}

static tv_status_t norm_backward(const struct tv_norm_backward_args *a)
{
    weight_gradients(a);
    for (int64_t r = 0; r < a->rows; r++)
        input_gradient(a, r);
    return TV_OK;
}

tv_status_t TV_REF(layernorm_backward)(struct tv_stream *stream,
                                       const struct tv_norm_backward_args *a)
{
    (void)stream;
    return norm_backward(a);
}

tv_status_t TV_REF(rmsnorm_backward)(struct tv_stream *stream,
                                     const struct tv_norm_backward_args *a)
{
    (void)stream;
    struct tv_norm_backward_args args = *a;
    args.mean = NULL;
    args.dbias = NULL;
    return norm_backward(&args);
}
