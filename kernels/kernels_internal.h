/* kernels/kernels_internal.h -- prototypes of the functions behind the tables.
 *
 * The files *_cpu.c are compiled once per instruction set, without fused multiply-add and with the
 * same fixed order of every sum, so that all copies give the same bits; the build names a copy by
 * TV_CPU_VARIANT. These and the files *_ref.c are compiled once more with TV_STORAGE_BF16 for the
 * tables of bf16: kernels/element_internal.h. */
#ifndef TV_KERNELS_KERNELS_INTERNAL_H
#define TV_KERNELS_KERNELS_INTERNAL_H
#include "kernels/kernels.h"

#ifndef TV_CPU_VARIANT
#define TV_CPU_VARIANT cpu
#endif
#define TV_KERNEL_JOIN(op, variant, storage) tv_##op##_##variant##_##storage
#define TV_KERNEL_NAME(op, variant, storage) TV_KERNEL_JOIN(op, variant, storage)
#ifdef TV_STORAGE_BF16
#define TV_STORAGE_NAME  bf16
#define TV_STORAGE_DTYPE TV_BF16
#else
#define TV_STORAGE_NAME  f32
#define TV_STORAGE_DTYPE TV_F32
#endif
#define TV_CPU(op) TV_KERNEL_NAME(op, TV_CPU_VARIANT, TV_STORAGE_NAME) /* tv_matmul_avx2_f32 */
#define TV_REF(op) TV_KERNEL_NAME(op, ref, TV_STORAGE_NAME)            /* tv_matmul_ref_bf16 */

TV_BEGIN_C
#define TV_KERNEL_REF(op, args)                                                                    \
    tv_status_t TV_REF(op)(struct tv_stream * stream, const struct args *a);
TV_KERNEL_LIST(TV_KERNEL_REF)
#undef TV_KERNEL_REF
#define TV_KERNEL_CPU(op, args)                                                                    \
    tv_status_t TV_CPU(op)(struct tv_stream * stream, const struct args *a);
TV_KERNEL_LIST(TV_KERNEL_CPU)
#undef TV_KERNEL_CPU

const struct tv_kernels *tv_table_ref_f32(void);
const struct tv_kernels *tv_table_ref_bf16(void);
const struct tv_kernels *tv_table_cpu_f32(void); /* for every CPU of the architecture */
const struct tv_kernels *tv_table_cpu_bf16(void);
const struct tv_kernels *tv_table_avx2_f32(void); /* where the build has them */
const struct tv_kernels *tv_table_avx2_bf16(void);
const struct tv_kernels *tv_table_avx512_f32(void);
const struct tv_kernels *tv_table_avx512_bf16(void);
/* The tables that this CPU can run, fastest first; NULL from the end of the list on: kernels_x86.c or
 * kernels_portable.c. The last one runs on every CPU. */
const struct tv_kernels *tv_table_copy(int index, tv_dtype_t dtype);
const struct tv_kernels *tv_table_portable(tv_dtype_t dtype);

/* The first key that the query of row `row` [B*S] sees. */
static inline int tv_first_key(const int32_t *first_keys, int64_t row)
{
    return first_keys != NULL ? first_keys[row] : 0;
}
TV_END_C
#endif
