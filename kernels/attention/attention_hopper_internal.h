/* kernels/attention/attention_hopper_internal.h -- attention by Hopper's own instructions, for the entries of the
 * tables, which take it where it is for the arguments and the device. */
#ifndef TV_KERNELS_ATTENTION_HOPPER_INTERNAL_H
#define TV_KERNELS_ATTENTION_HOPPER_INTERNAL_H
#include "kernels/kernels.h"

/* Heads of 64 or 128 columns of bf16, no dropout, all rows at multiples of 16 bytes, compute capability 9.0. */
bool tv_attention_forward_is_for_hopper(const tv_attention_args *a);
tv_status_t tv_attention_forward_hopper(tv_stream *stream, const tv_attention_args *a);
bool tv_attention_backward_is_for_hopper(const tv_attention_backward_args *a);
tv_status_t tv_attention_backward_hopper(tv_stream *stream, const tv_attention_backward_args *a);
#endif
