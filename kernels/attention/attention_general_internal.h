/* kernels/attention/attention_general_internal.h -- what all attention kernels of CUDA share, and
 * attention for every size of head in fp32 arithmetic. Element: float or __nv_bfloat16. */
#ifndef TV_KERNELS_ATTENTION_GENERAL_INTERNAL_H
#define TV_KERNELS_ATTENTION_GENERAL_INTERNAL_H
#include "kernels/dropout/dropout_cuda_internal.h"

#define TV_ATTENTION_DEVICE static __device__ __forceinline__

/* The first key that the query of row `row` [B*S] sees. */
TV_ATTENTION_DEVICE int tv_first_key_of(const int32_t *first_keys, int64_t row)
{
    return first_keys != nullptr ? first_keys[row] : 0;
}

/* Bit i is set where dropout keeps column 4 quad + i of a row. */
TV_ATTENTION_DEVICE uint32_t tv_dropout_kept(const tv_dropout &d, int64_t row, int plane,
                                             int64_t quad)
{
    const uint4 words = tv_dropout_words(d, row, plane, quad);
    return static_cast<uint32_t>(words.x >= d.threshold) |
           static_cast<uint32_t>(words.y >= d.threshold) << 1 |
           static_cast<uint32_t>(words.z >= d.threshold) << 2 |
           static_cast<uint32_t>(words.w >= d.threshold) << 3;
}

/* The row or column where a tile ends. */
TV_ATTENTION_DEVICE int tv_lesser(int a, int b)
{
    return a < b ? a : b;
}

template <typename Element>
tv_status_t tv_attention_forward_general(tv_stream *stream, const tv_attention_args *a);
template <typename Element>
tv_status_t tv_attention_backward_general(tv_stream *stream, const tv_attention_backward_args *a);

/* sum(do o) of every row and head. bf16: into work [B, num_heads, S]; fp32: into the head's first column of dq, which
 * the gradient takes later. */
template <typename Element>
tv_status_t tv_attention_row_terms(tv_stream *stream, const tv_attention_backward_args *a);
#endif
