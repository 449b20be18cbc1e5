/* norm_ref.c -- LayerNorm (arXiv:1607.06450) and RMSNorm (arXiv:1910.07467), row by row.
 *
 * LayerNorm backward, with n = (x - mean) rstd and g = dy w: dx = rstd (g - mean(g) - n mean(g n)).
 * RMSNorm: the same without mean(g), with n = x rstd. Gradients of weights are column sums: columns
 * outside, rows inside. */
#include "kernels/kernels_internal.h"
#include <math.h>

tv_status_t tv_layernorm_forward_ref(struct tv_stream *stream, const struct tv_norm_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const float *x = a->x + r * a->cols;
        double sum = 0, squares = 0;
        for (int64_t c = 0; c < a->cols; c++)
            sum += (double)x[c];
        const double mean = sum / (double)a->cols;
        for (int64_t c = 0; c < a->cols; c++)
            squares += ((double)x[c] - mean) * ((double)x[c] - mean);
        const double rstd = 1 / sqrt(squares / (double)a->cols + a->eps);
        for (int64_t c = 0; c < a->cols; c++)
            a->y[r * a->cols + c] =
                (float)(((double)x[c] - mean) * rstd * (double)a->weight[c] + (double)a->bias[c]);
        a->mean[r] = (float)mean;
        a->rstd[r] = (float)rstd;
    }
    return TV_OK;
}

tv_status_t tv_rmsnorm_forward_ref(struct tv_stream *stream, const struct tv_norm_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const float *x = a->x + r * a->cols;
        double squares = 0;
        for (int64_t c = 0; c < a->cols; c++)
            squares += (double)x[c] * (double)x[c];
        const double rstd = 1 / sqrt(squares / (double)a->cols + a->eps);
        for (int64_t c = 0; c < a->cols; c++)
            a->y[r * a->cols + c] = (float)((double)x[c] * rstd * (double)a->weight[c]);
        a->rstd[r] = (float)rstd;
    }
    return TV_OK;
}

/* mean NULL: RMSNorm */
static double normalized(const struct tv_norm_backward_args *a, int64_t r, int64_t c)
{
    const double mean = a->mean != NULL ? (double)a->mean[r] : 0;
    return ((double)a->x[r * a->cols + c] - mean) * (double)a->rstd[r];
}

static void weight_gradients(const struct tv_norm_backward_args *a)
{
    for (int64_t c = 0; c < a->cols; c++) {
        double dweight = 0, dbias = 0;
        for (int64_t r = 0; r < a->rows; r++) {
            dweight += (double)a->dy[r * a->cols + c] * normalized(a, r, c);
            dbias += (double)a->dy[r * a->cols + c];
        }
        a->dweight[c] = (float)((double)a->dweight[c] + dweight);
        if (a->dbias != NULL)
            a->dbias[c] = (float)((double)a->dbias[c] + dbias);
    }
}

static void input_gradient(const struct tv_norm_backward_args *a, int64_t r)
{
    const float *dy = a->dy + r * a->cols;
    float *dx = a->dx + r * a->cols;
    double mean_g = 0, mean_gn = 0;
    for (int64_t c = 0; c < a->cols; c++) {
        const double g = (double)dy[c] * (double)a->weight[c];
        mean_g += a->mean != NULL ? g : 0;
        mean_gn += g * normalized(a, r, c);
    }
    mean_g /= (double)a->cols;
    mean_gn /= (double)a->cols;
    for (int64_t c = 0; c < a->cols; c++) {
        const double g = (double)dy[c] * (double)a->weight[c];
        const double d = (double)a->rstd[r] * (g - mean_g - normalized(a, r, c) * mean_gn);
        dx[c] = (float)(a->add_dx ? (double)dx[c] + d : d);
    }
}

static tv_status_t norm_backward(const struct tv_norm_backward_args *a)
{
    weight_gradients(a);
    for (int64_t r = 0; r < a->rows; r++)
        input_gradient(a, r);
    return TV_OK;
}

tv_status_t tv_layernorm_backward_ref(struct tv_stream *stream,
                                      const struct tv_norm_backward_args *a)
{
    (void)stream;
    return norm_backward(a);
}

tv_status_t tv_rmsnorm_backward_ref(struct tv_stream *stream, const struct tv_norm_backward_args *a)
{
    (void)stream;
    struct tv_norm_backward_args args = *a;
    args.mean = NULL;
    args.dbias = NULL;
    return norm_backward(&args);
}
