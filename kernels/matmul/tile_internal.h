/* kernels/matmul/tile_internal.h -- products of tiles: a few dozen rows and columns of floats that lie in the
 * caches, where packing them for a library would cost as much as the product; and the exponentials between them,
 * with fused multiply-add where products have it.
 *
 * Products: c[m, n] = op(a)[m, k] b[k, n] (+ c when accumulate), on the calling thread; n a multiple of TV_TILE_STEP.
 * An element is the sum over k in order, whatever the sizes. trans_a: a is stored [k, m]. */
#ifndef TV_KERNELS_TILE_INTERNAL_H
#define TV_KERNELS_TILE_INTERNAL_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
enum { TV_TILE_STEP = 16 };
struct tv_tile_args {
    int64_t m, n, k;
    const float *a;
    int64_t ld_a;
    const float *b;
    int64_t ld_b;
    float *c;
    int64_t ld_c;
    int trans_a, accumulate;
};

/* A strip of scores, in units of log 2, becomes exponentials: x[rows, TV_TILE_STEP] = 2^(x - shift[column]), which are
 * added to sum[column]. */
struct tv_tile_strip {
    float *x;
    int64_t ld, rows;
    const float *shift;
    float *sum;
};

/* Scores and products of do and v of one query become weights p = 2^(p - lse2) and ds = p (ds - delta) scale; p and
 * ds [n], n a multiple of TV_TILE_STEP. factor [n]: of dropout, or NULL; ds is multiplied by it before, p after. */
struct tv_tile_row {
    float *p, *ds;
    int64_t n;
    float lse2, delta, scale;
    const float *factor;
};

struct tv_tiles {
    void (*product)(const struct tv_tile_args *t);
    void (*exponentials)(const struct tv_tile_strip *t);
    void (*weights)(const struct tv_tile_row *t);
};
extern const struct tv_tiles tv_tiles_avx512; /* where the build has them */
extern const struct tv_tiles tv_tiles_avx2;   /* with fused multiply-add */
extern const struct tv_tiles tv_tiles_blas;   /* any CPU: products through tv_product_blas */
/* Those that this CPU can run, fastest first; NULL from the end of the list on. All copies of the CPU
 * functions take the same ones, as they take the same BLAS. */
const struct tv_tiles *tv_tiles_of(int index);
TV_END_C
#endif
