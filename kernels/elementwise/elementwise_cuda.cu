/* elementwise_cuda.cu -- sums of two tensors, with and without factors, column sums, sum of squares: all bound by
 * memory, 16 bytes at a time. */
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

struct axpby_work {
    tv_axpby_args a;
    template <int N> __device__ void run(int64_t row, int64_t col) const
    {
        float x[N], y[N] = {};
        float *const to = a.y + row * a.ld_y + col;
        tv_load_floats<N>(a.x + row * a.ld_x + col, x);
        if (a.beta != 0)
            tv_load_floats<N>(to, y);
#pragma unroll
        for (int k = 0; k < N; k++)
            y[k] = (float)(a.alpha * (double)x[k] + (a.beta == 0 ? 0 : a.beta * (double)y[k]));
        tv_store_floats<N>(to, y);
    }
};

tv_status_t axpby(tv_stream *stream, const tv_axpby_args *a)
{
    const bool is_aligned = tv_is_aligned<4>(a->x, a->ld_x) && tv_is_aligned<4>(a->y, a->ld_y);
    return tv_map<4>(stream, is_aligned, a->rows, a->cols, axpby_work{*a});
}

template <typename T> struct bias_work {
    const T *dy;
    int64_t ld;
    template <int N> __device__ void terms(int64_t row, int64_t col, float term[1][N]) const
    {
        tv_load_floats<N>(dy + row * ld + col, term[0]);
    }
};

template <typename T> tv_status_t bias_backward(tv_stream *stream, const tv_bias_backward_args *a)
{
    const bias_work<T> work = {static_cast<const T *>(a->dy), a->ld_dy};
    const bool is_aligned = tv_is_aligned<4>(work.dy, a->ld_dy) && a->cols % 4 == 0;
    return tv_add_column_sums<1>(stream, is_aligned, a->rows, a->cols, work, {{a->dbias}});
}

constexpr int square_threads = 256, square_blocks = 1024;

/* Block b's sum; block by block the same elements whatever their alignment, for the same bits. */
__global__ void __launch_bounds__(square_threads)
    square_sums(const float *x, int64_t count, bool is_aligned, double *sums)
{
    const int64_t step = (int64_t)gridDim.x * square_threads * 4;
    double sum = 0;
    for (int64_t i = ((int64_t)blockIdx.x * square_threads + threadIdx.x) * 4; i < count;
         i += step) {
        float value[4] = {};
        if (is_aligned && i + 4 <= count)
            tv_load_floats<4>(x + i, value);
        else
            for (int k = 0; k < 4 && i + k < count; k++)
                value[k] = x[i + k];
#pragma unroll
        for (int k = 0; k < 4; k++)
            sum += (double)value[k] * (double)value[k];
    }
    sum = tv_block_sum(sum);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(square_threads) total(double *sums, int count)
{
    double sum = 0;
    for (int i = (int)threadIdx.x; i < count; i += square_threads)
        sum += sums[i];
    sum = tv_block_sum(sum);
    if (threadIdx.x == 0)
        sums[square_blocks] = sum;
}

tv_status_t square_sum(tv_stream *stream, const tv_square_sum_args *a)
{
    void *room;
    TV_TRY(tv_cuda_workspace(stream, (square_blocks + 1) * sizeof(double), &room));
    double *const sums = static_cast<double *>(room);
    const int64_t wanted = tv_ceil_div(a->count, square_threads * 16);
    const int blocks = (int)(wanted < square_blocks ? wanted : square_blocks);
    TV_TRY(tv_launch(square_sums, (unsigned)blocks, square_threads, 0, stream, a->x, a->count,
                     tv_is_aligned<4>(a->x), sums));
    TV_TRY(tv_launch(total, 1, square_threads, 0, stream, sums, blocks));
    const cudaStream_t queue = static_cast<cudaStream_t>(tv_cuda_stream(stream));
    double sum = 0;
    TV_TRY(tv_cuda_status(
        cudaMemcpyAsync(&sum, sums + square_blocks, sizeof(sum), cudaMemcpyDeviceToHost, queue),
        "the copy of a sum"));
    TV_TRY(tv_cuda_status(cudaStreamSynchronize(queue), "the sum of squares"));
    *a->sum_out = sum;
    return TV_OK;
}
} // namespace

TV_CUDA_ENTRIES(add, tv_add_args, add)
TV_CUDA_ENTRIES_OF_FLOATS(axpby, tv_axpby_args, axpby)
TV_CUDA_ENTRIES(bias_backward, tv_bias_backward_args, bias_backward)
TV_CUDA_ENTRIES_OF_FLOATS(square_sum, tv_square_sum_args, square_sum)
