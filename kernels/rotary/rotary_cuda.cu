/* rotary_cuda.cu -- rotary embedding (arXiv:2104.09864), half-split.
 *
 * A block works out the frequencies once, in shared memory, and walks rows. Angles reach 1e5 and more: they are in
 * double until they are within half a turn, sine and cosine in fp32. */
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

template <int N, typename T> __global__ void __launch_bounds__(256) turn(rotary_work<T> a)
{
    TV_SHARED_DYNAMIC(double, frequency); /* [half] */
    const int half = a.dim / 2, per_head = half / N;
    for (int i = (int)threadIdx.x; i < half; i += (int)blockDim.x)
        frequency[i] = pow(a.theta, -2.0 * i / a.dim);
    __syncthreads();
    const double turn_angle = 6.28318530717958647692;
    const int64_t per_row = (int64_t)a.heads * per_head;
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const double place = (double)(a.positions != nullptr ? a.positions[r] : r % a.seq_length);
        for (int64_t j = threadIdx.x; j < per_row; j += blockDim.x) {
            const int head = (int)(j / per_head), i = (int)(j % per_head) * N;
            T *const low_at = a.x + r * a.ld + (int64_t)head * a.dim + i;
            float low[N], high[N];
            tv_load_floats<N>(low_at, low);
            tv_load_floats<N>(low_at + half, high);
#pragma unroll
            for (int k = 0; k < N; k++) {
                const double angle = place * frequency[i + k];
                const float within = (float)(angle - turn_angle * rint(angle / turn_angle));
                const float cosine = cosf(within), sine = a.direction * sinf(within);
                const float x = low[k], y = high[k];
                low[k] = x * cosine - y * sine;
                high[k] = y * cosine + x * sine;
            }
            tv_store_floats<N>(low_at, low);
            tv_store_floats<N>(low_at + half, high);
        }
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
    const bool is_aligned = half % 4 == 0 && tv_is_aligned<4>(work.x, a->ld_x);
    const unsigned blocks = (unsigned)(a->rows < most_blocks ? a->rows : most_blocks);
    return tv_launch(is_aligned ? turn<4, T> : turn<1, T>, blocks, 256,
                     (size_t)half * sizeof(double), stream, work);
}
} // namespace

TV_CUDA_ENTRIES(rotary, tv_rotary_args, rotary)
