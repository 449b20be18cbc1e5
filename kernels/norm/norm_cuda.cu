/* norm_cuda.cu -- LayerNorm (arXiv:1607.06450) and RMSNorm (arXiv:1910.07467): a block for each row, whose later passes
 * find the row in the cache. The formulas are in norm_ref.c. Gradients of weights: column sums (cuda_internal.h),
 * before the gradient of the input, which may replace dy. */
#include "kernels/cuda_internal.h"

namespace
{
/* Each thread's elements of a row: fn(col, N values at once). */
template <int N, typename Fn> __device__ void for_row(int64_t cols, Fn fn)
{
    for (int64_t c = (int64_t)threadIdx.x * N; c < cols; c += (int64_t)blockDim.x * N)
        fn(c);
}

template <typename T> struct norm_row {
    const T *x, *weight, *bias;
    T *y;
    float *mean, *rstd; /* mean NULL: RMSNorm */
    int64_t rows, cols;
    float eps;
};

template <int N, typename T> __global__ void __launch_bounds__(512) norm_kernel(norm_row<T> a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const T *const x = a.x + r * a.cols;
        float v[N], mean = 0, squares = 0;
        if (a.mean != nullptr) {
            for_row<N>(a.cols, [&](int64_t c) {
                tv_load_floats<N>(x + c, v);
                for (int k = 0; k < N; k++)
                    mean += v[k];
            });
            mean = tv_block_sum(mean) / (float)a.cols;
        }
        for_row<N>(a.cols, [&](int64_t c) {
            tv_load_floats<N>(x + c, v);
            for (int k = 0; k < N; k++)
                squares += (v[k] - mean) * (v[k] - mean);
        });
        const float rstd = 1 / sqrtf(tv_block_sum(squares) / (float)a.cols + a.eps);
        for_row<N>(a.cols, [&](int64_t c) {
            float w[N], b[N] = {};
            tv_load_floats<N>(x + c, v);
            tv_load_floats<N>(a.weight + c, w);
            if (a.bias != nullptr)
                tv_load_floats<N>(a.bias + c, b);
            for (int k = 0; k < N; k++)
                v[k] = (v[k] - mean) * rstd * w[k] + b[k];
            tv_store_floats<N>(a.y + r * a.cols + c, v);
        });
        if (threadIdx.x == 0) {
            a.rstd[r] = rstd;
            if (a.mean != nullptr)
                a.mean[r] = mean;
        }
    }
}

unsigned threads_for(int64_t cols, int64_t n)
{
    return tv_row_threads(tv_ceil_div(cols, n), 512);
}

template <typename T>
tv_status_t norm_forward(tv_stream *stream, const tv_norm_args *a, bool has_mean)
{
    constexpr int width = tv_width<T>;
    const norm_row<T> row = {static_cast<const T *>(a->x),
                             static_cast<const T *>(a->weight),
                             has_mean ? static_cast<const T *>(a->bias) : nullptr,
                             static_cast<T *>(a->y),
                             has_mean ? a->mean : nullptr,
                             a->rstd,
                             a->rows,
                             a->cols,
                             (float)a->eps};
    const bool is_aligned = tv_is_aligned<width>(row.x, a->cols) && tv_is_aligned<width>(row.y) &&
                            tv_is_aligned<width>(row.weight) && tv_is_aligned<width>(row.bias);
    return is_aligned ? tv_launch(norm_kernel<width, T>, tv_grid(a->rows, 1),
                                  threads_for(a->cols, width), 0, stream, row)
                      : tv_launch(norm_kernel<1, T>, tv_grid(a->rows, 1), threads_for(a->cols, 1),
                                  0, stream, row);
}

template <typename T> tv_status_t layernorm_forward(tv_stream *stream, const tv_norm_args *a)
{
    return norm_forward<T>(stream, a, true);
}

template <typename T> tv_status_t rmsnorm_forward(tv_stream *stream, const tv_norm_args *a)
{
    return norm_forward<T>(stream, a, false);
}

template <typename T> struct slope {
    const T *dy, *x, *weight;
    const float *mean, *rstd; /* mean NULL: RMSNorm */
    T *dx;
    int64_t rows, cols;
    bool adds;
    /* What row r adds to the gradients of weight and bias. */
    template <int N> __device__ void terms(int64_t r, int64_t c, float term[2][N]) const
    {
        float v[N];
        const float shift = mean != nullptr ? mean[r] : 0, scale = rstd[r];
        tv_load_floats<N>(x + r * cols + c, v);
        tv_load_floats<N>(dy + r * cols + c, term[1]);
#pragma unroll
        for (int k = 0; k < N; k++)
            term[0][k] = term[1][k] * ((v[k] - shift) * scale);
    }
};

template <int N, typename T> __global__ void __launch_bounds__(512) slope_kernel(slope<T> a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const int64_t start = r * a.cols;
        const float shift = a.mean != nullptr ? a.mean[r] : 0, rstd = a.rstd[r];
        float v[N], g[N], w[N], sum_g = 0, sum_gn = 0;
        const auto load = [&](int64_t c) { /* v = n, g = dy w */
                                           tv_load_floats<N>(a.x + start + c, v);
                                           tv_load_floats<N>(a.dy + start + c, g);
                                           tv_load_floats<N>(a.weight + c, w);
                                           for (int k = 0; k < N; k++) {
                                               v[k] = (v[k] - shift) * rstd;
                                               g[k] *= w[k];
                                           }
        };
        for_row<N>(a.cols, [&](int64_t c) {
            load(c);
            for (int k = 0; k < N; k++) {
                sum_g += g[k];
                sum_gn += g[k] * v[k];
            }
        });
        const float mean_gn = tv_block_sum(sum_gn) / (float)a.cols;
        const float mean_g = a.mean != nullptr ? tv_block_sum(sum_g) / (float)a.cols : 0;
        for_row<N>(a.cols, [&](int64_t c) {
            float dx[N] = {};
            load(c);
            if (a.adds)
                tv_load_floats<N>(a.dx + start + c, dx);
            for (int k = 0; k < N; k++)
                dx[k] += rstd * (g[k] - mean_g - v[k] * mean_gn);
            tv_store_floats<N>(a.dx + start + c, dx);
        });
    }
}

template <typename T>
tv_status_t norm_backward(tv_stream *stream, const tv_norm_backward_args *a, bool has_mean)
{
    constexpr int width = tv_width<T>;
    const slope<T> work = {static_cast<const T *>(a->dy),
                           static_cast<const T *>(a->x),
                           static_cast<const T *>(a->weight),
                           has_mean ? a->mean : nullptr,
                           a->rstd,
                           static_cast<T *>(a->dx),
                           a->rows,
                           a->cols,
                           a->add_dx != 0};
    const bool is_aligned = tv_is_aligned<width>(work.x, a->cols) &&
                            tv_is_aligned<width>(work.dy) && tv_is_aligned<width>(work.weight) &&
                            tv_is_aligned<width>(work.dx);
    TV_TRY(tv_add_column_sums<2>(stream, is_aligned, a->rows, a->cols, work,
                                 {{a->dweight, has_mean ? a->dbias : nullptr}}));
    return is_aligned ? tv_launch(slope_kernel<width, T>, tv_grid(a->rows, 1),
                                  threads_for(a->cols, width), 0, stream, work)
                      : tv_launch(slope_kernel<1, T>, tv_grid(a->rows, 1), threads_for(a->cols, 1),
                                  0, stream, work);
}

template <typename T>
tv_status_t layernorm_backward(tv_stream *stream, const tv_norm_backward_args *a)
{
    return norm_backward<T>(stream, a, true);
}

template <typename T>
tv_status_t rmsnorm_backward(tv_stream *stream, const tv_norm_backward_args *a)
{
    return norm_backward<T>(stream, a, false);
}
} // namespace

TV_CUDA_ENTRIES(layernorm_forward, tv_norm_args, layernorm_forward)
TV_CUDA_ENTRIES(layernorm_backward, tv_norm_backward_args, layernorm_backward)
TV_CUDA_ENTRIES(rmsnorm_forward, tv_norm_args, rmsnorm_forward)
TV_CUDA_ENTRIES(rmsnorm_backward, tv_norm_backward_args, rmsnorm_backward)
