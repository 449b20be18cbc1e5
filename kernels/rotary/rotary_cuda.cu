/* rotary_cuda.cu -- rotary embedding (arXiv:2104.09864), half-split.
 *
 * A block works out the frequencies, and the sines and cosines of a few places at a time, in shared memory; all heads
 * share them, and all sequences whose rows stand at these places. Angles reach 1e5 and more: they are in double until
 * they are within half a turn, sine and cosine in fp32. */
#include "kernels/cuda_internal.h"

namespace
{
template <typename T> struct rotary_work {
    T *x;
    int64_t rows, ld;
    const int32_t *positions;
    int64_t places; /* rows of a sequence, or all that have positions of their own */
    int heads, dim;
    double theta;
    float direction; /* 1, or -1 to turn back */
};

constexpr int group = 4; /* places at a time */

/* [group, half] from place `first` on */
template <typename T>
__device__ void find_turns(const rotary_work<T> &a, int64_t first, const double *frequency,
                           float *cosine, float *sine)
{
    const int half = a.dim / 2;
    const double turn_angle = 6.28318530717958647692;
    for (int i = (int)threadIdx.x; i < group * half; i += (int)blockDim.x) {
        const int64_t r = first + i / half;
        if (r >= a.places)
            continue;
        const double place = (double)(a.positions != nullptr ? a.positions[r] : r);
        const double angle = place * frequency[i % half];
        const float within = (float)(angle - turn_angle * rint(angle / turn_angle));
        cosine[i] = cosf(within);
        sine[i] = a.direction * sinf(within);
    }
}

/* N elements of the lower half of a head and their partners of the upper one. */
template <int N, typename T>
__device__ void turn_pair(T *low_at, int half, const float c[N], const float s[N])
{
    float low[N], high[N];
    tv_load_floats<N>(low_at, low);
    tv_load_floats<N>(low_at + half, high);
#pragma unroll
    for (int k = 0; k < N; k++) {
        const float x = low[k], y = high[k];
        low[k] = x * c[k] - y * s[k];
        high[k] = y * c[k] + x * s[k];
    }
    tv_store_floats<N>(low_at, low);
    tv_store_floats<N>(low_at + half, high);
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
    for (int64_t first = (int64_t)blockIdx.x * group; first < a.places;
         first += (int64_t)gridDim.x * group) {
        find_turns(a, first, frequency, cosine, sine);
        __syncthreads();
        for (int j = (int)threadIdx.x; j < group * per_row; j += (int)blockDim.x) {
            const int place = j / per_row, head = j % per_row / per_head, i = j % per_head * N;
            float c[N], s[N];
            if (first + place >= a.places)
                continue;
            tv_load_floats<N>(cosine + place * half + i, c);
            tv_load_floats<N>(sine + place * half + i, s);
            for (int64_t row = first + place + blockIdx.y * a.places; row < a.rows;
                 row += gridDim.y * a.places)
                turn_pair<N>(a.x + row * a.ld + (int64_t)head * a.dim + i, half, c, s);
        }
        __syncthreads(); /* the next places' turns take their room */
    }
}

template <typename T> tv_status_t rotary(tv_stream *stream, const tv_rotary_args *a)
{
    constexpr int64_t most_blocks = 4096, most = UINT16_MAX; /* of a grid across */
    const bool is_shared = a->positions == nullptr && a->seq_length < a->rows;
    const rotary_work<T> work = {static_cast<T *>(a->x),
                                 a->rows,
                                 a->ld_x,
                                 a->positions,
                                 is_shared ? a->seq_length : a->rows,
                                 a->num_heads,
                                 a->head_dim,
                                 a->theta,
                                 a->inverse ? -1.0f : 1.0f};
    const int half = a->head_dim / 2;
    constexpr int width = tv_width<T>;
    const bool is_aligned = half % width == 0 && tv_is_aligned<width>(work.x, a->ld_x);
    if (a->rows == 0 || half == 0)
        return TV_OK;
    const int64_t groups = tv_ceil_div(work.places, group);
    const int64_t blocks = groups < most_blocks ? groups : most_blocks;
    const int64_t parts = tv_ceil_div(a->rows, 4 * work.places); /* four sequences a block */
    const int64_t turned = (int64_t)group * a->num_heads * half / (is_aligned ? width : 1);
    return tv_launch(is_aligned ? turn<width, T> : turn<1, T>,
                     dim3((unsigned)blocks, (unsigned)(parts < most ? parts : most)),
                     tv_row_threads(turned, 256),
                     (size_t)half * (sizeof(double) + 2 * group * sizeof(float)), stream, work);
}
} // namespace

TV_CUDA_ENTRIES(rotary, tv_rotary_args, rotary)
