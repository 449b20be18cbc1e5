/* elementwise_cuda.cu -- sums of two tensors, with and without factors, column sums, sum of squares: all bound by
 * memory, 16 bytes at a time. */
#include "kernels/cuda_internal.h"

namespace
{
template <typename T> struct add_work {
    const T *a, *b;
    T *y;
    template <int N> __device__ void run(int64_t, int64_t i) const
    {
        float x[N], other[N];
        tv_load_floats<N>(a + i, x);
        tv_load_floats<N>(b + i, other);
#pragma unroll
        for (int k = 0; k < N; k++)
            x[k] += other[k];
        tv_store_floats<N>(y + i, x);
    }
};

template <typename T> tv_status_t add(tv_stream *stream, const tv_add_args *args)
{
    constexpr int width = tv_width<T>;
    const add_work<T> work = {static_cast<const T *>(args->a), static_cast<const T *>(args->b),
                              static_cast<T *>(args->y)};
    const bool is_aligned = tv_is_aligned<width>(work.a) && tv_is_aligned<width>(work.b) &&
                            tv_is_aligned<width>(work.y);
    return tv_map<width>(stream, is_aligned, 1, args->count, work);
}

struct axpby_work {
    tv_axpby_args a;
    template <int N> __device__ void run(int64_t row, int64_t col) const
    {
        float x[N], y[N] = {};
        float *const to = a.y + row * a.ld_y + col;
        tv_load_floats<N>(a.x + row * a.ld_x + col, x);
        if (a.beta != 0)
            tv_load_floats<N>(to, y);
#pragma unroll
        for (int k = 0; k < N; k++)
            y[k] = (float)(a.alpha * (double)x[k] + (a.beta == 0 ? 0 : a.beta * (double)y[k]));
        tv_store_floats<N>(to, y);
    }
};

tv_status_t axpby(tv_stream *stream, const tv_axpby_args *a)
{
    const bool is_aligned = tv_is_aligned<4>(a->x, a->ld_x) && tv_is_aligned<4>(a->y, a->ld_y);
    return tv_map<4>(stream, is_aligned, a->rows, a->cols, axpby_work{*a});
}

template <typename T> struct bias_work {
    const T *dy;
    int64_t ld;
    static constexpr int rows_at_once = 4, blocks = 6;
    template <int N> using held = tv_pack<T, N>;
    template <int N> __device__ held<N> load(int64_t row, int64_t col) const
    {
        return tv_load_pack<N>(dy + row * ld + col);
    }
    template <int N>
    __device__ void terms(int64_t, int64_t, const held<N> &got, float term[1][N]) const
    {
        tv_unpack<N>(got, term[0]);
    }
};

template <typename T> tv_status_t bias_backward(tv_stream *stream, const tv_bias_backward_args *a)
{
    const bias_work<T> work = {static_cast<const T *>(a->dy), a->ld_dy};
    constexpr int width = tv_width<T>;
    const bool is_aligned = tv_is_aligned<width>(work.dy, a->ld_dy) && a->cols % width == 0;
    return tv_add_column_sums<1, width>(stream, is_aligned, a->rows, a->cols, work,
                                        {{a->dbias}, a->accumulate != 0});
}

constexpr int square_threads = 256, square_blocks = 1024, square_num = 128;

struct squared {
    const float *x;
    int64_t count;
    bool is_aligned;
};
typedef tv_batch<squared, square_num> squared_batch;
static_assert(sizeof(squared_batch) + 2 * sizeof(double *) <= 4096, "arguments of a kernel");

int64_t blocks_of(int64_t count)
{
    const int64_t wanted = tv_ceil_div(count, square_threads * 16);
    return wanted < square_blocks ? wanted : square_blocks;
}

/* A block's sum; block by block the same elements whatever their alignment, for the same bits. */
__global__ void __launch_bounds__(square_threads)
    square_sums(const __grid_constant__ squared_batch batch, double *sums)
{
    const int which = tv_batch_find(batch);
    const unsigned first = batch.first_block[which];
    const float *const x = batch.of[which].x;
    const int64_t count = batch.of[which].count;
    const int64_t step = (int64_t)(batch.first_block[which + 1] - first) * square_threads * 4;
    const bool is_aligned = batch.of[which].is_aligned;
    double sum = 0;
    for (int64_t i = ((int64_t)(blockIdx.x - first) * square_threads + threadIdx.x) * 4; i < count;
         i += step) {
        float value[4] = {};
        if (is_aligned && i + 4 <= count)
            tv_load_floats<4>(x + i, value);
        else
            for (int k = 0; k < 4 && i + k < count; k++)
                value[k] = x[i + k];
#pragma unroll
        for (int k = 0; k < 4; k++)
            sum += (double)value[k] * (double)value[k];
    }
    sum = tv_block_sum(sum);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = sum;
}

/* Block b: the sum of array b's blocks. */
__global__ void __launch_bounds__(square_threads)
    square_totals(const __grid_constant__ squared_batch batch, const double *sums, double *totals)
{
    const unsigned first = batch.first_block[blockIdx.x], end = batch.first_block[blockIdx.x + 1];
    double sum = 0;
    for (unsigned i = first + threadIdx.x; i < end; i += square_threads)
        sum += sums[i];
    sum = tv_block_sum(sum);
    if (threadIdx.x == 0)
        totals[blockIdx.x] = sum;
}

/* The arrays from `first` on that a batch has room for. */
squared_batch batch_from(const tv_square_sum_args *a, int first)
{
    squared_batch batch = {};
    for (int i = first; i < a->num && batch.num < square_num; i++) {
        const tv_square_sum_array &of = a->of[i];
        tv_batch_add(batch, squared{of.x, of.count, tv_is_aligned<4>(of.x)}, blocks_of(of.count));
    }
    return batch;
}

tv_status_t square_sum(tv_stream *stream, const tv_square_sum_args *a)
{
    int64_t blocks = 0;
    for (int i = 0; i < a->num; i++)
        blocks += blocks_of(a->of[i].count);
    if (a->num == 0)
        return TV_OK;
    void *room;
    TV_TRY(tv_cuda_workspace(stream, (size_t)(a->num + blocks) * sizeof(double), &room));
    double *const totals = static_cast<double *>(room);
    double *sums = totals + a->num;
    for (int first = 0; first < a->num; first += square_num) {
        const squared_batch batch = batch_from(a, first);
        const unsigned end = batch.first_block[batch.num];
        TV_TRY(tv_launch(square_sums, end, square_threads, 0, stream, batch, sums));
        TV_TRY(tv_launch(square_totals, (unsigned)batch.num, square_threads, 0, stream, batch,
                         static_cast<const double *>(sums), totals + first));
        sums += end;
    }
    TV_TRY(tv_cuda_copy(stream, a->sums_out, totals, (size_t)a->num * sizeof(double)));
    return tv_cuda_synchronize(stream);
}
} // namespace

TV_CUDA_ENTRIES(add, tv_add_args, add)
TV_CUDA_ENTRIES_OF_FLOATS(axpby, tv_axpby_args, axpby)
TV_CUDA_ENTRIES(bias_backward, tv_bias_backward_args, bias_backward)
TV_CUDA_ENTRIES_OF_FLOATS(square_sum, tv_square_sum_args, square_sum)
