/* embedding_cuda.cu -- rows of a table by id, and their gradient without atomics on floats.
 *
 * Backward sorts the rows by id, stably, so that those of one id stand together in ascending order; the first one's
 * block adds them all up, row after row, as the reference does. The sort: least significant digit first, 8 bits at a
 * time; ids that are not held sort behind all others as `num`. Cost: 12 bytes of memory for each row and digit, and dy
 * once. */
#include "kernels/cuda_internal.h"

namespace
{
template <typename T> struct gather_work {
    tv_embedding_args a;
    template <int N> __device__ void run(int64_t row, int64_t col) const
    {
        const int64_t id = a.ids[row] - a.first;
        T *const y = static_cast<T *>(a.y) + row * a.cols + col;
        float v[N] = {}, sum[N] = {};
        if (id >= 0 && id < a.num)
            tv_load_floats<N>(static_cast<const T *>(a.table) + id * a.cols + col, v);
        if (a.accumulate)
            tv_load_floats<N>(y, sum);
#pragma unroll
        for (int k = 0; k < N; k++)
            v[k] = a.accumulate ? sum[k] + v[k] : v[k];
        tv_store_floats<N>(y, v);
    }
};

template <typename T> tv_status_t embedding_forward(tv_stream *stream, const tv_embedding_args *a)
{
    constexpr int width = tv_width<T>;
    const bool is_aligned = tv_is_aligned<width>(static_cast<const T *>(a->table), a->cols) &&
                            tv_is_aligned<width>(static_cast<const T *>(a->y));
    return tv_map<width>(stream, is_aligned, a->rows, a->cols, gather_work<T>{*a});
}

/* Rows that a block sorts; fewer in the emulation, so that small cases have many. */
#ifndef TV_SORT_TILE
#define TV_SORT_TILE 256
#endif
constexpr int digits = 256, threads = 256, tile = TV_SORT_TILE; /* digits: values of one */
static_assert(threads == digits, "a thread for each value of a digit");

struct sorted_row {
    uint32_t key;
    int32_t row;
};
/* The rows in the order that the sort has reached. */
struct sort_state {
    sorted_row *from, *to; /* [rows] */
    uint32_t
        *counts; /* [digits, tiles]: rows of each tile with that digit; then of those before it */
    uint32_t *totals; /* [digits]: rows with that digit */
    int64_t rows, tiles;
    int shift; /* of the digit at hand */
};

__device__ int digit_of(uint32_t key, int shift)
{
    return (int)(key >> shift) & (digits - 1);
}

__global__ void __launch_bounds__(threads)
    make_keys(const int32_t *ids, int64_t first, int64_t num, sort_state s)
{
    const int64_t step = (int64_t)gridDim.x * threads;
    for (int64_t r = (int64_t)blockIdx.x * threads + threadIdx.x; r < s.rows; r += step) {
        const int64_t id = ids[r] - first;
        s.to[r] = {(uint32_t)(id >= 0 && id < num ? id : num), (int32_t)r};
    }
}

__global__ void __launch_bounds__(threads) count_digits(sort_state s)
{
    __shared__ uint32_t count[digits];
    const int64_t first = blockIdx.x * (int64_t)tile;
    for (int d = (int)threadIdx.x; d < digits; d += threads)
        count[d] = 0;
    __syncthreads();
    for (int64_t i = first + threadIdx.x; i < first + tile && i < s.rows; i += threads)
        atomicAdd(&count[digit_of(s.from[i].key, s.shift)], 1u);
    __syncthreads();
    for (int d = (int)threadIdx.x; d < digits; d += threads)
        s.counts[d * s.tiles + blockIdx.x] = count[d];
}

/* The sum of the values of all threads before this one. */
__device__ uint32_t sum_below(uint32_t value)
{
    __shared__ uint32_t of_warp[threads / 32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = value;
#pragma unroll
    for (unsigned step = 1; step < 32; step *= 2) {
        const uint32_t below = __shfl_sync(0xffffffffu, sum, (int)((lane - step) % 32));
        sum += lane >= step ? below : 0;
    }
    if (lane == 31)
        of_warp[warp] = sum;
    __syncthreads();
    for (unsigned w = 0; w < warp; w++)
        sum += of_warp[w];
    return sum - value;
}

/* A block for each digit, each thread a piece of its tiles: counts become the sums of those before them. */
__global__ void __launch_bounds__(threads) sum_before(sort_state s)
{
    uint32_t *const counts = s.counts + blockIdx.x * s.tiles;
    const int64_t piece = tv_ceil_div(s.tiles, threads), first = threadIdx.x * piece;
    const int64_t last = first + piece < s.tiles ? first + piece : s.tiles;
    uint32_t sum = 0;
    for (int64_t i = first; i < last; i++)
        sum += counts[i];
    const uint32_t before = sum_below(sum);
    if (threadIdx.x == threads - 1)
        s.totals[blockIdx.x] = before + sum;
    sum = before;
    for (int64_t i = first; i < last; i++) {
        const uint32_t here = counts[i];
        counts[i] = sum;
        sum += here;
    }
}

/* A row goes behind those of lower digits, of its digit in earlier tiles, and of these in its tile before it. */
__global__ void __launch_bounds__(threads) move_rows(sort_state s)
{
    __shared__ sorted_row rows[tile];
    __shared__ uint32_t start[digits];
    const int64_t first = blockIdx.x * (int64_t)tile;
    const int count = (int)(s.rows - first < tile ? s.rows - first : tile);
    for (int i = (int)threadIdx.x; i < count; i += threads)
        rows[i] = s.from[first + i];
    start[threadIdx.x] = sum_below(s.totals[threadIdx.x]);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < count; i += threads) {
        const int digit = digit_of(rows[i].key, s.shift);
        uint32_t before = start[digit] + s.counts[digit * s.tiles + blockIdx.x];
        for (int j = 0; j < i; j++)
            before += digit_of(rows[j].key, s.shift) == digit;
        s.to[before] = rows[i];
    }
}

tv_status_t sort_rows(tv_stream *stream, const tv_embedding_backward_args *a, sort_state *s)
{
    const unsigned tiles = (unsigned)s->tiles;
    TV_TRY(tv_launch(make_keys, tv_grid(a->rows, threads), threads, 0, stream, a->ids, a->first,
                     a->num, *s));
    for (s->shift = 0; s->shift < 32 && a->num >> s->shift != 0; s->shift += 8) {
        std::swap(s->from, s->to);
        TV_TRY(tv_launch(count_digits, tiles, threads, 0, stream, *s));
        TV_TRY(tv_launch(sum_before, digits, threads, 0, stream, *s));
        TV_TRY(tv_launch(move_rows, tiles, threads, 0, stream, *s));
    }
    return TV_OK;
}

/* Blocks [position in the sorted order, part of the columns]; those that are not the first of their id have nothing to
 * do. Rows are read a few ahead of the additions. */
template <int N, typename T>
__global__ void __launch_bounds__(threads)
    add_rows(const sorted_row *sorted, const T *dy, float *table, int64_t rows, int64_t cols,
             int64_t num)
{
    constexpr int ahead = 4;
    const int64_t c = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N;
    for (int64_t p = blockIdx.x; p < rows; p += gridDim.x) {
        const uint32_t key = sorted[p].key;
        if (key == num || c >= cols || (p > 0 && sorted[p - 1].key == key))
            continue;
        float sum[N];
        float *const to = table + (int64_t)key * cols + c;
        tv_load_floats<N>(to, sum);
        for (int64_t q = p; q < rows && sorted[q].key == key; q += ahead) {
            float v[ahead][N] = {};
            bool is_ours[ahead];
#pragma unroll
            for (int i = 0; i < ahead; i++) {
                is_ours[i] = q + i < rows && sorted[q + i].key == key;
                if (is_ours[i])
                    tv_load_floats<N>(dy + sorted[q + i].row * cols + c, v[i]);
            }
#pragma unroll
            for (int i = 0; i < ahead * N; i++)
                if (is_ours[i / N])
                    sum[i % N] += v[i / N][i % N];
        }
        tv_store_floats<N>(to, sum);
    }
}

template <typename T>
tv_status_t embedding_backward(tv_stream *stream, const tv_embedding_backward_args *a)
{
    if (a->rows == 0 || a->cols == 0 || a->num == 0)
        return TV_OK;
    if (a->rows > INT32_MAX || a->num > UINT32_MAX - 1)
        return TV_ERR(TV_UNSUPPORTED, "an embedding's gradient of %lld rows", (long long)a->rows);
    sort_state s = {};
    s.rows = a->rows;
    s.tiles = tv_ceil_div(a->rows, tile);
    void *room;
    TV_TRY(tv_cuda_workspace(
        stream, (size_t)(2 * a->rows) * sizeof(sorted_row) + (size_t)(digits * (s.tiles + 1)) * 4,
        &room));
    s.from = static_cast<sorted_row *>(room);
    s.to = s.from + a->rows;
    s.totals = reinterpret_cast<uint32_t *>(s.to + a->rows);
    s.counts = s.totals + digits;
    TV_TRY(sort_rows(stream, a, &s));
    const T *const dy = static_cast<const T *>(a->dy);
    const bool is_aligned = tv_is_aligned<4>(dy, a->cols) && tv_is_aligned<4>(a->dtable);
    const int64_t by_thread = is_aligned ? 4 : 1;
    const unsigned block = tv_row_threads(tv_ceil_div(a->cols, by_thread), threads);
    const dim3 grid(tv_grid(a->rows, 1), (unsigned)tv_ceil_div(a->cols, block * by_thread));
    return tv_launch(is_aligned ? add_rows<4, T> : add_rows<1, T>, grid, block, 0, stream,
                     static_cast<const sorted_row *>(s.to), dy, a->dtable, a->rows, a->cols,
                     a->num);
}
} // namespace

TV_CUDA_ENTRIES(embedding_forward, tv_embedding_args, embedding_forward)
TV_CUDA_ENTRIES(embedding_backward, tv_embedding_backward_args, embedding_backward)
