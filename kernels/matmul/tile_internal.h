/* kernels/matmul/tile_internal.h -- products of tiles: a few dozen rows and columns of floats that lie in the
 * caches, where packing them for a library would cost as much as the product.
 *
 * c[m, n] = op(a)[m, k] b[k, n] (+ c when accumulate), on the calling thread; n a multiple of TV_TILE_STEP. An
 * element is the sum over k in order, whatever the sizes. trans_a: a is stored [k, m]. */
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
typedef void (*tv_tile_product_fn)(const struct tv_tile_args *t);

void tv_tile_product_avx512(const struct tv_tile_args *t); /* where the build has them */
void tv_tile_product_avx2(const struct tv_tile_args *t);   /* with fused multiply-add */
void tv_tile_product_blas(const struct tv_tile_args *t);   /* any CPU: tv_product_blas */
/* Those that this CPU can run, fastest first; NULL from the end of the list on. All copies of the CPU
 * functions take the same one, as they take the same BLAS. */
tv_tile_product_fn tv_tile_product(int index);
TV_END_C
#endif
