/* cross_entropy_cpu.c -- rows over threads, float exponentials, sums in double lanes of a fixed
 * order. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/reduce_internal.h"

/* Exponentials of several vectors at once, added up in the order of tv_row_sum. */
static double exp_sum(const tv_element_t *x, int64_t cols, float top)
{
    double lanes[TV_LANES] = {0};
    float e[TV_MAX_LANES];
    int64_t i = 0;
    for (; i + TV_MAX_LANES <= cols; i += TV_MAX_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_MAX_LANES; l++)
            e[l] = tv_fast_exp(tv_load(x[i + l]) - top);
        for (int first = 0; first < TV_MAX_LANES; first += TV_LANES) {
#pragma omp simd
            for (int l = 0; l < TV_LANES; l++)
                lanes[l] += (double)e[first + l];
        }
    }
    for (; i < cols; i++)
        lanes[i % TV_LANES] += (double)tv_fast_exp(tv_load(x[i]) - top);
    return tv_fold(lanes);
}

static double rest_sum(const tv_element_t *x, int64_t cols, float top)
{
    double lanes[TV_LANES] = {0};
    int64_t i = 0;
    for (; i + TV_LANES <= cols; i += TV_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_LANES; l++)
            lanes[l] += (double)tv_load(x[i + l]) - (double)top;
    }
    for (; i < cols; i++)
        lanes[0] += (double)tv_load(x[i]) - (double)top;
    return tv_fold(lanes);
}

/* The second and third look at a row find it in the core's cache. */
tv_status_t TV_CPU(cross_entropy_forward)(struct tv_stream *stream,
                                          const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *logits = (const tv_element_t *)a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        const float top = tv_stored_row_max(logits, a->cols);
        a->row_max[r] = a->row_base[r] = top;
        a->row_sum[r] = (float)exp_sum(logits, a->cols, top);
        if (a->row_rest != NULL)
            a->row_rest[r] = (float)rest_sum(logits, a->cols, top);
        a->row_target[r] =
            a->targets[r] >= 0 && target >= 0 && target < a->cols ? tv_load(logits[target]) : 0;
    }
    return TV_OK;
}

tv_status_t TV_CPU(cross_entropy_rebase)(struct tv_stream *stream,
                                         const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows);
    if (a->cols == 0)
        return TV_OK;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const double below = (double)a->row_base[r] - (double)a->row_max[r];
        a->row_sum[r] = (float)((double)a->row_sum[r] * exp(below));
        if (a->row_rest != NULL)
            a->row_rest[r] = (float)((double)a->row_rest[r] + (double)a->cols * below);
    }
    return TV_OK;
}

tv_status_t TV_CPU(cross_entropy_loss)(struct tv_stream *stream,
                                       const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const double max = (double)a->row_max[r], target = (double)a->row_target[r];
        const double lse = max + log((double)a->row_sum[r]);
        double loss = lse - target;
        if (a->row_rest != NULL)
            loss +=
                a->smoothing * (target - max) - a->smoothing_per_column * (double)a->row_rest[r];
        a->row_lse[r] = (float)lse;
        a->row_loss[r] = a->targets[r] < 0 ? 0 : loss;
    }
    return TV_OK;
}

tv_status_t TV_CPU(cross_entropy_backward)(struct tv_stream *stream,
                                           const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        tv_element_t *logits = (tv_element_t *)a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        if (a->padded > a->cols)
            memset(logits + a->cols, 0, (size_t)(a->padded - a->cols) * sizeof(*logits));
        if (a->targets[r] < 0) {
            memset(logits, 0, (size_t)a->cols * sizeof(*logits));
            continue;
        }
        const float lse = a->row_lse[r], everywhere = (float)a->smoothing_per_column;
        const int is_here = target >= 0 && target < a->cols;
        const float logit = is_here ? tv_load(logits[target]) : 0;
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++)
            logits[c] = tv_store(tv_fast_exp(tv_load(logits[c]) - lse) - everywhere);
        if (is_here) /* again, so that it is rounded once */
            logits[target] =
                tv_store(tv_fast_exp(logit - lse) - everywhere - (float)(1 - a->smoothing));
    }
    return TV_OK;
}
