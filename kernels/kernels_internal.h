/* kernels/kernels_internal.h -- prototypes of the functions behind the tables.
 *
 * The files *_cpu.c are compiled once per instruction set, without fused multiply-add and with the
 * same fixed order of every sum, so that all copies give the same bits; the build names a copy by
 * TV_CPU_VARIANT. */
#ifndef TV_KERNELS_KERNELS_INTERNAL_H
#define TV_KERNELS_KERNELS_INTERNAL_H
#include "kernels/kernels.h"

#ifndef TV_CPU_VARIANT
#define TV_CPU_VARIANT cpu
#endif
#define TV_CPU_JOIN(op, variant) tv_##op##_##variant
#define TV_CPU_NAME(op, variant) TV_CPU_JOIN(op, variant)
#define TV_CPU(op)               TV_CPU_NAME(op, TV_CPU_VARIANT) /* tv_matmul_cpu, tv_matmul_avx2 */

TV_BEGIN_C
#define TV_KERNEL_REF(op, args)                                                                    \
    tv_status_t tv_##op##_ref(struct tv_stream *stream, const struct args *a);
TV_KERNEL_LIST(TV_KERNEL_REF)
#undef TV_KERNEL_REF
#define TV_KERNEL_CPU(op, args)                                                                    \
    tv_status_t TV_CPU(op)(struct tv_stream * stream, const struct args *a);
TV_KERNEL_LIST(TV_KERNEL_CPU)
#undef TV_KERNEL_CPU

const struct tv_kernels *tv_table_cpu(void);  /* for every CPU of the architecture */
const struct tv_kernels *tv_table_avx2(void); /* where the build has it */
/* The fastest table that this CPU can run: kernels_x86.c or kernels_portable.c. */
const struct tv_kernels *tv_table_fastest(void);

/* c[m, n] = alpha op(a) op(b) + beta c, row by row, on the calling thread; sizes and strides below
 * 2^31. matmul/sgemm_*.c: the build chooses the library. */
void tv_sgemm(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t ld_a, const float *b, int64_t ld_b, float beta, float *c,
              int64_t ld_c);
/* TV_NO_MEMORY when a call of this process had no memory, whose c is then not whole. */
TV_MUST_CHECK tv_status_t tv_sgemm_status(void);

/* The first key that the query of row `row` [B*S] sees. */
static inline int tv_first_key(const int32_t *first_keys, int64_t row)
{
    return first_keys != NULL ? first_keys[row] : 0;
}
TV_END_C
#endif
