/* embedding_cpu.c -- forward by rows; backward by blocks of columns, each thread walking all rows
 * in order, so that repeated ids are added in the same order whatever the number of threads. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"

tv_status_t TV_CPU(embedding_forward)(struct tv_stream *stream, const struct tv_embedding_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const int64_t id = a->ids[r] - a->first;
        tv_element_t *y = (tv_element_t *)a->y + r * a->cols;
        if (id >= 0 && id < a->num) {
            const tv_element_t *row = (const tv_element_t *)a->table + id * a->cols;
            for (int64_t c = 0; c < a->cols; c++)
                y[c] = a->accumulate ? tv_store(tv_load(y[c]) + tv_load(row[c])) : row[c];
        } else if (!a->accumulate) {
            memset(y, 0, (size_t)a->cols * sizeof(*y));
        }
    }
    return TV_OK;
}

tv_status_t TV_CPU(embedding_backward)(struct tv_stream *stream,
                                       const struct tv_embedding_backward_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int t = 0; t < threads; t++) {
        int64_t first;
        const int64_t cols = tv_share(a->cols, 16, threads, t, &first);
        for (int64_t r = 0; r < a->rows; r++) {
            const int64_t id = a->ids[r] - a->first;
            if (id < 0 || id >= a->num)
                continue;
            float *row = a->dtable + id * a->cols + first;
            const tv_element_t *dy = (const tv_element_t *)a->dy + r * a->cols + first;
            for (int64_t c = 0; c < cols; c++)
                row[c] += tv_load(dy[c]);
        }
    }
    return TV_OK;
}
