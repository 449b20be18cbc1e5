/* tile_blas.c -- products of tiles by the BLAS. */
#include "kernels/matmul/product_internal.h"
#include "kernels/matmul/tile_internal.h"
#include <stddef.h>

void tv_tile_product_blas(const struct tv_tile_args *t)
{
    const struct tv_product_args product = {.m = t->m,
                                            .n = t->n,
                                            .k = t->k,
                                            .a = t->a,
                                            .ld_a = t->ld_a,
                                            .b = t->b,
                                            .ld_b = t->ld_b,
                                            .c = t->c,
                                            .ld_c = t->ld_c,
                                            .trans_a = t->trans_a,
                                            .init = t->accumulate ? t->c : NULL,
                                            .ld_init = t->ld_c};
    tv_product_blas(&product);
}
