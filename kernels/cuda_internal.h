/* kernels/cuda_internal.h -- what the CUDA kernels share: launches, elements, reductions.
 *
 * Elements are read into fp32 and rounded once when they are stored. All sums have a fixed order: no atomics on floats.
 * Kernels are launched with tv_launch (never <<<>>>): a C++ compiler builds the same sources for the emulation of
 * tests/emulation, where every thread of a block or of a warp must reach a barrier or shuffle: no early return before
 * one. Blocks have a multiple of 32 threads. */
#ifndef TV_KERNELS_CUDA_INTERNAL_H
#define TV_KERNELS_CUDA_INTERNAL_H
#include "base/device_cuda.h"
#include "kernels/kernels_internal.h"
#include "kernels/mma_internal.h"
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <type_traits>
#include <utility>

#define TV_CUDA_F32(op)  TV_KERNEL_NAME(op, cuda, f32) /* tv_add_cuda_f32 */
#define TV_CUDA_BF16(op) TV_KERNEL_NAME(op, cuda, bf16)
/* The entries of both tables by one template: TV_CUDA_ENTRIES(add, tv_add_args, add) calls
 * add<float> and add<__nv_bfloat16>(stream, args). */
#define TV_CUDA_ENTRIES(op, args, function)                                                        \
    extern "C" tv_status_t TV_CUDA_F32(op)(tv_stream * stream, const args *a)                      \
    {                                                                                              \
        return function<float>(stream, a);                                                         \
    }                                                                                              \
    extern "C" tv_status_t TV_CUDA_BF16(op)(tv_stream * stream, const args *a)                     \
    {                                                                                              \
        return function<__nv_bfloat16>(stream, a);                                                 \
    }

/* The same for operations on floats alone. */
#define TV_CUDA_ENTRIES_OF_FLOATS(op, args, function)                                              \
    extern "C" tv_status_t TV_CUDA_F32(op)(tv_stream * stream, const args *a)                      \
    {                                                                                              \
        return function(stream, a);                                                                \
    }                                                                                              \
    extern "C" tv_status_t TV_CUDA_BF16(op)(tv_stream * stream, const args *a)                     \
    {                                                                                              \
        return function(stream, a);                                                                \
    }

TV_BEGIN_C
#define TV_KERNEL_CUDA(op, args)                                                                   \
    tv_status_t TV_CUDA_F32(op)(struct tv_stream * stream, const struct args *a);                  \
    tv_status_t TV_CUDA_BF16(op)(struct tv_stream * stream, const struct args *a);
TV_KERNEL_LIST(TV_KERNEL_CUDA)
#undef TV_KERNEL_CUDA
TV_END_C

/* The block's dynamic shared memory, as `type *name`, 128-byte aligned. */
#ifndef TV_SHARED_DYNAMIC
#define TV_SHARED_DYNAMIC(type, name)                                                              \
    extern __shared__ __align__(128) unsigned char tv_shared_bytes[];                              \
    type *const name = reinterpret_cast<type *>(tv_shared_bytes)
#endif

inline tv_status_t tv_cuda_status(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return TV_OK;
    return TV_ERR(error == cudaErrorMemoryAllocation ? TV_NO_MEMORY : TV_INTERNAL, "CUDA: %s: %s",
                  what, cudaGetErrorString(error));
}

/* Enqueue kernel(args...); a grid of no blocks is nothing to do. */
template <typename... Params, typename... Args>
tv_status_t tv_launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                      tv_stream *stream, Args &&...args)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return TV_OK;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(tv_cuda_stream(stream));
    return tv_cuda_status(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...),
                          "a launch");
}

/* tv_launch of a kernel with more than 48 KiB of dynamic shared memory. */
template <typename... Params>
tv_status_t tv_launch_shared(void (*kernel)(Params...), dim3 grid, unsigned threads, int bytes,
                             tv_stream *stream, const Params &...args)
{
    TV_TRY(tv_cuda_status(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of a kernel"));
    return tv_launch(kernel, grid, dim3(threads), static_cast<size_t>(bytes), stream, args...);
}

__host__ __device__ inline int64_t tv_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Blocks for `items` pieces of work, `per_block` at a time; kernels stride by the grid, so that more are not needed. */
inline unsigned tv_grid(int64_t items, int64_t per_block)
{
    const int64_t blocks = tv_ceil_div(items, per_block), most = 1 << 20;
    return (unsigned)(blocks < most ? blocks : most);
}

/* Threads of a block that walks `items` pieces of a row: whole warps, at most `most`. */
inline unsigned tv_row_threads(int64_t items, int64_t most)
{
    const int64_t threads = 32 * tv_ceil_div(items, 32);
    return (unsigned)(threads < 32 ? 32 : threads < most ? threads : most);
}

/* ---- elements ---- */
__device__ inline float tv_to_float(float x)
{
    return x;
}
__device__ inline float tv_to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
template <typename T> __device__ inline T tv_from_float(float x)
{
    if constexpr (std::is_same<T, float>::value)
        return x;
    else
        return __float2bfloat16_rn(x);
}

template <typename T> constexpr int tv_width = 16 / (int)sizeof(T); /* elements in 16 bytes */
template <typename T, int N> struct alignas(sizeof(T) * N) tv_pack {
    T at[N];
};
/* N elements at an address that is a multiple of their bytes. */
template <int N, typename T> __device__ inline tv_pack<T, N> tv_load_pack(const T *from)
{
    return *reinterpret_cast<const tv_pack<T, N> *>(from);
}
template <int N, typename T>
__device__ inline void tv_unpack(const tv_pack<T, N> &pack, float out[N])
{
    if constexpr (std::is_same<T, __nv_bfloat16>::value && N % 2 == 0) {
        const uint32_t *const words = reinterpret_cast<const uint32_t *>(&pack);
#pragma unroll
        for (int i = 0; i < N; i += 2) { /* an instruction for each */
            out[i] = __uint_as_float(words[i / 2] << 16);
            out[i + 1] = __uint_as_float(words[i / 2] & 0xffff0000u);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++)
            out[i] = tv_to_float(pack.at[i]);
    }
}
template <int N, typename T> __device__ inline void tv_load_floats(const T *from, float out[N])
{
    tv_unpack<N>(tv_load_pack<N>(from), out);
}
template <int N, typename T> __device__ inline tv_pack<T, N> tv_round_floats(const float in[N])
{
    tv_pack<T, N> pack;
    if constexpr (std::is_same<T, __nv_bfloat16>::value && N % 2 == 0) {
        uint32_t *const words = reinterpret_cast<uint32_t *>(&pack);
#pragma unroll
        for (int i = 0; i < N; i += 2)
            words[i / 2] = tv_pack_bf16(in[i], in[i + 1]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++)
            pack.at[i] = tv_from_float<T>(in[i]);
    }
    return pack;
}
template <int N, typename T> __device__ inline void tv_store_pack(T *to, const tv_pack<T, N> &pack)
{
    *reinterpret_cast<tv_pack<T, N> *>(to) = pack;
}
/* To global memory by one store, also where the compiler would make several of it. */
template <int N, typename T>
__device__ inline void tv_store_pack_whole(T *to, const tv_pack<T, N> &pack)
{
    if constexpr (sizeof(pack) == 16)
        tv_store_global_16(to, *reinterpret_cast<const uint4 *>(&pack));
    else
        tv_store_pack<N>(to, pack);
}
template <int N, typename T> __device__ inline void tv_store_floats(T *to, const float in[N])
{
    tv_store_pack<N>(to, tv_round_floats<N, T>(in));
}
/* May N elements of T be read at once, at data and every ld elements behind it? NULL: yes. */
template <int N, typename T> inline bool tv_is_aligned(const T *data, int64_t ld = 0)
{
    return reinterpret_cast<uintptr_t>(data) % (N * sizeof(T)) == 0 && ld % N == 0;
}

/* ---- many arrays in one launch ----
 * What a kernel needs to know of N arrays at most, as an argument of it; array i has the blocks from first_block[i] to
 * first_block[i + 1]. Arguments of a kernel may have 4 KiB in all. */
template <typename Of, int N> struct tv_batch {
    unsigned first_block[N + 1];
    int num;
    Of of[N];
};
/* Add an array of `blocks` blocks, of which there is room for. */
template <typename Of, int N>
void tv_batch_add(tv_batch<Of, N> &batch, const Of &of, int64_t blocks)
{
    batch.of[batch.num] = of;
    batch.first_block[batch.num + 1] = batch.first_block[batch.num] + (unsigned)blocks;
    batch.num++;
}
/* Whose block this is. */
template <typename Of, int N> __device__ inline int tv_batch_find(const tv_batch<Of, N> &batch)
{
    int low = 0, high = batch.num; /* the last whose first block is not behind this one */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (batch.first_block[middle] <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* ---- reductions: the same bits in every thread ---- */
struct tv_plus {
    template <typename T> __device__ T operator()(T a, T b) const
    {
        return a + b;
    }
};
struct tv_most { /* NaN once there is one */
    template <typename T> __device__ T operator()(T a, T b) const
    {
        return a >= b || a != a ? a : b;
    }
};
template <typename T, typename Op> __device__ inline T tv_warp_reduce(T value, Op op)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2)
        value = op(value, __shfl_xor_sync(0xffffffffu, value, bits));
    return value;
}
template <typename T> __device__ inline T tv_warp_sum(T value)
{
    return tv_warp_reduce(value, tv_plus());
}
/* Of the whole block, of one dimension; `identity` is op's. */
template <typename T, typename Op> __device__ inline T tv_block_reduce(T value, Op op, T identity)
{
    __shared__ T of_warp[32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    value = tv_warp_reduce(value, op);
    __syncthreads(); /* an earlier reduction is over */
    if (lane == 0)
        of_warp[warp] = value;
    __syncthreads();
    value = lane < blockDim.x / 32 ? of_warp[lane] : identity;
    return tv_warp_reduce(value, op);
}
template <typename T> __device__ inline T tv_block_sum(T value)
{
    return tv_block_reduce(value, tv_plus(), T(0));
}

/* ---- elementwise operations ----
 * Work has a method run<N>(row, col) for N neighbouring elements, all at aligned addresses where N > 1; its N is
 * `width` wherever the host found that tensors allow it, and 1 in what is left of a row. A warp takes 32 N columns of
 * two rows, of an array (one row) a block 256 N: nothing is divided to find a thread's place. */
template <int N, typename Work>
__global__ void __launch_bounds__(256, 6) tv_map_kernel(Work work, int64_t rows, int64_t cols)
{
    const int64_t col = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    const int64_t step = gridDim.y * blockDim.y;
    for (int64_t row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += step) {
        if (col + N <= cols)
            work.template run<N>(row, col);
        else
            for (int64_t c = col; c < cols; c++)
                work.template run<1>(row, c);
    }
}
template <int width, typename Work>
tv_status_t tv_map(tv_stream *stream, bool is_aligned, int64_t rows, int64_t cols, const Work &work)
{
    const dim3 block = rows == 1 ? dim3(256) : dim3(32, 8);
    const int64_t tiles = tv_ceil_div(cols, (int64_t)block.x * (is_aligned ? width : 1));
    const int64_t strips = tv_ceil_div(rows, 2 * block.y), most = UINT16_MAX; /* of a grid */
    return tv_launch(is_aligned ? tv_map_kernel<width, Work> : tv_map_kernel<1, Work>,
                     dim3((unsigned)tiles, (unsigned)(strips < most ? strips : most)), block, 0,
                     stream, work, rows, cols);
}

/* The same for arrays, where 16 bytes a thread are too little in flight: Work has held<N> = load<N>(i), of at_once
 * packs before the first of them goes on, and finish<N>(i, got). Every block takes at_once * 256 packs. */
template <int N, typename Work>
__global__ void __launch_bounds__(256) tv_array_kernel(Work work, int64_t count)
{
    constexpr int at_once = Work::at_once;
    typename Work::template held<N> got[at_once] = {};
    const int64_t first = ((int64_t)blockIdx.x * at_once * 256 + threadIdx.x) * N;
#pragma unroll
    for (int j = 0; j < at_once; j++)
        if (first + j * 256 * N + N <= count)
            got[j] = work.template load<N>(first + j * 256 * N);
#pragma unroll
    for (int j = 0; j < at_once; j++) {
        const int64_t i = first + j * 256 * N;
        if (i + N <= count)
            work.template finish<N>(i, got[j]);
        else
            for (int64_t k = i; k < count; k++)
                work.template finish<1>(k, work.template load<1>(k));
    }
}
template <int width, typename Work>
tv_status_t tv_map_array(tv_stream *stream, bool is_aligned, int64_t count, const Work &work)
{
    const int64_t per_block = 256 * (is_aligned ? width : 1) * Work::at_once;
    return tv_launch(is_aligned ? tv_array_kernel<width, Work> : tv_array_kernel<1, Work>,
                     (unsigned)tv_ceil_div(count, per_block), 256, 0, stream, work, count);
}

/* ---- sums of columns ----
 * Work says what a row adds to N neighbouring columns of each of K sums, in two steps, each called once: held<N> =
 * load<N>(row, col), of rows_at_once before the first of them goes on; and terms<N>(row, col, got, term[K][N]), which
 * may write where only it has read. Of it `blocks` run on a processor at once. Strips of rows are added up in fp32, at
 * most 128 (or rows / 2^15) by a thread, then in fixed orders: 8 strips of a chunk in fp32, all chunks in double. Sizes
 * alone say how rows are cut, for the same bits on every GPU. */
template <typename T, int N> struct tv_two_packs {
    tv_pack<T, N> a, b;
};
constexpr int tv_strips = 8;
template <int K, int N, typename Work>
__global__ void __launch_bounds__(256, Work::blocks)
    tv_column_chunks_kernel(Work work, int64_t rows, int64_t cols, int64_t chunk_rows,
                            float *chunks)
{
    __shared__ float strips[tv_strips][K][32 * N];
    const int lane = (int)threadIdx.x % 32, strip = (int)threadIdx.x / 32;
    const int64_t tile = (int64_t)blockIdx.x * 32 * N, col = tile + lane * N;
    const int64_t first = blockIdx.y * chunk_rows;
    const int64_t last = first + chunk_rows < rows ? first + chunk_rows : rows;
    constexpr int at_once = Work::rows_at_once;
    float sum[K][N] = {};
    for (int64_t row = col < cols ? first + strip : last; row < last; row += at_once * tv_strips) {
        typename Work::template held<N> got[at_once] = {};
#pragma unroll
        for (int i = 0; i < at_once; i++)
            if (row + i * tv_strips < last)
                got[i] = work.template load<N>(row + i * tv_strips, col);
#pragma unroll
        for (int i = 0; i < at_once; i++)
            if (row + i * tv_strips < last) {
                float term[K][N];
                work.template terms<N>(row + i * tv_strips, col, got[i], term);
#pragma unroll
                for (int j = 0; j < K * N; j++)
                    sum[j / N][j % N] += term[j / N][j % N];
            }
    }
#pragma unroll
    for (int i = 0; i < K * N; i++)
        strips[strip][i / N][lane * N + i % N] = sum[i / N][i % N];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < K * 32 * N; i += 256) {
        const int k = i / (32 * N), c = i % (32 * N);
        float total = 0;
        for (int s = 0; s < tv_strips; s++)
            total += strips[s][k][c];
        if (tile + c < cols)
            chunks[((int64_t)k * gridDim.y + blockIdx.y) * cols + tile + c] = total;
    }
}
template <int K> struct tv_columns {
    float *of[K];    /* [cols] each; NULL: not wanted */
    bool accumulate; /* sums are added to what is there; else written */
};
/* A block adds up 32 columns of one sum: a warp every 32nd chunk, then the warps in order. */
constexpr int tv_total_warps = 32;
template <int K>
__global__ void __launch_bounds__(32 * tv_total_warps)
    tv_column_totals_kernel(const float *chunks, int64_t num_chunks, int64_t cols,
                            tv_columns<K> out)
{
    constexpr int at_once = 8;
    __shared__ double of_warp[tv_total_warps][32];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int64_t col = (int64_t)blockIdx.x * 32 + lane;
    float *const to = out.of[blockIdx.y];
    const float *const from = chunks + (int64_t)blockIdx.y * num_chunks * cols + col;
    const bool is_wanted = to != nullptr && col < cols;
    const int64_t end = is_wanted ? num_chunks : 0;
    double sum = 0;
    for (int64_t first = warp; first < end; first += at_once * tv_total_warps) {
        float part[at_once];
#pragma unroll
        for (int i = 0; i < at_once; i++) {
            const int64_t chunk = first + i * tv_total_warps;
            part[i] = chunk < end ? from[chunk * cols] : 0;
        }
#pragma unroll
        for (int i = 0; i < at_once; i++)
            sum += part[i];
    }
    of_warp[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || !is_wanted)
        return;
    double total = out.accumulate ? to[col] : 0;
    for (int w = 0; w < tv_total_warps; w++)
        total += of_warp[w][lane];
    to[col] = (float)total;
}
/* out.of[k][c] = (+=) sum over the chunks [K, num_chunks, cols] */
template <int K>
tv_status_t tv_add_chunks(tv_stream *stream, const float *chunks, int64_t num_chunks, int64_t cols,
                          const tv_columns<K> &out)
{
    return tv_launch(tv_column_totals_kernel<K>, dim3((unsigned)tv_ceil_div(cols, 32), K),
                     32 * tv_total_warps, 0, stream, chunks, num_chunks, cols, out);
}
/* Rows of a strip: such that large GPUs run all blocks at once, 4 on each of 132 processors, unless strips are too
 * long then. */
inline int64_t tv_strip_rows(int64_t rows, int64_t tiles)
{
    const int64_t most_chunks = 4096, blocks = 4 * 132, longest = 128;
    const int64_t wanted = 4 * tv_ceil_div(rows * tiles, 4 * tv_strips * blocks);
    const int64_t fair = wanted < 4 ? 4 : wanted < longest ? wanted : longest;
    const int64_t least = tv_ceil_div(rows, most_chunks * tv_strips);
    return fair > least ? fair : least;
}
/* out.of[k][c] = (+=) sum over the rows of term k. is_aligned: N may be used (cols % N == 0 too). */
template <int K, int N, typename Work>
tv_status_t tv_add_column_sums(tv_stream *stream, bool is_aligned, int64_t rows, int64_t cols,
                               const Work &work, const tv_columns<K> &out)
{
    if (cols == 0)
        return TV_OK;
    if (rows == 0)
        return tv_add_chunks<K>(stream, nullptr, 0, cols, out);
    const int64_t tiles = tv_ceil_div(cols, is_aligned ? 32 * N : 32);
    const int64_t chunk_rows = tv_strips * tv_strip_rows(rows, tiles);
    const int64_t num_chunks = tv_ceil_div(rows, chunk_rows);
    void *room;
    TV_TRY(tv_cuda_workspace(stream, (size_t)(K * num_chunks * cols) * sizeof(float), &room));
    float *const chunks = static_cast<float *>(room);
    const dim3 grid((unsigned)tiles, (unsigned)num_chunks);
    TV_TRY(tv_launch(is_aligned ? tv_column_chunks_kernel<K, N, Work>
                                : tv_column_chunks_kernel<K, 1, Work>,
                     grid, 256, 0, stream, work, rows, cols, chunk_rows, chunks));
    return tv_add_chunks<K>(stream, chunks, num_chunks, cols, out);
}
#endif
