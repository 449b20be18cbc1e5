/* kernels/matmul/matmul_internal.h -- how a product is divided among threads. */
#ifndef TV_KERNELS_MATMUL_INTERNAL_H
#define TV_KERNELS_MATMUL_INTERNAL_H
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include <inttypes.h>

/* c[rows, cols] of the block that starts at (i, j) */
typedef void (*tv_matmul_block_fn)(const struct tv_matmul_args *a, int64_t i, int64_t j,
                                   int64_t rows, int64_t cols);

/* Every thread one block of rows or columns of c. */
static inline tv_status_t tv_matmul_by_threads(struct tv_stream *stream,
                                               const struct tv_matmul_args *a,
                                               tv_matmul_block_fn block)
{
    const int64_t largest = INT32_MAX;
    if (a->m > largest || a->n > largest || a->k > largest || a->ld_a > largest ||
        a->ld_b > largest || a->ld_c > largest)
        return TV_ERR(TV_UNSUPPORTED,
                      "a matrix product of %" PRId64 " x %" PRId64 " x %" PRId64 " is beyond 2^31",
                      a->m, a->n, a->k);
    const int threads = tv_threads_for(stream, (a->m * a->n + 15) / 16 * a->k);
    if (threads == 1) {
        block(a, 0, 0, a->m, a->n);
        return TV_OK;
    }
    const int by_rows = a->m >= a->n;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        int64_t first;
        const int64_t count = tv_share(by_rows ? a->m : a->n, 16, threads, t, &first);
        if (by_rows)
            block(a, first, 0, count, a->n);
        else
            block(a, 0, first, a->m, count);
    }
    return TV_OK;
}
#endif
