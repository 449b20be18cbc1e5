/* rotary_cuda.cu -- rotary embedding (arXiv:2104.09864), half-split.
 *
 * A block works out the frequencies once, and the sines and cosines of a few rows at a time, which all heads share, in
 * shared memory. Angles reach 1e5 and more: they are in double until they are within half a turn, sine and cosine in
 * fp32. */
#include "kernels/cuda_internal.h"

namespace
{
template <typename T> struct rotary_work {
    T *x;
    int64_t rows, ld;
    const int32_t *positions;
    int seq_length, heads, dim;
    double theta;
    float direction; /* 1, or -1 to turn back */
};

constexpr int group = 4; /* rows at a time */

/* [group, half] from row `first` on */
template <typename T>
__device__ void find_turns(const rotary_work<T> &a, int64_t first, const double *frequency,
                           float *cosine, float *sine)
{
    const int half = a.dim / 2;
    const double turn_angle = 6.28318530717958647692;
    for (int i = (int)threadIdx.x; i < group * half; i += (int)blockDim.x) {
        const int64_t r = first + i / half;
        if (r >= a.rows)
            continue;
        const double place = (double)(a.positions != nullptr ? a.positions[r] : r % a.seq_length);
        const double angle = place * frequency[i % half];
        const float within = (float)(angle - turn_angle * rint(angle / turn_angle));
        cosine[i] = cosf(within);
        sine[i] = a.direction * sinf(within);
    }
}

template <int N, typename T> __global__ void __launch_bounds__(256) turn(rotary_work<T> a)
{
    TV_SHARED_DYNAMIC(double, frequency); /* [half], and cosines and sines behind them */
    const int half = a.dim / 2, per_head = half / N, per_row = a.heads * per_head;
    float *const cosine = reinterpret_cast<float *>(frequency + half), *const sine =
                                                                           cosine + group * half;
    for (int i = (int)threadIdx.x; i < half; i += (int)blockDim.x)
        frequency[i] = pow(a.theta, -2.0 * i / a.dim);
    __syncthreads();
    for (int64_t first = (int64_t)blockIdx.x * group; first < a.rows;
         first += (int64_t)gridDim.x * group) {
        find_turns(a, first, frequency, cosine, sine);
        __syncthreads();
        for (int j = (int)threadIdx.x; j < group * per_row; j += (int)blockDim.x) {
            const int row = j / per_row, head = j % per_row / per_head, i = j % per_head * N;
            if (first + row >= a.rows)
                continue;
            T *const low_at = a.x + (first + row) * a.ld + (int64_t)head * a.dim + i;
            float low[N], high[N], c[N], s[N];
            tv_load_floats<N>(low_at, low);
            tv_load_floats<N>(low_at + half, high);
            tv_load_floats<N>(cosine + row * half + i, c);
            tv_load_floats<N>(sine + row * half + i, s);
#pragma unroll
            for (int k = 0; k < N; k++) {
                const float x = low[k], y = high[k];
                low[k] = x * c[k] - y * s[k];
                high[k] = y * c[k] + x * s[k];
            }
            tv_store_floats<N>(low_at, low);
            tv_store_floats<N>(low_at + half, high);
        }
        __syncthreads(); /* the next rows' turns take their places */
    }
}

template <typename T> tv_status_t rotary(tv_stream *stream, const tv_rotary_args *a)
{
    constexpr int64_t most_blocks =
        1024; /* enough for every GPU, few enough to share the frequencies */
    const rotary_work<T> work = {static_cast<T *>(a->x),
                                 a->rows,
                                 a->ld_x,
                                 a->positions,
                                 a->seq_length,
                                 a->num_heads,
                                 a->head_dim,
                                 a->theta,
                                 a->inverse ? -1.0f : 1.0f};
    const int half = a->head_dim / 2;
    constexpr int width = tv_width<T>;
    const bool is_aligned = half % width == 0 && tv_is_aligned<width>(work.x, a->ld_x);
    const int64_t groups = tv_ceil_div(a->rows, group);
    const unsigned blocks = (unsigned)(groups < most_blocks ? groups : most_blocks);
    return tv_launch(is_aligned ? turn<width, T> : turn<1, T>, blocks, 256,
                     (size_t)half * (sizeof(double) + 2 * group * sizeof(float)), stream, work);
}
} // namespace

TV_CUDA_ENTRIES(rotary, tv_rotary_args, rotary)
