/* norm_cuda_internal.h -- rows of a norm: which threads take them, what backward knows of one, rows that come into
 * shared memory ahead of the work on them, sums over a block. */
#ifndef TV_KERNELS_NORM_CUDA_INTERNAL_H
#define TV_KERNELS_NORM_CUDA_INTERNAL_H
#include "kernels/cuda_internal.h"
#include "kernels/mma_internal.h"

/* Processors of the GPU that backward's grid is made for; sizes alone say how rows are cut, for the same bits on every
 * GPU. Fewer in the emulation, so that a block takes many rows of a small case. */
#ifndef TV_NORM_PROCESSORS
#define TV_NORM_PROCESSORS 132
#endif

namespace tv_norm
{
constexpr int most_warps = 16; /* of a team that is a block */
constexpr int warp_teams = 8;  /* of one warp, in a block */
constexpr int packs = 3;       /* of N elements, that a thread holds of a row in forward */

/* The place of a thread in its team, and its team's among all; P packs of N elements for each thread. */
template <int N, int P, bool is_warp> struct place {
    int lane, size;
    int64_t first_row, step;
    __device__ place()
        : lane(is_warp ? (int)threadIdx.x % 32 : (int)threadIdx.x),
          size(is_warp ? 32 : (int)blockDim.x),
          first_row(is_warp ? (int64_t)blockIdx.x * warp_teams + threadIdx.x / 32
                            : (int64_t)blockIdx.x),
          step((int64_t)gridDim.x * (is_warp ? warp_teams : 1))
    {
    }
    /* fn(p, column) of the packs that lie in a row */
    template <typename Fn> __device__ void for_packs(int64_t cols, Fn fn) const
    {
#pragma unroll
        for (int p = 0; p < P; p++) {
            const int64_t c = (int64_t)(p * size + lane) * N;
            if (c < cols)
                fn(p, c);
        }
    }
    __device__ float sum(float value) const
    {
        return is_warp ? tv_warp_sum(value) : tv_block_sum(value);
    }
};

struct row_numbers {
    float shift, rstd; /* n = (x - shift) rstd */
};
template <typename T> struct slope {
    const T *dy, *x, *weight;
    const float *mean, *rstd; /* mean NULL: RMSNorm */
    T *dx;
    int64_t rows, cols;
    bool adds;
    __device__ row_numbers numbers(int64_t r) const
    {
        if (r >= rows)
            return {0, 0};
        return {mean != nullptr ? mean[r] : 0, rstd[r]};
    }
    /* What a row adds to the gradients of weight and bias. */
    static constexpr int rows_at_once = 1, blocks = 4;
    template <int N> using held = tv_two_packs<T, N>;
    template <int N> __device__ held<N> load(int64_t r, int64_t c) const
    {
        return {tv_load_pack<N>(x + r * cols + c), tv_load_pack<N>(dy + r * cols + c)};
    }
    template <int N>
    __device__ void terms(int64_t r, int64_t, const held<N> &got, float term[2][N]) const
    {
        float v[N];
        const row_numbers row = numbers(r);
        tv_unpack<N>(got.a, v);
        tv_unpack<N>(got.b, term[1]);
#pragma unroll
        for (int k = 0; k < N; k++)
            term[0][k] = term[1][k] * ((v[k] - row.shift) * row.rstd);
    }
};

/* Rows on their way to a thread: two, or one of long rows, are copied while one is worked on. Each thread copies and
 * reads its own packs alone, each by one access: pieces of places that are 16 bytes apart would all come from the same
 * few banks. */
template <int N, int P, typename T> struct row_queue {
    enum { X, DY, DX, num_tensors };
    static constexpr int slots = P == 1 ? 3 : 2; /* at most 96 KiB, which GPUs of all kinds have */
    tv_pack<T, N> *mine; /* the thread's first place of [slots, num_tensors, P, threads] */
    int64_t ahead, at;   /* the row to be copied next, and where the thread's first pack of it is */
    int in, out;         /* slots of that row and of the one to be worked on */
    __device__ row_queue(const slope<T> &a, const place<N, P, false> &here, tv_pack<T, N> *room)
        : mine(room + threadIdx.x), ahead(here.first_row),
          at(here.first_row * a.cols + here.lane * N), in(0), out(0)
    {
        for (int i = 0; i + 1 < slots; i++)
            fetch(a, here);
    }
    __device__ tv_pack<T, N> *place_of(int slot, int tensor, int p) const
    {
        return mine + ((slot * num_tensors + tensor) * P + p) * (int)blockDim.x;
    }
    __device__ static void copy(tv_pack<T, N> *to, const T *from)
    {
        if constexpr (sizeof(tv_pack<T, N>) == 16)
            tv_copy_async_16(to, from, true);
        else
            *to = tv_load_pack<N>(from);
    }
    /* The next row, if there is one, as one group of copies. */
    __device__ void fetch(const slope<T> &a, const place<N, P, false> &here)
    {
        if (ahead < a.rows)
            here.for_packs(a.cols, [&](int p, int64_t) {
                const int64_t i = at + p * here.size * N;
                copy(place_of(in, X, p), a.x + i);
                copy(place_of(in, DY, p), a.dy + i);
                if (a.adds)
                    copy(place_of(in, DX, p), a.dx + i);
            });
        tv_copy_async_commit();
        ahead += here.step;
        at += here.step * a.cols;
        in = in + 1 < slots ? in + 1 : 0;
    }
    __device__ void read(int tensor, int p, float values[N]) const
    {
        tv_load_floats<N>(place_of(out, tensor, p)->at, values);
    }
    __device__ void read_row(int p, float x[N], float dy[N]) const
    {
        read(X, p, x);
        read(DY, p, dy);
    }
    __device__ void pass()
    {
        out = out + 1 < slots ? out + 1 : 0;
    }
    static constexpr int bytes(int threads)
    {
        return slots * num_tensors * P * threads * (int)sizeof(tv_pack<T, N>);
    }
};

/* Two sums of the block, the same bits in every thread: halves of a warp add up one each. of_warps: zeros at first, a
 * and b of two warps in each; another one than in the sum before, so that one barrier is enough. */
constexpr int warp_pairs = most_warps / 2;
__device__ inline void block_sums(float4 of_warps[warp_pairs], float &a, float &b)
{
    const int lane = (int)threadIdx.x % 32;
    const bool is_b = lane >= 16;
    float sum = is_b ? b : a;
    sum += __shfl_xor_sync(0xffffffffu, is_b ? a : b, 16);
#pragma unroll
    for (int bits = 8; bits > 0; bits /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, bits);
    if (lane % 16 == 0)
        reinterpret_cast<float *>(of_warps)[threadIdx.x / 32 * 2 + is_b] = sum;
    __syncthreads();
    const float4 two = of_warps[lane % warp_pairs];
    sum = is_b ? two.y + two.w : two.x + two.z;
#pragma unroll
    for (int bits = warp_pairs / 2; bits > 0; bits /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, bits);
    const float other = __shfl_xor_sync(0xffffffffu, sum, 16);
    a = is_b ? other : sum;
    b = is_b ? sum : other;
}
} // namespace tv_norm
#endif
