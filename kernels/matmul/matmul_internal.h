/* kernels/matmul/matmul_internal.h -- how a product is divided among threads. */
#ifndef TV_KERNELS_MATMUL_INTERNAL_H
#define TV_KERNELS_MATMUL_INTERNAL_H
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include <inttypes.h>

/* c[rows, cols] of the block that starts at (i, j) */
typedef void (*tv_matmul_block_fn)(const struct tv_matmul_args *a, int64_t i, int64_t j,
                                   int64_t rows, int64_t cols);

/* Rows of the grid of blocks, one per thread, whose blocks have the least rows and columns together: those of a and
 * b that each thread reads and packs. Divides `threads`; among equals the most rows where m >= n. */
static inline int tv_grid_rows(int64_t m, int64_t n, int threads)
{
    int best = 1;
    int64_t least = INT64_MAX;
    for (int rows = 1; rows <= threads; rows++) {
        const int cols = threads / rows;
        const int64_t edge = (m + rows - 1) / rows + (n + cols - 1) / cols;
        if (threads % rows == 0 && (edge < least || (edge == least && m >= n))) {
            least = edge;
            best = rows;
        }
    }
    return best;
}

/* Errors: TV_UNSUPPORTED, a size that the library cannot count. */
static inline tv_status_t tv_matmul_check(const struct tv_matmul_args *a)
{
    const int64_t largest = INT32_MAX;
    if (a->m > largest || a->n > largest || a->k > largest || a->ld_a > largest ||
        a->ld_b > largest || a->ld_c > largest)
        return TV_ERR(TV_UNSUPPORTED,
                      "a matrix product of %" PRId64 " x %" PRId64 " x %" PRId64 " is beyond 2^31",
                      a->m, a->n, a->k);
    return TV_OK;
}

static inline int tv_matmul_threads(const struct tv_stream *stream, const struct tv_matmul_args *a)
{
    return tv_threads_for(stream, (a->m * a->n + 15) / 16 * a->k);
}

/* Every thread one block of c. */
static inline tv_status_t tv_matmul_by_threads(struct tv_stream *stream,
                                               const struct tv_matmul_args *a,
                                               tv_matmul_block_fn block)
{
    TV_TRY(tv_matmul_check(a));
    const int threads = tv_matmul_threads(stream, a);
    if (threads == 1) {
        block(a, 0, 0, a->m, a->n);
        return TV_OK;
    }
    const int grid_rows = tv_grid_rows(a->m, a->n, threads), grid_cols = threads / grid_rows;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        int64_t i, j;
        const int64_t rows = tv_share(a->m, 16, grid_rows, t / grid_cols, &i);
        const int64_t cols = tv_share(a->n, 16, grid_cols, t % grid_cols, &j);
        block(a, i, j, rows, cols);
    }
    return TV_OK;
}
#endif
