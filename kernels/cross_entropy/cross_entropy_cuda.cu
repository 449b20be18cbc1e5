/* cross_entropy_cuda.cu -- softmax cross-entropy over this rank's columns: a block for each row, which reads the logits
 * once for maximum and sum together (online softmax: Milakov, Gimelshein 2018, arXiv:1805.02867) and once more for the
 * gradient. Sums: fp32 in a thread, double over the block. */
#include "kernels/cuda_internal.h"
#include "kernels/mma_internal.h"

namespace
{
constexpr int most_threads = 512;

/* exp(x), x <= 0: good to a rounding or two in fp32, to 2^-22 where logits have 8 bits. */
template <typename T> __device__ inline float power(float x)
{
    if constexpr (std::is_same<T, float>::value)
        return expf(x);
    else
        return tv_exp2(x * 1.44269504f);
}

struct larger { /* not NaN: the sum shows those */
    __device__ float operator()(float a, float b) const
    {
        return fmaxf(a, b);
    }
};

/* What a thread knows of a row: the largest logit, the sum of exp(logit - most), the sum of logits. */
template <typename T, bool with_total> struct row_part {
    float most = -INFINITY, sum = 0, total = 0;
    template <int N> __device__ void take(const float (&v)[N])
    {
        float high = v[0];
#pragma unroll
        for (int k = 1; k < N; k++)
            high = fmaxf(high, v[k]);
        if (high > most) {
            sum *= expf(most - high);
            most = high;
        }
        const float base = most == -INFINITY ? 0 : most;
#pragma unroll
        for (int k = 0; k < N; k++) {
            sum += power<T>(v[k] - base);
            if constexpr (with_total)
                total += v[k];
        }
    }
};

/* A thread has `ahead` loads under way while it works on as many packs. */
template <int N, typename T, bool with_total>
__device__ inline row_part<T, with_total> part_of_row(const T *row, int64_t cols)
{
    constexpr int ahead = 4;
    const int64_t whole = cols / N * N;
    const int stride = (int)blockDim.x * N;
    row_part<T, with_total> part;
    tv_pack<T, N> pack[ahead] = {};
    const T *at = row + threadIdx.x * N;
    int64_t left = whole - threadIdx.x * N; /* of the row, from `at` on */
    const auto fetch = [&]() {
#pragma unroll
        for (int i = 0; i < ahead; i++)
            if (left > i * stride)
                pack[i] = tv_load_pack<N>(at + i * stride);
    };
    fetch();
    while (left > (ahead - 1) * stride) {
        float v[ahead * N];
#pragma unroll
        for (int i = 0; i < ahead; i++)
            tv_unpack<N>(pack[i], v + i * N);
        at += ahead * stride;
        left -= ahead * stride;
        fetch();
        part.take(v);
    }
#pragma unroll
    for (int i = 0; i + 1 < ahead; i++)
        if (left > i * stride) {
            float v[N];
            tv_unpack<N>(pack[i], v);
            part.take(v);
        }
    for (int64_t c = whole + threadIdx.x; c < cols; c += blockDim.x) {
        const float v[1] = {tv_to_float(row[c])};
        part.take(v);
    }
    return part;
}

template <int N, typename T, bool with_total>
__global__ void __launch_bounds__(most_threads, 2) forward_kernel(tv_cross_entropy_args a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const T *const row = static_cast<const T *>(a.logits) + r * a.ld;
        row_part<T, with_total> part = part_of_row<N, T, with_total>(row, a.cols);
        float most = tv_block_reduce(part.most, larger(), -INFINITY);
        if (part.most != most)
            part.sum *= expf(part.most - most);
        const double sum = tv_block_sum((double)part.sum);
        const double total = with_total ? tv_block_sum((double)part.total) : 0;
        if (sum != sum)
            most = NAN;
        if (threadIdx.x != 0)
            continue;
        const int64_t target = a.targets[r] - a.first;
        const bool is_held = a.targets[r] >= 0 && target >= 0 && target < a.cols;
        a.row_max[r] = a.row_base[r] = most;
        a.row_sum[r] = (float)sum;
        a.row_target[r] = is_held ? tv_to_float(row[target]) : 0;
        if (with_total)
            a.row_rest[r] = a.cols == 0 ? 0 : (float)(total - (double)a.cols * (double)most);
    }
}

/* A thread for each row. */
__global__ void __launch_bounds__(256) rebase_kernel(tv_cross_entropy_args a)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; r < a.rows; r += step) {
        const double below = (double)a.row_base[r] - (double)a.row_max[r];
        a.row_sum[r] = (float)((double)a.row_sum[r] * exp(below));
        if (a.row_rest != nullptr)
            a.row_rest[r] = (float)((double)a.row_rest[r] + (double)a.cols * below);
    }
}

__global__ void __launch_bounds__(256) loss_kernel(tv_cross_entropy_args a)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; r < a.rows; r += step) {
        const double max = (double)a.row_max[r], target = (double)a.row_target[r];
        const double lse = max + log((double)a.row_sum[r]);
        double loss = lse - target;
        if (a.row_rest != nullptr)
            loss += a.smoothing * (target - max) - a.smoothing_per_column * (double)a.row_rest[r];
        a.row_lse[r] = (float)lse;
        a.row_loss[r] = a.targets[r] < 0 ? 0 : loss;
    }
}

/* What backward needs of a row. */
struct slope_row {
    float lse, everywhere, there; /* labels of all columns, and of the target besides */
    int64_t target, counted;      /* columns behind `counted` are padding, and become 0 */
    /* Logits of columns from c on -> gradients. The target is in few packs, the end of a row in one at most. */
    template <typename T, int N> __device__ void slopes(int64_t c, float (&v)[N]) const
    {
        const int64_t at = target - c, left = counted - c;
#pragma unroll
        for (int k = 0; k < N; k++)
            v[k] = power<T>(v[k] - lse);
        const bool is_in = at >= 0 && at < N;
#pragma unroll
        for (int k = 0; k < N; k++)
            v[k] -= is_in && k == (int)at ? there + everywhere : everywhere;
        if (left < N) {
#pragma unroll
            for (int k = 0; k < N; k++)
                v[k] = k < left ? v[k] : 0;
        }
    }
};

/* `num` columns are written, N at a time where there are as many. */
template <int N, typename T>
__global__ void __launch_bounds__(most_threads) slope_kernel(tv_cross_entropy_args a, int64_t num)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        T *const row = static_cast<T *>(a.logits) + r * a.ld;
        const int32_t id = a.targets[r];
        const slope_row of = {a.row_lse[r], (float)a.smoothing_per_column, (float)(1 - a.smoothing),
                              id - a.first, id < 0 ? 0 : a.cols};
        const int64_t whole = num / N * N;
        for (int64_t c = (int64_t)threadIdx.x * N; c < whole; c += (int64_t)blockDim.x * N) {
            float v[N];
            tv_load_floats<N>(row + c, v);
            of.template slopes<T>(c, v);
            tv_store_floats<N>(row + c, v);
        }
        for (int64_t c = whole + threadIdx.x; c < num; c += blockDim.x) {
            float v[1] = {tv_to_float(row[c])};
            of.template slopes<T>(c, v);
            row[c] = tv_from_float<T>(v[0]);
        }
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
tv_status_t cross_entropy_forward(tv_stream *stream, const tv_cross_entropy_args *a)
{
    constexpr int width = tv_width<T>;
    if (a->row_rest != nullptr)
        return launch_rows<T>(forward_kernel<width, T, true>, forward_kernel<1, T, true>, stream, a,
                              a->cols);
    return launch_rows<T>(forward_kernel<width, T, false>, forward_kernel<1, T, false>, stream, a,
                          a->cols);
}

tv_status_t cross_entropy_rebase(tv_stream *stream, const tv_cross_entropy_args *a)
{
    return tv_launch(rebase_kernel, a->cols == 0 ? 0 : tv_grid(a->rows, 256), 256, 0, stream, *a);
}

tv_status_t cross_entropy_loss(tv_stream *stream, const tv_cross_entropy_args *a)
{
    return tv_launch(loss_kernel, tv_grid(a->rows, 256), 256, 0, stream, *a);
}

template <typename T>
tv_status_t cross_entropy_backward(tv_stream *stream, const tv_cross_entropy_args *a)
{
    const int64_t num = a->padded > a->cols ? a->padded : a->cols;
    return launch_rows<T>(slope_kernel<tv_width<T>, T>, slope_kernel<1, T>, stream, a, num, num);
}
} // namespace

TV_CUDA_ENTRIES(cross_entropy_forward, tv_cross_entropy_args, cross_entropy_forward)
TV_CUDA_ENTRIES_OF_FLOATS(cross_entropy_rebase, tv_cross_entropy_args, cross_entropy_rebase)
TV_CUDA_ENTRIES_OF_FLOATS(cross_entropy_loss, tv_cross_entropy_args, cross_entropy_loss)
TV_CUDA_ENTRIES(cross_entropy_backward, tv_cross_entropy_args, cross_entropy_backward)
