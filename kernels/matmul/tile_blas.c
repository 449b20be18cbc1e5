/* tile_blas.c -- products of tiles by the BLAS, exponentials as compilers make them. */
#include "kernels/math_internal.h"
#include "kernels/matmul/product_internal.h"
#include "kernels/matmul/tile_internal.h"

static void multiply_rows(const struct tv_tile_args *t, int64_t row, int64_t rows)
{
    const struct tv_tile_steps steps = tv_tile_steps_of(t, row, rows);
    float *c = t->c + row * t->ld_c;
    const struct tv_product_args product = {.m = rows,
                                            .n = t->n,
                                            .k = steps.end - steps.begin,
                                            .a = t->trans_a ? t->a + steps.begin * t->ld_a + row
                                                            : t->a + row * t->ld_a + steps.begin,
                                            .ld_a = t->ld_a,
                                            .b = t->b + steps.begin * t->ld_b,
                                            .ld_b = t->ld_b,
                                            .c = c,
                                            .ld_c = t->ld_c,
                                            .trans_a = t->trans_a,
                                            .init = t->accumulate ? c : NULL,
                                            .ld_init = t->ld_c};
    tv_product_blas(&product);
}

static void product(const struct tv_tile_args *t)
{
    const int64_t step = t->shape == TV_TILE_WHOLE || t->m < TV_TILE_STEP ? t->m : TV_TILE_STEP;
    for (int64_t row = 0; row < t->m; row += step)
        multiply_rows(t, row, t->m - row < step ? t->m - row : step);
}

static void exponentials(const struct tv_tile_strip *t)
{
    for (int64_t j = 0; j < t->rows; j++) {
        float *x = t->x + j * t->ld;
#pragma omp simd
        for (int i = 0; i < TV_TILE_STEP; i++) {
            x[i] = tv_fast_exp2(x[i] - t->shift[i]);
            t->sum[i] += x[i];
        }
    }
}

static void weights(const struct tv_tile_row *t)
{
#pragma omp simd
    for (int64_t j = 0; j < t->n; j++) {
        const float factor = t->factor != NULL ? t->factor[j] : 1;
        const float p = tv_fast_exp2(t->p[j] - t->lse2);
        t->ds[j] = p * (t->ds[j] * factor - t->delta) * t->scale;
        t->p[j] = p * factor;
    }
}

static void turn(const struct tv_tile_turn *t)
{
    for (int64_t i = 0; i < (t->rows + TV_TILE_STEP - 1) / TV_TILE_STEP * TV_TILE_STEP; i++) {
        for (int64_t d = 0; d < t->cols; d++)
            t->to[d * t->ld_to + i] = i < t->rows ? t->from[i * t->ld_from + d] * t->scale : 0;
    }
}

const struct tv_tiles tv_tiles_blas = {product, exponentials, weights, turn};
