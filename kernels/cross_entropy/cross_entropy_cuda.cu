/* cross_entropy_cuda.cu -- softmax cross-entropy over this rank's columns: a block for each row, which reads the logits
 * once for maximum and sum together (online softmax: Milakov, Gimelshein 2018, arXiv:1805.02867) and once more for the
 * gradient. Sums: fp32 in a thread, double over the block.
 *
 * Loss and gradient at once read a row once: its block copies it to shared memory, 16 bytes at a time and all of it at
 * once, makes loss and gradient from the copy, and lets the next row take each place as its gradient is stored. The
 * same functions in the same order with as many threads give the bits of the kernels one after the other. Those take
 * the rows that a block's shared memory cannot hold (on compute capability 9.0 more than 115 thousand columns of bf16,
 * or 57 thousand of fp32; on 8.0 82 and 41 thousand), and rows that do not begin at multiples of 16 bytes. */
#include "kernels/cuda_internal.h"
#include "kernels/mma_internal.h"

namespace
{
constexpr int most_threads = 512;
constexpr int ahead = 4; /* packs that a thread takes at once */

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

/* Where part_of_row finds a row: N elements at once, and one of those behind the last N; it says before it takes the
 * next `ahead` packs, and before it takes what is left. */
template <typename T> struct row_in_memory {
    const T *row;
    __device__ void await_next()
    {
    }
    __device__ void await_all()
    {
    }
    template <int N> __device__ tv_pack<T, N> pack(int64_t c) const
    {
        return tv_load_pack<N>(row + c);
    }
    __device__ float one(int64_t c) const
    {
        return tv_to_float(row[c]);
    }
};
template <typename T> struct row_in_copy {
    const T *copy;
    T last;     /* the thread's own, if any */
    int behind; /* groups of copies behind the next one, at least 1 */
    __device__ void await_next()
    {
        switch (behind) {
        case 1:
            tv_copy_async_wait<1>();
            break;
        case 2:
            tv_copy_async_wait<2>();
            break;
        default: /* of many groups the first ones could come earlier */
            tv_copy_async_wait<3>();
        }
        behind--;
    }
    __device__ void await_all()
    {
        tv_copy_async_wait<0>();
    }
    template <int N> __device__ tv_pack<T, N> pack(int64_t c) const
    {
        return tv_load_pack<N>(copy + c);
    }
    __device__ float one(int64_t) const
    {
        return tv_to_float(last);
    }
};

/* A thread has `ahead` loads under way. */
template <int N, typename T, bool with_total, typename Row>
__device__ inline row_part<T, with_total> part_of_row(Row row, int64_t cols)
{
    const int64_t whole = cols / N * N, stride = (int64_t)blockDim.x * N;
    row_part<T, with_total> part;
    int64_t c = (int64_t)threadIdx.x * N;
    for (; c + (ahead - 1) * stride < whole; c += ahead * stride) {
        tv_pack<T, N> pack[ahead];
        row.await_next();
#pragma unroll
        for (int i = 0; i < ahead; i++)
            pack[i] = row.template pack<N>(c + i * stride);
        float v[ahead * N];
#pragma unroll
        for (int i = 0; i < ahead; i++)
            tv_unpack<N>(pack[i], v + i * N);
        part.take(v);
    }
    row.await_all();
    for (; c < whole; c += stride) {
        float v[N];
        tv_unpack<N>(row.template pack<N>(c), v);
        part.take(v);
    }
    for (c = whole + threadIdx.x; c < cols; c += blockDim.x) {
        const float v[1] = {row.one(c)};
        part.take(v);
    }
    return part;
}

/* What the loss needs of a row: struct tv_cross_entropy_args. */
struct row_numbers {
    float most, sum, rest;
};
/* By the whole block; the same in all threads. */
template <int N, typename T, bool with_total, typename Row>
__device__ inline row_numbers numbers_of_row(Row row, int64_t cols)
{
    row_part<T, with_total> part = part_of_row<N, T, with_total>(row, cols);
    float most = tv_block_reduce(part.most, larger(), -INFINITY);
    if (part.most != most)
        part.sum *= expf(part.most - most);
    const double sum = tv_block_sum((double)part.sum);
    const double total = with_total ? tv_block_sum((double)part.total) : 0;
    if (sum != sum)
        most = NAN;
    const bool has_rest = with_total && cols > 0;
    return {most, (float)sum, has_rest ? (float)(total - (double)cols * (double)most) : 0};
}
/* The target's column; -1 where it is not held here. */
__device__ inline int64_t held_target(const tv_cross_entropy_args &a, int32_t id)
{
    const int64_t target = id - a.first;
    return id >= 0 && target >= 0 && target < a.cols ? target : -1;
}

/* Stores loss and lse of row r; returns lse. */
__device__ inline float store_loss(const tv_cross_entropy_args &a, int64_t r, int32_t id,
                                   row_numbers of, float target_logit)
{
    const double max = (double)of.most, target = (double)target_logit;
    const double lse = max + log((double)of.sum);
    double loss = lse - target;
    if (a.row_rest != nullptr)
        loss += a.smoothing * (target - max) - a.smoothing_per_column * (double)of.rest;
    a.row_lse[r] = (float)lse;
    a.row_loss[r] = id < 0 ? 0 : loss;
    return (float)lse;
}

template <int N, typename T, bool with_total>
__global__ void __launch_bounds__(most_threads, 2) forward_kernel(tv_cross_entropy_args a)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        const T *const row = static_cast<const T *>(a.logits) + r * a.ld;
        const row_numbers of = numbers_of_row<N, T, with_total>(row_in_memory<T>{row}, a.cols);
        if (threadIdx.x != 0)
            continue;
        const int64_t target = held_target(a, a.targets[r]);
        a.row_max[r] = a.row_base[r] = of.most;
        a.row_sum[r] = of.sum;
        a.row_target[r] = target >= 0 ? tv_to_float(row[target]) : 0;
        if (with_total)
            a.row_rest[r] = of.rest;
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
        const float rest = a.row_rest != nullptr ? a.row_rest[r] : 0;
        store_loss(a, r, a.targets[r], {a.row_max[r], a.row_sum[r], rest}, a.row_target[r]);
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

__device__ inline slope_row slope_of_row(const tv_cross_entropy_args &a, int32_t id, float lse)
{
    return {lse, (float)a.smoothing_per_column, (float)(1 - a.smoothing), id - a.first,
            id < 0 ? 0 : a.cols};
}

/* The columns of a row behind `whole`, a thread for each. */
template <typename T>
__device__ inline void slopes_at_end(const slope_row &of, T *row, int64_t whole, int64_t num)
{
    for (int64_t c = whole + threadIdx.x; c < num; c += blockDim.x) {
        float v[1] = {tv_to_float(row[c])};
        of.template slopes<T>(c, v);
        row[c] = tv_from_float<T>(v[0]);
    }
}

/* `num` columns are written, N at a time where there are as many. */
template <int N, typename T>
__global__ void __launch_bounds__(most_threads) slope_kernel(tv_cross_entropy_args a, int64_t num)
{
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        T *const row = static_cast<T *>(a.logits) + r * a.ld;
        const slope_row of = slope_of_row(a, a.targets[r], a.row_lse[r]);
        const int64_t whole = num / N * N;
        for (int64_t c = (int64_t)threadIdx.x * N; c < whole; c += (int64_t)blockDim.x * N) {
            float v[N];
            tv_load_floats<N>(row + c, v);
            of.template slopes<T>(c, v);
            tv_store_floats<N>(row + c, v);
        }
        slopes_at_end(of, row, whole, num);
    }
}

/* What whole_kernel reads of a row besides its copy, a row ahead. */
template <typename T> struct row_ends {
    int32_t id;
    T last; /* this thread's logit behind the last N, if any */
};
template <int N, typename T>
__device__ inline row_ends<T> ends_of_row(const tv_cross_entropy_args &a, int64_t r, const T *row)
{
    const int64_t c = a.cols / N * N + threadIdx.x;
    return {a.targets[r], c < a.cols ? row[c] : tv_from_float<T>(0)};
}

/* Loss and gradient, and a copy of the row between them. A thread copies what it reads, so that it waits for its own
 * copies alone, group by group; only the target's logit is another thread's, behind the barriers of the sums. No more
 * blocks than rows. */
template <int N, typename T, bool with_total>
__global__ void __launch_bounds__(most_threads, 2)
    whole_kernel(tv_cross_entropy_args a, int64_t num)
{
    TV_SHARED_DYNAMIC(T, copy);
    __shared__ float lse;
    const int64_t whole = num / N * N, first = (int64_t)threadIdx.x * N,
                  stride = (int64_t)blockDim.x * N, on = gridDim.x * a.ld;
    T *row = static_cast<T *>(a.logits) + blockIdx.x * a.ld;
    int num_packs = 0;
    for (int64_t c = first; c < whole; c += stride) {
        tv_copy_async_16(copy + c, row + c, true);
        if (++num_packs % ahead == 0)
            tv_copy_async_commit();
    }
    row_ends<T> next = ends_of_row<N>(a, blockIdx.x, row);
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x, row += on) {
        const bool has_next = r + gridDim.x < a.rows;
        const row_ends<T> ends = next;
        tv_copy_async_commit();
        const row_in_copy<T> copied = {copy, ends.last, num_packs / ahead};
        row_numbers of = numbers_of_row<N, T, with_total>(copied, a.cols);
        of.sum += of.most - of.most; /* rebased to the same: NaN where that is infinite */
        of.rest += of.most - of.most;
        if (threadIdx.x == 0) {
            const int64_t at = held_target(a, ends.id);
            const float target = at < 0 ? 0 : tv_to_float(at < whole ? copy[at] : row[at]);
            lse = store_loss(a, r, ends.id, of, target);
        }
        if (has_next)
            next = ends_of_row<N>(a, r + gridDim.x, row + on);
        __syncthreads();
        const slope_row slope = slope_of_row(a, ends.id, lse);
        int n = 0;
        for (int64_t c = first; c < whole; c += stride) {
            float v[N];
            tv_load_floats<N>(copy + c, v);
            slope.template slopes<T>(c, v);
            tv_store_floats<N>(row + c, v);
            if (has_next)
                tv_copy_async_16(copy + c, row + on + c, true);
            if (++n % ahead == 0)
                tv_copy_async_commit();
        }
        slopes_at_end(slope, row, whole, num);
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

int64_t columns_written(const tv_cross_entropy_args *a)
{
    return a->padded > a->cols ? a->padded : a->cols;
}

template <typename T>
tv_status_t cross_entropy_backward(tv_stream *stream, const tv_cross_entropy_args *a)
{
    const int64_t num = columns_written(a);
    return launch_rows<T>(slope_kernel<tv_width<T>, T>, slope_kernel<1, T>, stream, a, num, num);
}

template <typename T> tv_status_t cross_entropy(tv_stream *stream, const tv_cross_entropy_args *a)
{
    constexpr int width = tv_width<T>, of_sums = 1 << 10; /* shared memory besides the copy */
    const tv_cuda_facts *facts = tv_cuda_facts_of(stream);
    const int64_t num = columns_written(a), bytes = num / width * 16;
    if (a->cols == 0 || bytes + of_sums > facts->shared_bytes ||
        !tv_is_aligned<width>(static_cast<const T *>(a->logits), a->ld)) {
        TV_TRY(cross_entropy_forward<T>(stream, a));
        TV_TRY(cross_entropy_rebase(stream, a));
        TV_TRY(cross_entropy_loss(stream, a));
        return cross_entropy_backward<T>(stream, a);
    }
    /* the sums' threads; blocks that a processor has registers for go from row to row */
    const unsigned threads = tv_row_threads(tv_ceil_div(a->cols, width), most_threads);
    const int64_t most = facts->processors * (2 * most_threads / threads);
    return tv_launch_shared(a->row_rest != nullptr ? whole_kernel<width, T, true>
                                                   : whole_kernel<width, T, false>,
                            tv_grid(a->rows < most ? a->rows : most, 1), threads,
                            static_cast<int>(bytes), stream, *a, num);
}
} // namespace

TV_CUDA_ENTRIES(cross_entropy_forward, tv_cross_entropy_args, cross_entropy_forward)
TV_CUDA_ENTRIES_OF_FLOATS(cross_entropy_rebase, tv_cross_entropy_args, cross_entropy_rebase)
TV_CUDA_ENTRIES_OF_FLOATS(cross_entropy_loss, tv_cross_entropy_args, cross_entropy_loss)
TV_CUDA_ENTRIES(cross_entropy_backward, tv_cross_entropy_args, cross_entropy_backward)
TV_CUDA_ENTRIES(cross_entropy, tv_cross_entropy_args, cross_entropy)
