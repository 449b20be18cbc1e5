/* kernels/attention/attention_hopper_internal.h -- attention by Hopper's own instructions, for the entries of the
 * tables, which take it where it is for the arguments and the device. */
#ifndef TV_KERNELS_ATTENTION_HOPPER_INTERNAL_H
#define TV_KERNELS_ATTENTION_HOPPER_INTERNAL_H
#include "kernels/attention/attention_cuda_internal.h"
#include "kernels/hopper_internal.h"

/* Heads of 64 or 128 columns of bf16, no dropout, all rows at multiples of 16 bytes, compute capability 9.0. */
bool tv_attention_forward_is_for_hopper(const tv_stream *stream, const tv_attention_args *a);
tv_status_t tv_attention_forward_hopper(tv_stream *stream, const tv_attention_args *a);
bool tv_attention_backward_is_for_hopper(const tv_stream *stream,
                                         const tv_attention_backward_args *a);
tv_status_t tv_attention_backward_hopper(tv_stream *stream, const tv_attention_backward_args *a);

/* What both ask for, of the tensors that both have. */
template <typename Args> bool tv_attention_is_for_hopper(const tv_stream *stream, const Args *a)
{
    return (a->head_dim == 64 || a->head_dim == 128) && a->dropout.threshold == 0 &&
           tv_is_aligned_16(a->q, a->ld_q) && tv_is_aligned_16(a->k, a->ld_k) &&
           tv_is_aligned_16(a->v, a->ld_v) && tv_is_aligned_16(a->o, a->ld_o) &&
           tv_is_hopper(stream);
}

/* Tensor maps of queries (or what lies like them) and of keys (or values), boxes of `rows`. */
template <typename Args>
tv_status_t tv_map_queries(CUtensorMap *map, const Args *a, const void *data, int64_t ld, int rows)
{
    return tv_tensor_map(map, data, static_cast<int64_t>(a->num_heads) * a->head_dim, a->seq_length,
                         a->batch, ld, rows);
}
template <typename Args>
tv_status_t tv_map_keys(CUtensorMap *map, const Args *a, const void *data, int64_t ld, int rows)
{
    return tv_tensor_map(map, data, static_cast<int64_t>(a->num_kv_heads) * a->head_dim,
                         a->seq_length, a->batch, ld, rows);
}
#endif
