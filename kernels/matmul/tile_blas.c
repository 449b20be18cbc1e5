/* tile_blas.c -- products of tiles by the BLAS. */
#include "kernels/kernels_internal.h"
#include "kernels/matmul/tile_internal.h"

void tv_tile_product_blas(const struct tv_tile_args *t)
{
    if (t->m > 0 && t->n > 0)
        tv_sgemm(t->trans_a, 0, t->m, t->n, t->k, 1.0f, t->a, t->ld_a, t->b, t->ld_b,
                 t->accumulate ? 1.0f : 0.0f, t->c, t->ld_c);
}
