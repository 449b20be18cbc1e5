/* matmul_cpu.c -- tv_sgemm on one thread per call; our threads each take a block of rows or columns
 * of c.
 *
 * Splitting outside the library keeps one pool of threads per rank and the same bits for the same
 * number of threads. */
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include <inttypes.h>

/* c[rows, cols] of the block that starts at (i, j) */
static void block(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows, int64_t cols)
{
    float *c = a->c + i * a->ld_c + j;
    float beta = a->accumulate ? 1.0f : 0.0f;
    if (a->bias != NULL) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t n = 0; n < cols; n++)
                c[r * a->ld_c + n] =
                    a->accumulate ? c[r * a->ld_c + n] + a->bias[j + n] : a->bias[j + n];
        beta = 1.0f;
    }
    if (rows == 0 || cols == 0)
        return;
    tv_sgemm(a->trans_a, a->trans_b, rows, cols, a->k, 1.0f,
             a->trans_a ? a->a + i : a->a + i * a->ld_a, a->ld_a,
             a->trans_b ? a->b + j * a->ld_b : a->b + j, a->ld_b, beta, c, a->ld_c);
}

static void clear_or_keep(const struct tv_matmul_args *a)
{
    for (int64_t r = 0; r < a->m; r++) {
        for (int64_t n = 0; n < a->n; n++)
            a->c[r * a->ld_c + n] =
                (a->accumulate ? a->c[r * a->ld_c + n] : 0) + (a->bias != NULL ? a->bias[n] : 0);
    }
}

tv_status_t TV_CPU(matmul)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    const int64_t largest = INT32_MAX;
    if (a->m > largest || a->n > largest || a->k > largest || a->ld_a > largest ||
        a->ld_b > largest || a->ld_c > largest)
        return TV_ERR(TV_UNSUPPORTED,
                      "a matrix product of %" PRId64 " x %" PRId64 " x %" PRId64 " is beyond 2^31",
                      a->m, a->n, a->k);
    if (a->k == 0) {
        clear_or_keep(a);
        return TV_OK;
    }
    const int threads = tv_threads_for(stream, (a->m * a->n + 15) / 16 * a->k);
    if (threads == 1) {
        block(a, 0, 0, a->m, a->n);
        return tv_sgemm_status();
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
    return tv_sgemm_status();
}
