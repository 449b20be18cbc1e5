/* cross_entropy_cpu.c -- rows over threads, float exponentials, sums in double lanes of a fixed
 * order. */
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include <math.h>

enum { LANES = 8 };

static float row_max(const float *x, int64_t cols)
{
    float lanes[LANES], top = -INFINITY;
    int64_t i = 0;
    for (int l = 0; l < LANES; l++)
        lanes[l] = -INFINITY;
    for (; i + LANES <= cols; i += LANES) {
#pragma omp simd
        for (int l = 0; l < LANES; l++)
            lanes[l] = x[i + l] > lanes[l] || x[i + l] != x[i + l]
                           ? x[i + l]
                           : lanes[l]; /* a NaN must reach the loss */
    }
    for (; i < cols; i++)
        lanes[0] = x[i] > lanes[0] || x[i] != x[i] ? x[i] : lanes[0];
    for (int l = 0; l < LANES; l++)
        top = lanes[l] > top || lanes[l] != lanes[l] ? lanes[l] : top;
    return top;
}

static double row_sum(const float *x, int64_t cols, float top)
{
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= cols; i += LANES) {
#pragma omp simd
        for (int l = 0; l < LANES; l++)
            lanes[l] += (double)tv_fast_exp(x[i + l] - top);
    }
    for (; i < cols; i++)
        lanes[0] += (double)tv_fast_exp(x[i] - top);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

tv_status_t TV_CPU(cross_entropy_max)(struct tv_stream *stream,
                                      const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++)
        a->row_max[r] = row_max(a->logits + r * a->ld, a->cols);
    return TV_OK;
}

tv_status_t TV_CPU(cross_entropy_sum)(struct tv_stream *stream,
                                      const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *logits = a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        a->row_sum[r] = (float)row_sum(logits, a->cols, a->row_max[r]);
        a->row_target[r] =
            a->targets[r] >= 0 && target >= 0 && target < a->cols ? logits[target] : 0;
    }
    return TV_OK;
}

tv_status_t TV_CPU(cross_entropy_backward)(struct tv_stream *stream,
                                           const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        float *logits = a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        if (a->targets[r] < 0) {
            memset(logits, 0, (size_t)a->cols * sizeof(*logits));
            continue;
        }
        const float lse = a->row_lse[r];
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++)
            logits[c] = tv_fast_exp(logits[c] - lse);
        if (target >= 0 && target < a->cols)
            logits[target] -= 1.0f;
    }
    return TV_OK;
}
