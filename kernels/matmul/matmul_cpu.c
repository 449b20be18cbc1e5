/* matmul_cpu.c -- one product per thread (product_internal.h), each of a block of c. */
#include "kernels/matmul/matmul_internal.h"
#include "kernels/matmul/product_internal.h"

static void block(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows, int64_t cols)
{
    const float *left = a->a, *right = a->b, *bias = a->bias;
    float *c = (float *)a->c + i * a->ld_c + j;
    const struct tv_product_args product = {
        .m = rows,
        .n = cols,
        .k = a->k,
        .a = a->trans_a ? left + i : left + i * a->ld_a,
        .ld_a = a->ld_a,
        .b = a->trans_b ? right + j * a->ld_b : right + j,
        .ld_b = a->ld_b,
        .c = c,
        .ld_c = a->ld_c,
        .trans_a = a->trans_a,
        .trans_b = a->trans_b,
        .init = a->accumulate  ? c
                : bias != NULL ? bias + j
                               : NULL,
        .ld_init = a->accumulate ? a->ld_c : 0,
    };
    for (int64_t r = 0; a->accumulate && bias != NULL && r < rows; r++)
        for (int64_t n = 0; n < cols; n++)
            c[r * a->ld_c + n] += bias[j + n];
    tv_product(0)(&product);
}

tv_status_t TV_CPU(matmul)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    return tv_matmul_by_threads(stream, a, block);
}

tv_status_t TV_CPU(matmul_to_f32)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    return TV_CPU(matmul)(stream, a);
}
