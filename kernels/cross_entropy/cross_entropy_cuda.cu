/* cross_entropy_cuda.cu -- the three steps of softmax cross-entropy over this rank's columns: a block for each row of
 * maxima and sums, elementwise for the gradient. Each step reads the logits once. Sums: fp32 in a thread, double over
 * the block. */
#include "kernels/cuda_internal.h"

namespace
{
constexpr int most_threads = 512;

/* fn(value, column) for each thread's part of a row; by 16 bytes where the row allows it. */
template <int N, typename T, typename Fn>
__device__ void for_logits(const T *row, int64_t cols, Fn fn)
{
    const int64_t whole = cols / N * N;
    float v[N];
    for (int64_t c = (int64_t)threadIdx.x * N; c < whole; c += (int64_t)blockDim.x * N) {
        tv_load_floats<N>(row + c, v);
#pragma unroll
        for (int k = 0; k < N; k++)
            fn(v[k]);
    }
    for (int64_t c = whole + threadIdx.x; c < cols; c += blockDim.x)
        fn(tv_to_float(row[c]));
}

template <int N, typename T>
__global__ void __launch_bounds__(most_threads) max_kernel(tv_cross_entropy_args a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        float most = -INFINITY;
        for_logits<N>(static_cast<const T *>(a.logits) + r * a.ld, a.cols,
                      [&](float v) { most = tv_most()(most, v); });
        most = tv_block_reduce(most, tv_most(), -INFINITY);
        if (threadIdx.x == 0)
            a.row_max[r] = most;
    }
}

template <int N, typename T>
__global__ void __launch_bounds__(most_threads) sum_kernel(tv_cross_entropy_args a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const T *const row = static_cast<const T *>(a.logits) + r * a.ld;
        const float most = a.row_max[r];
        float sum = 0, rest = 0;
        for_logits<N>(row, a.cols, [&](float v) {
            sum += expf(v - most);
            rest += v - most;
        });
        const double row_sum = tv_block_sum((double)sum), row_rest = tv_block_sum((double)rest);
        if (threadIdx.x != 0)
            continue;
        const int64_t target = a.targets[r] - a.first;
        const bool is_held = a.targets[r] >= 0 && target >= 0 && target < a.cols;
        a.row_sum[r] = (float)row_sum;
        a.row_target[r] = is_held ? tv_to_float(row[target]) : 0;
        if (a.row_rest != nullptr)
            a.row_rest[r] = (float)row_rest;
    }
}

/* `num` columns are written, N at a time where there are as many; those from a.cols on are padding, and become 0. */
template <int N, typename T>
__global__ void __launch_bounds__(most_threads) slope_kernel(tv_cross_entropy_args a, int64_t num)
{
    const float everywhere = (float)a.smoothing_per_column, there = (float)(1 - a.smoothing);
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        T *const row = static_cast<T *>(a.logits) + r * a.ld;
        const int32_t id = a.targets[r];
        const int64_t target = id - a.first, counted = id < 0 ? 0 : a.cols;
        const float lse = a.row_lse[r];
        const auto slope = [&](float logit, int64_t c) {
            const float label = (c == target ? there : 0) + everywhere;
            return c < counted ? expf(logit - lse) - label : 0;
        };
        const int64_t whole = num / N * N;
        for (int64_t c = (int64_t)threadIdx.x * N; c < whole; c += (int64_t)blockDim.x * N) {
            float v[N];
            tv_load_floats<N>(row + c, v);
#pragma unroll
            for (int k = 0; k < N; k++)
                v[k] = slope(v[k], c + k);
            tv_store_floats<N>(row + c, v);
        }
        for (int64_t c = whole + threadIdx.x; c < num; c += blockDim.x)
            row[c] = tv_from_float<T>(slope(tv_to_float(row[c]), c));
    }
}

/* A block for each row of `cols` columns. */
template <typename T, typename... Params, typename... More>
tv_status_t launch_rows(void (*wide)(Params...), void (*narrow)(Params...), tv_stream *stream,
                        const tv_cross_entropy_args *a, int64_t cols, More... more)
{
    constexpr int width = tv_width<T>;
    const bool is_aligned = tv_is_aligned<width>(static_cast<const T *>(a->logits), a->ld);
    const int64_t items = is_aligned ? tv_ceil_div(cols, width) : cols;
    return tv_launch(is_aligned ? wide : narrow, tv_grid(a->rows, 1),
                     tv_row_threads(items, most_threads), 0, stream, *a, more...);
}

template <typename T>
tv_status_t cross_entropy_max(tv_stream *stream, const tv_cross_entropy_args *a)
{
    return launch_rows<T>(max_kernel<tv_width<T>, T>, max_kernel<1, T>, stream, a, a->cols);
}

template <typename T>
tv_status_t cross_entropy_sum(tv_stream *stream, const tv_cross_entropy_args *a)
{
    return launch_rows<T>(sum_kernel<tv_width<T>, T>, sum_kernel<1, T>, stream, a, a->cols);
}

template <typename T>
tv_status_t cross_entropy_backward(tv_stream *stream, const tv_cross_entropy_args *a)
{
    const int64_t num = a->padded > a->cols ? a->padded : a->cols;
    return launch_rows<T>(slope_kernel<tv_width<T>, T>, slope_kernel<1, T>, stream, a, num, num);
}
} // namespace

TV_CUDA_ENTRIES(cross_entropy_max, tv_cross_entropy_args, cross_entropy_max)
TV_CUDA_ENTRIES(cross_entropy_sum, tv_cross_entropy_args, cross_entropy_sum)
TV_CUDA_ENTRIES(cross_entropy_backward, tv_cross_entropy_args, cross_entropy_backward)
