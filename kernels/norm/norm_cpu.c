/* norm_cpu.c -- rows over threads; sums in double, in vector lanes of a fixed order; weight
 * gradients over blocks of columns, so that no two threads add to one weight. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/reduce_internal.h"

enum { COLUMNS = 64 };

/* sum of (x - shift)^2 */
static double square_sum(const tv_element_t *x, int64_t count, double shift)
{
    double lanes[TV_LANES] = {0};
    int64_t i = 0;
    for (; i + TV_LANES <= count; i += TV_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_LANES; l++) {
            const double d = (double)tv_load(x[i + l]) - shift;
            lanes[l] += d * d;
        }
    }
    for (; i < count; i++) {
        const double d = (double)tv_load(x[i]) - shift;
        lanes[0] += d * d;
    }
    return tv_fold(lanes);
}

/* Row r of what is normalized: of x, or of the sum, which is written, and then in the cache. */
static const tv_element_t *row_of(const struct tv_norm_args *a, int64_t r)
{
    const tv_element_t *x = (const tv_element_t *)a->x + r * a->cols;
    if (a->added == NULL)
        return x;
    const tv_element_t *added = (const tv_element_t *)a->added + r * a->cols;
    tv_element_t *sum = (tv_element_t *)a->sum + r * a->cols;
#pragma omp simd
    for (int64_t c = 0; c < a->cols; c++)
        sum[c] = tv_store(tv_load(x[c]) + tv_load(added[c]));
    return sum;
}

static void forward_row(const struct tv_norm_args *a, int64_t r, int has_mean)
{
    const tv_element_t *x = row_of(a, r), *weight = a->weight, *bias = a->bias;
    tv_element_t *y = (tv_element_t *)a->y + r * a->cols;
    const double n = (double)a->cols;
    const double mean = has_mean ? tv_stored_row_sum(x, a->cols) / n : 0;
    const double rstd = 1 / sqrt(square_sum(x, a->cols, mean) / n + a->eps);
    const float shift = (float)mean, scale = (float)rstd;
    a->rstd[r] = scale;
    if (!has_mean) {
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++)
            y[c] = tv_store(tv_load(x[c]) * scale * tv_load(weight[c]));
        return;
    }
    a->mean[r] = shift;
#pragma omp simd
    for (int64_t c = 0; c < a->cols; c++)
        y[c] = tv_store((tv_load(x[c]) - shift) * scale * tv_load(weight[c]) + tv_load(bias[c]));
}

static tv_status_t forward(struct tv_stream *stream, const struct tv_norm_args *a, int has_mean)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++)
        forward_row(a, r, has_mean);
    return TV_OK;
}

tv_status_t TV_CPU(layernorm_forward)(struct tv_stream *stream, const struct tv_norm_args *a)
{
    return forward(stream, a, 1);
}

tv_status_t TV_CPU(rmsnorm_forward)(struct tv_stream *stream, const struct tv_norm_args *a)
{
    return forward(stream, a, 0);
}

static void backward_row(const struct tv_norm_backward_args *a, int64_t r, int has_mean)
{
    const tv_element_t *dy = (const tv_element_t *)a->dy + r * a->cols,
                       *x = (const tv_element_t *)a->x + r * a->cols, *w = a->weight;
    tv_element_t *dx = (tv_element_t *)a->dx + r * a->cols;
    const float mean = has_mean ? a->mean[r] : 0, rstd = a->rstd[r];
    double g_lanes[TV_LANES] = {0}, gn_lanes[TV_LANES] = {0};
    int64_t i = 0;
    for (; i + TV_LANES <= a->cols; i += TV_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_LANES; l++) {
            const double g = (double)tv_load(dy[i + l]) * (double)tv_load(w[i + l]);
            g_lanes[l] += g;
            gn_lanes[l] += g * (double)((tv_load(x[i + l]) - mean) * rstd);
        }
    }
    for (; i < a->cols; i++) {
        const double g = (double)tv_load(dy[i]) * (double)tv_load(w[i]);
        g_lanes[0] += g;
        gn_lanes[0] += g * (double)((tv_load(x[i]) - mean) * rstd);
    }
    const float mean_g = has_mean ? (float)(tv_fold(g_lanes) / (double)a->cols) : 0;
    const float mean_gn = (float)(tv_fold(gn_lanes) / (double)a->cols);
    if (a->add_dx) {
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++)
            dx[c] = tv_store(tv_load(dx[c]) + rstd * (tv_load(dy[c]) * tv_load(w[c]) - mean_g -
                                                      (tv_load(x[c]) - mean) * rstd * mean_gn));
    } else {
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++)
            dx[c] = tv_store(rstd * (tv_load(dy[c]) * tv_load(w[c]) - mean_g -
                                     (tv_load(x[c]) - mean) * rstd * mean_gn));
    }
}

static void weight_columns(const struct tv_norm_backward_args *a, int64_t first, int has_mean)
{
    double dweight[COLUMNS] = {0}, dbias[COLUMNS] = {0};
    const int64_t cols = a->cols - first < COLUMNS ? a->cols - first : COLUMNS;
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *dy = (const tv_element_t *)a->dy + r * a->cols + first,
                           *x = (const tv_element_t *)a->x + r * a->cols + first;
        const float mean = has_mean ? a->mean[r] : 0, rstd = a->rstd[r];
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) {
            dweight[c] += (double)tv_load(dy[c]) * (double)((tv_load(x[c]) - mean) * rstd);
            dbias[c] += (double)tv_load(dy[c]);
        }
    }
    for (int64_t c = 0; c < cols; c++) {
        float *to = a->dweight + first + c;
        *to = (float)((a->accumulate ? (double)*to : 0) + dweight[c]);
        if (!has_mean)
            continue;
        to = a->dbias + first + c;
        *to = (float)((a->accumulate ? (double)*to : 0) + dbias[c]);
    }
}

static tv_status_t backward(struct tv_stream *stream, const struct tv_norm_backward_args *a,
                            int has_mean)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t first = 0; first < a->cols; first += COLUMNS)
        weight_columns(a, first, has_mean);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++)
        backward_row(a, r, has_mean);
    return TV_OK;
}

tv_status_t TV_CPU(layernorm_backward)(struct tv_stream *stream,
                                       const struct tv_norm_backward_args *a)
{
    return backward(stream, a, 1);
}

tv_status_t TV_CPU(rmsnorm_backward)(struct tv_stream *stream,
                                     const struct tv_norm_backward_args *a)
{
    return backward(stream, a, 0);
}
