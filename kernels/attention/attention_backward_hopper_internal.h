/* attention_backward_hopper_internal.h -- the entry of attention's backward on Hopper. */
#ifndef TV_KERNELS_ATTENTION_BACKWARD_HOPPER_INTERNAL_H
#define TV_KERNELS_ATTENTION_BACKWARD_HOPPER_INTERNAL_H
#include "kernels/kernels_internal.h"

/* Compute capability 9.0; bf16, heads of 64 or 128 columns, no dropout, rows at multiples of 16 bytes. */
bool tv_attention_backward_fits_hopper(const tv_attention_backward_args *a);

/* Of a call that fits. Errors: as the kernel table's. */
tv_status_t tv_attention_backward_hopper(tv_stream *stream, const tv_attention_backward_args *a);
#endif
