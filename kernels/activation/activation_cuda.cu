/* activation_cuda.cu -- gelu (arXiv:1606.08415) and SwiGLU (arXiv:2002.05202), 16 bytes at a time; the formulas are in
 * activation_ref.c. Every element is read before it is written, so that results may replace inputs.
 *
 * (1 + tanh u) / 2 is the sigmoid s of 2u, which takes an exponential and no branch: gelu y = x s, y' = s + x s (1 - s)
 * (2u)', where 1 - s = e s with e = exp(-2u) does not cancel. */
#include "kernels/cuda_internal.h"
#include "kernels/mma_internal.h"

namespace
{
constexpr float root_8_over_pi = 1.595769122f, cubic = 0.044715f; /* (2u)' at 0 */
constexpr float log2_e = 1.442695041f;

/* exp(-2u) to 2 units in the last place where it is near 1; finite, so that its product with the sigmoid is 1 where
 * that is next to 0. */
__device__ float gelu_exp(float x)
{
    const float t = x * (-root_8_over_pi * log2_e - root_8_over_pi * log2_e * cubic * (x * x));
    return tv_exp2(fminf(t, 115.0f));
}

template <typename T> struct gelu_work {
    const T *x;
    T *y;
    static constexpr int at_once = 4;
    template <int N> using held = tv_pack<T, N>;
    template <int N> __device__ held<N> load(int64_t i) const
    {
        return tv_load_pack<N>(x + i);
    }
    template <int N> __device__ void finish(int64_t i, const held<N> &got) const
    {
        float v[N];
        tv_unpack<N>(got, v);
#pragma unroll
        for (int k = 0; k < N; k++)
            v[k] = __fdividef(v[k], 1 + gelu_exp(v[k]));
        tv_store_floats<N>(y + i, v);
    }
};

template <typename T> tv_status_t gelu_forward(tv_stream *stream, const tv_gelu_args *a)
{
    constexpr int width = tv_width<T>;
    const gelu_work<T> work = {static_cast<const T *>(a->x), static_cast<T *>(a->y)};
    const bool is_aligned = tv_is_aligned<width>(work.x) && tv_is_aligned<width>(work.y);
    return tv_map_array<width>(stream, is_aligned, a->count, work);
}

template <typename T> struct gelu_slope_work {
    const T *x, *dy;
    T *dx;
    int64_t cols; /* of rows whose sum is wanted */
    static constexpr int at_once = 2, rows_at_once = 1, blocks = 6;
    template <int N> using held = tv_two_packs<T, N>;
    template <int N> __device__ held<N> load(int64_t i) const
    {
        return {tv_load_pack<N>(x + i), tv_load_pack<N>(dy + i)};
    }
    template <int N> __device__ held<N> load(int64_t row, int64_t col) const
    {
        return load<N>(row * cols + col);
    }
    /* dx as it is stored */
    template <int N>
    __device__ void terms(int64_t row, int64_t col, const held<N> &got, float term[1][N]) const
    {
        float d[N];
        slopes<N>(got, d);
        const tv_pack<T, N> rounded = tv_round_floats<N, T>(d);
        tv_store_pack_whole<N>(dx + row * cols + col, rounded);
        tv_unpack<N>(rounded, term[0]);
    }
    template <int N> __device__ void finish(int64_t i, const held<N> &got) const
    {
        float d[N];
        slopes<N>(got, d);
        tv_store_floats<N>(dx + i, d);
    }
    template <int N> __device__ void slopes(const held<N> &got, float d[N]) const
    {
        float v[N];
        tv_unpack<N>(got.a, v);
        tv_unpack<N>(got.b, d);
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float e = gelu_exp(v[k]), s = __fdividef(1, 1 + e);
            const float slope = root_8_over_pi * (1 + 3 * cubic * (v[k] * v[k]));
            d[k] *= s + v[k] * slope * s * (e * s);
        }
    }
};

template <typename T> tv_status_t gelu_backward(tv_stream *stream, const tv_gelu_backward_args *a)
{
    constexpr int width = tv_width<T>;
    const gelu_slope_work<T> work = {static_cast<const T *>(a->x), static_cast<const T *>(a->dy),
                                     static_cast<T *>(a->dx), a->cols};
    const bool is_aligned = tv_is_aligned<width>(work.x) && tv_is_aligned<width>(work.dy) &&
                            tv_is_aligned<width>(work.dx);
    if (a->dbias != nullptr)
        return tv_add_column_sums<1, width>(stream, is_aligned && a->cols % width == 0,
                                            a->count / a->cols, a->cols, work,
                                            {{a->dbias}, a->accumulate != 0});
    return tv_map_array<width>(stream, is_aligned, a->count, work);
}

template <typename T> struct swiglu_work {
    tv_swiglu_args a;
    template <int N> __device__ void run(int64_t row, int64_t col) const
    {
        float gate[N], up[N];
        tv_load_floats<N>(static_cast<const T *>(a.gate) + row * a.ld_gate + col, gate);
        tv_load_floats<N>(static_cast<const T *>(a.up) + row * a.ld_up + col, up);
#pragma unroll
        for (int k = 0; k < N; k++)
            up[k] *= gate[k] / (1 + expf(-gate[k]));
        tv_store_floats<N>(static_cast<T *>(a.y) + row * a.ld_y + col, up);
    }
};

template <typename T> tv_status_t swiglu_forward(tv_stream *stream, const tv_swiglu_args *a)
{
    constexpr int width = tv_width<T>;
    const bool is_aligned = tv_is_aligned<width>(static_cast<const T *>(a->gate), a->ld_gate) &&
                            tv_is_aligned<width>(static_cast<const T *>(a->up), a->ld_up) &&
                            tv_is_aligned<width>(static_cast<const T *>(a->y), a->ld_y);
    return tv_map<width>(stream, is_aligned, a->rows, a->cols, swiglu_work<T>{*a});
}

template <typename T> struct swiglu_slope_work {
    tv_swiglu_backward_args a;
    template <int N> __device__ void run(int64_t row, int64_t col) const
    {
        float gate[N], up[N], dy[N];
        tv_load_floats<N>(static_cast<const T *>(a.gate) + row * a.ld_gate + col, gate);
        tv_load_floats<N>(static_cast<const T *>(a.up) + row * a.ld_up + col, up);
        tv_load_floats<N>(static_cast<const T *>(a.dy) + row * a.ld_dy + col, dy);
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float g = gate[k], s = 1 / (1 + expf(-g));
            gate[k] = dy[k] * up[k] * s * (1 + g * (1 - s));
            up[k] = dy[k] * g * s;
        }
        tv_store_floats<N>(static_cast<T *>(a.d_gate) + row * a.ld_dgate + col, gate);
        tv_store_floats<N>(static_cast<T *>(a.d_up) + row * a.ld_dup + col, up);
    }
};

template <typename T>
tv_status_t swiglu_backward(tv_stream *stream, const tv_swiglu_backward_args *a)
{
    constexpr int width = tv_width<T>;
    const bool is_aligned = tv_is_aligned<width>(static_cast<const T *>(a->gate), a->ld_gate) &&
                            tv_is_aligned<width>(static_cast<const T *>(a->up), a->ld_up) &&
                            tv_is_aligned<width>(static_cast<const T *>(a->dy), a->ld_dy) &&
                            tv_is_aligned<width>(static_cast<const T *>(a->d_gate), a->ld_dgate) &&
                            tv_is_aligned<width>(static_cast<const T *>(a->d_up), a->ld_dup);
    return tv_map<width>(stream, is_aligned, a->rows, a->cols, swiglu_slope_work<T>{*a});
}
} // namespace

TV_CUDA_ENTRIES(gelu_forward, tv_gelu_args, gelu_forward)
TV_CUDA_ENTRIES(gelu_backward, tv_gelu_backward_args, gelu_backward)
TV_CUDA_ENTRIES(swiglu_forward, tv_swiglu_args, swiglu_forward)
TV_CUDA_ENTRIES(swiglu_backward, tv_swiglu_backward_args, swiglu_backward)
