/* convert_cuda.cu -- bf16 of floats and back. In place a part goes to the workspace first and comes back converted,
 * in the order in which no element is written before it is read (convert_ref.c). */
#include "kernels/cuda_internal.h"

namespace
{
template <typename From, typename To> struct convert_work {
    const From *x;
    To *y;
    template <int N> __device__ void run(int64_t, int64_t i) const
    {
        float v[N];
        tv_load_floats<N>(x + i, v);
        tv_store_floats<N>(y + i, v);
    }
};

template <typename From, typename To>
tv_status_t convert(tv_stream *stream, const From *x, To *y, int64_t count)
{
    const bool is_aligned = tv_is_aligned<8>(x) && tv_is_aligned<8>(y);
    return tv_map<8>(stream, is_aligned, 1, count, convert_work<From, To>{x, y});
}

constexpr int64_t part_count = 1 << 20;

template <typename From, typename To>
tv_status_t convert_part(tv_stream *stream, const From *x, To *y, int64_t first, int64_t count)
{
    const int64_t part = count - first < part_count ? count - first : part_count;
    void *room;
    TV_TRY(tv_cuda_workspace(stream, (size_t)part * sizeof(From), &room));
    TV_TRY(tv_cuda_status(cudaMemcpyAsync(room, x + first, (size_t)part * sizeof(From),
                                          cudaMemcpyDeviceToDevice,
                                          static_cast<cudaStream_t>(tv_cuda_stream(stream))),
                          "a copy"));
    return convert(stream, static_cast<const From *>(room), y + first, part);
}

template <typename From, typename To> bool is_overlapping(const From *x, const To *y, int64_t count)
{
    const uintptr_t from = reinterpret_cast<uintptr_t>(x), to = reinterpret_cast<uintptr_t>(y);
    return from < to + (uintptr_t)count * sizeof(To) && to < from + (uintptr_t)count * sizeof(From);
}

tv_status_t to_bf16(tv_stream *stream, const tv_to_bf16_args *a)
{
    __nv_bfloat16 *const y = static_cast<__nv_bfloat16 *>(a->y);
    if (!is_overlapping(a->x, y, a->count))
        return convert(stream, a->x, y, a->count);
    for (int64_t first = 0; first < a->count; first += part_count)
        TV_TRY(convert_part(stream, a->x, y, first, a->count));
    return TV_OK;
}

tv_status_t from_bf16(tv_stream *stream, const tv_from_bf16_args *a)
{
    const __nv_bfloat16 *const x = static_cast<const __nv_bfloat16 *>(a->x);
    if (!is_overlapping(x, a->y, a->count))
        return convert(stream, x, a->y, a->count);
    for (int64_t part = tv_ceil_div(a->count, part_count) - 1; part >= 0; part--)
        TV_TRY(convert_part(stream, x, a->y, part * part_count, a->count));
    return TV_OK;
}
} // namespace

TV_CUDA_ENTRIES_OF_FLOATS(to_bf16, tv_to_bf16_args, to_bf16)
TV_CUDA_ENTRIES_OF_FLOATS(from_bf16, tv_from_bf16_args, from_bf16)
