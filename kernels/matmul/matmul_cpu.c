/* matmul_cpu.c -- tv_sgemm on one thread per call; our threads each take a block of c.
 *
 * Splitting outside the library keeps one pool of threads per rank and the same bits for the same
 * number of threads. */
#include "kernels/matmul/matmul_internal.h"

static void block(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows, int64_t cols)
{
    const float *left = a->a, *right = a->b, *bias = a->bias;
    float *c = (float *)a->c + i * a->ld_c + j;
    float beta = a->accumulate ? 1.0f : 0.0f;
    if (bias != NULL) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t n = 0; n < cols; n++)
                c[r * a->ld_c + n] = a->accumulate ? c[r * a->ld_c + n] + bias[j + n] : bias[j + n];
        beta = 1.0f;
    }
    if (rows == 0 || cols == 0)
        return;
    tv_sgemm(a->trans_a, a->trans_b, rows, cols, a->k, 1.0f,
             a->trans_a ? left + i : left + i * a->ld_a, a->ld_a,
             a->trans_b ? right + j * a->ld_b : right + j, a->ld_b, beta, c, a->ld_c);
}

static void clear_or_keep(const struct tv_matmul_args *a)
{
    const float *bias = a->bias;
    float *c = a->c;
    for (int64_t r = 0; r < a->m; r++) {
        for (int64_t n = 0; n < a->n; n++)
            c[r * a->ld_c + n] =
                (a->accumulate ? c[r * a->ld_c + n] : 0) + (bias != NULL ? bias[n] : 0);
    }
}

tv_status_t TV_CPU(matmul)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    if (a->k > 0)
        return tv_matmul_by_threads(stream, a, block);
    clear_or_keep(a);
    return TV_OK;
}

tv_status_t TV_CPU(matmul_to_f32)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    return TV_CPU(matmul)(stream, a);
}
