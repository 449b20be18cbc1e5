/* dropout_cpu.c -- rows over threads, 64 columns at a time. */
#include "kernels/dropout/dropout_internal.h"
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"

static void drop_row(const struct tv_dropout_args *a, int64_t row)
{
    float factor[TV_DROPOUT_COLUMNS];
    for (int64_t from = 0; from < a->cols; from += TV_DROPOUT_COLUMNS) {
        const int64_t rest = a->cols - from;
        const int64_t cols = rest < TV_DROPOUT_COLUMNS ? rest : TV_DROPOUT_COLUMNS;
        const tv_element_t *x = (const tv_element_t *)a->x + row * a->cols + from;
        tv_element_t *y = (tv_element_t *)a->y + row * a->cols + from;
        tv_dropout_factors(&a->dropout, row, 0, from, factor);
#pragma omp simd
        for (int64_t c = 0; c < cols; c++)
            y[c] = tv_store(tv_load(x[c]) * factor[c]);
    }
}

tv_status_t TV_CPU(dropout)(struct tv_stream *stream, const struct tv_dropout_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++)
        drop_row(a, r);
    return TV_OK;
}
