/* elementwise_cuda.cu -- sums of two tensors, with and without factors: bound by memory, 16 bytes at a time. */
#include "kernels/cuda_internal.h"

namespace
{
template <typename T> struct add_work {
    const T *a, *b;
    T *y;
    template <int N> __device__ void run(int64_t, int64_t i) const
    {
        float x[N], other[N];
        tv_load_floats<N>(a + i, x);
        tv_load_floats<N>(b + i, other);
#pragma unroll
        for (int k = 0; k < N; k++)
            x[k] += other[k];
        tv_store_floats<N>(y + i, x);
    }
};

template <typename T> tv_status_t add(tv_stream *stream, const tv_add_args *args)
{
    constexpr int width = tv_width<T>;
    const add_work<T> work = {static_cast<const T *>(args->a), static_cast<const T *>(args->b),
                              static_cast<T *>(args->y)};
    const bool is_aligned = tv_is_aligned<width>(work.a) && tv_is_aligned<width>(work.b) &&
                            tv_is_aligned<width>(work.y);
    return tv_map<width>(stream, is_aligned, 1, args->count, work);
}
} // namespace

TV_CUDA_ENTRIES(add, tv_add_args, add)
