/* matmul_bf16_cpu.c -- products of bf16 matrices: panels of a and b become floats on the stack, are
 * multiplied, and are added up over k in fp32, on the stack or in an fp32 c; a bf16 c is
 * rounded once.
 *
 * A panel of a is converted once per COLS columns of c, one of b once per ROWS rows: one conversion
 * for a hundred multiplications and more. */
#include "kernels/element_internal.h"
#include "kernels/matmul/matmul_internal.h"
#include "kernels/matmul/product_internal.h"

/* 0.9 MB of stack, and the product behind it needs as much: a thread may have 2 MB (where `ulimit -s` is unlimited). */
enum { ROWS = 192, COLS = 384, DEPTH = 256 };

/* x[rows, cols] with stride ld -> y, dense */
static void load_panel(const tv_element_t *x, int64_t ld, int64_t rows, int64_t cols, float *y)
{
    for (int64_t r = 0; r < rows; r++) {
#pragma omp simd
        for (int64_t c = 0; c < cols; c++)
            y[r * cols + c] = tv_load(x[r * ld + c]);
    }
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* sum[rows, cols] with stride ld += op(a) op(b), of the tile of c that starts at (i, j) */
static void add_products(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows,
                         int64_t cols, float *sum, int64_t ld)
{
    const tv_element_t *left = a->a, *right = a->b;
    float panel_a[ROWS * DEPTH], panel_b[DEPTH * COLS];
    for (int64_t k = 0; k < a->k; k += DEPTH) {
        const int64_t depth = least(a->k - k, DEPTH);
        if (a->trans_a)
            load_panel(left + k * a->ld_a + i, a->ld_a, depth, rows, panel_a);
        else
            load_panel(left + i * a->ld_a + k, a->ld_a, rows, depth, panel_a);
        if (a->trans_b)
            load_panel(right + j * a->ld_b + k, a->ld_b, cols, depth, panel_b);
        else
            load_panel(right + k * a->ld_b + j, a->ld_b, depth, cols, panel_b);
        const struct tv_product_args product = {.m = rows,
                                                .n = cols,
                                                .k = depth,
                                                .a = panel_a,
                                                .ld_a = a->trans_a ? rows : depth,
                                                .b = panel_b,
                                                .ld_b = a->trans_b ? depth : cols,
                                                .c = sum,
                                                .ld_c = ld,
                                                .trans_a = a->trans_a,
                                                .trans_b = a->trans_b,
                                                .init = sum,
                                                .ld_init = ld};
        tv_product(0)(&product);
    }
}

/* What the products are added to. */
static void start_row(const struct tv_matmul_args *a, int64_t j, int64_t cols, float *sum)
{
    const tv_element_t *bias = a->bias;
    for (int64_t n = 0; n < cols && !a->accumulate; n++)
        sum[n] = 0;
    for (int64_t n = 0; n < cols && bias != NULL; n++)
        sum[n] += tv_load(bias[j + n]);
}

static void stored_tile(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows,
                        int64_t cols)
{
    tv_element_t *c = (tv_element_t *)a->c + i * a->ld_c + j;
    float sum[ROWS * COLS];
    if (a->accumulate)
        load_panel(c, a->ld_c, rows, cols, sum);
    for (int64_t r = 0; r < rows; r++)
        start_row(a, j, cols, sum + r * cols);
    add_products(a, i, j, rows, cols, sum, cols);
    for (int64_t r = 0; r < rows; r++) {
#pragma omp simd
        for (int64_t n = 0; n < cols; n++)
            c[r * a->ld_c + n] = tv_store(sum[r * cols + n]);
    }
}

static void f32_tile(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows,
                     int64_t cols)
{
    float *c = (float *)a->c + i * a->ld_c + j;
    for (int64_t r = 0; r < rows; r++)
        start_row(a, j, cols, c + r * a->ld_c);
    add_products(a, i, j, rows, cols, c, a->ld_c);
}

static void by_tiles(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows,
                     int64_t cols, tv_matmul_block_fn tile)
{
    for (int64_t n = 0; n < cols; n += COLS) {
        for (int64_t r = 0; r < rows; r += ROWS)
            tile(a, i + r, j + n, least(rows - r, ROWS), least(cols - n, COLS));
    }
}

static void stored_block(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows,
                         int64_t cols)
{
    by_tiles(a, i, j, rows, cols, stored_tile);
}

static void f32_block(const struct tv_matmul_args *a, int64_t i, int64_t j, int64_t rows,
                      int64_t cols)
{
    by_tiles(a, i, j, rows, cols, f32_tile);
}

tv_status_t TV_CPU(matmul)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    return tv_matmul_by_threads(stream, a, stored_block);
}

tv_status_t TV_CPU(matmul_to_f32)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    return tv_matmul_by_threads(stream, a, f32_block);
}
