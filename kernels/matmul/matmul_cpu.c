/* matmul_cpu.c -- tv_sgemm on one thread per call; our threads each take a block of c.
 *
 * Splitting outside the library keeps one pool of threads per rank and the same bits for the same
 * number of threads.
 *
 * A block of few rows and columns makes the library pack a and b for little work: where k is long beside m and n (the
 * gradient into a head, whose k is the vocabulary), the threads take parts of k of the whole c, and add them up in
 * order. One core of a Xeon, 256 x 384 x 50272: 148 GFLOP/s of half of k, 136 of half of the columns. */
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

enum { DEEP_COUNT = 1 << 18 }; /* floats of all partial sums but the first: 1 MiB of the stack */

static int is_deep(const struct tv_matmul_args *a, int threads)
{
    enum { LEAST_DEPTH = 4096 };
    return threads > 1 && a->k >= LEAST_DEPTH && a->k / 4 >= a->m + a->n &&
           a->m * a->n <= DEEP_COUNT / (threads - 1);
}

/* Thread t's part of k; the first writes to c, the others to [m, n] of the partial sums. */
static struct tv_matmul_args part_of_depth(const struct tv_matmul_args *a, int threads, int t,
                                           float *sums)
{
    enum { GRAIN = 16 };
    const float *left = a->a, *right = a->b;
    struct tv_matmul_args part = *a;
    int64_t first;
    part.k = tv_share(a->k, GRAIN, threads, t, &first);
    part.a = left + (a->trans_a ? first * a->ld_a : first);
    part.b = right + (a->trans_b ? first : first * a->ld_b);
    if (t > 0) {
        part.bias = NULL;
        part.accumulate = 0;
        part.c = sums + (t - 1) * a->m * a->n;
        part.ld_c = a->n;
    }
    return part;
}

static void multiply_deep(const struct tv_matmul_args *a, int threads)
{
    float sums[DEEP_COUNT];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        const struct tv_matmul_args part = part_of_depth(a, threads, t, sums);
        block(&part, 0, 0, a->m, a->n);
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < a->m; r++) {
        float *c = (float *)a->c + r * a->ld_c;
        for (int t = 1; t < threads; t++) {
            const float *sum = sums + ((t - 1) * a->m + r) * a->n;
            for (int64_t n = 0; n < a->n; n++)
                c[n] += sum[n];
        }
    }
}

tv_status_t TV_CPU(matmul)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    const int threads = tv_matmul_threads(stream, a);
    TV_TRY(tv_matmul_check(a));
    if (a->k > 0 && !is_deep(a, threads))
        return tv_matmul_by_threads(stream, a, block);
    if (a->k > 0)
        multiply_deep(a, threads);
    else
        clear_or_keep(a);
    return TV_OK;
}

tv_status_t TV_CPU(matmul_to_f32)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    return TV_CPU(matmul)(stream, a);
}
