/* kernels/matmul/product_internal.h -- products of matrices that no cache holds, on the calling thread.
 *
 * c[m, n] = op(a)[m, k] op(b)[k, n] (+ init). trans_a: a is stored [k, m]; trans_b: b is stored [n, k]. */
#ifndef TV_KERNELS_PRODUCT_INTERNAL_H
#define TV_KERNELS_PRODUCT_INTERNAL_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
struct tv_product_args {
    int64_t m, n, k;
    const float *a;
    int64_t ld_a;
    const float *b;
    int64_t ld_b;
    float *c;
    int64_t ld_c;
    int trans_a, trans_b;
    /* What the products are added to, [m, n], or NULL: c itself with its own stride, or memory apart from c; one row
     * for all with a stride of 0. */
    const float *init;
    int64_t ld_init;
};
typedef void (*tv_product_fn)(const struct tv_product_args *p);

/* Where the build has them: sums of DEPTH products in order of k by fused multiply-add, the sums added in order; no bit
 * depends on m, n, on the place of an element in c or on which of the two runs. 0.9 MB of stack. */
void tv_product_avx512(const struct tv_product_args *p);
void tv_product_avx2(const struct tv_product_args *p);
/* Any CPU: OpenBLAS, which sums in an order of its own. Sizes and strides below 2^31. */
void tv_product_blas(const struct tv_product_args *p);
/* Those that this CPU can run, fastest first; NULL from the end of the list on: kernels_x86.c or kernels_portable.c.
 * All copies of the CPU functions take the first. */
tv_product_fn tv_product(int index);

/* Once, before any other thread runs; done when the program starts where tv_product_blas is the first. */
void tv_blas_open(void);
/* Has it been opened? Warns where OpenBLAS is slower than it need be. Errors: TV_UNSUPPORTED (there is none). */
TV_MUST_CHECK tv_status_t tv_blas_check(void);
/* "OpenBLAS " and its name for its kernels, as "OpenBLAS SkylakeX"; "none" where it is not open. */
const char *tv_blas_name(void);
TV_END_C
#endif
