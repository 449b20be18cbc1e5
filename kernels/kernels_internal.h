/* kernels/kernels_internal.h -- prototypes of the reference and the CPU functions behind the tables. */
#ifndef TV_KERNELS_KERNELS_INTERNAL_H
#define TV_KERNELS_KERNELS_INTERNAL_H
#include "kernels/kernels.h"

TV_BEGIN_C
#define TV_KERNEL_REF(op, args)                                                                    \
    tv_status_t tv_##op##_ref(struct tv_stream *stream, const struct args *a);
TV_KERNEL_LIST(TV_KERNEL_REF)
#undef TV_KERNEL_REF
#define TV_KERNEL_CPU(op, args)                                                                    \
    tv_status_t tv_##op##_cpu(struct tv_stream *stream, const struct args *a);
TV_KERNEL_LIST(TV_KERNEL_CPU)
#undef TV_KERNEL_CPU

/* Before a cblas call: the library may start no threads of its own. */
void tv_use_one_blas_thread(void);
TV_END_C
#endif
