/* norm_cuda.cu -- LayerNorm (arXiv:1607.06450) and RMSNorm (arXiv:1910.07467). The formulas are in norm_ref.c.
 *
 * Forward: a team of threads takes a row, which its registers hold, so that memory is read once: a warp, of which a
 * block then has 8, or where rows are longer a block. Backward: a block takes rows, the next ones of which come into
 * shared memory while one is worked on, and each thread adds up what they say of its columns' weights, so that one
 * pass makes all gradients; the sums of all blocks are then added up as those of columns are (cuda_internal.h). Rows
 * that are too long for that: norm_kernel and slope_kernel, a block for each row, whose later passes find it in the
 * cache; the gradients of weights are then column sums, before that of the input, which may replace dy. */
#include "kernels/norm/norm_cuda_internal.h"

namespace
{
using namespace tv_norm;

/* Warps whose threads hold a row of `cols`, p packs of n elements each. */
int64_t warps_for(int64_t cols, int64_t n, int64_t p)
{
    return tv_ceil_div(cols, n * 32 * p);
}

template <typename T> struct norm_row {
    const T *x, *weight, *bias;
    T *y;
    float *mean, *rstd; /* mean NULL: RMSNorm */
    const T *added;     /* or NULL; teams alone take it */
    T *total;
    int64_t rows, cols;
    float eps;
    __device__ void keep(int64_t r, float mean_of_row, float rstd_of_row) const
    {
        rstd[r] = rstd_of_row;
        if (mean != nullptr)
            mean[r] = mean_of_row;
    }
};

/* N elements of what is normalized: of x, or of the sum, which is written. */
template <int N, typename T>
__device__ void take_row(const norm_row<T> &a, int64_t i, const tv_two_packs<T, N> &got, float v[N])
{
    float other[N];
    tv_unpack<N>(got.a, v);
    if (a.added == nullptr)
        return;
    tv_unpack<N>(got.b, other);
#pragma unroll
    for (int k = 0; k < N; k++)
        v[k] += other[k];
    const tv_pack<T, N> rounded = tv_round_floats<N, T>(v);
    tv_store_pack<N>(a.total + i, rounded);
    tv_unpack<N>(rounded, v);
}

template <int N, bool is_warp, typename T>
__global__ void __launch_bounds__(32 * (is_warp ? warp_teams : most_warps), is_warp ? 4 : 2)
    norm_team_kernel(norm_row<T> a)
{
    const place<N, packs, is_warp> here;
    for (int64_t r = here.first_row; r < a.rows; r += here.step) {
        float v[packs][N] = {}, mean = 0, squares = 0;
        const int64_t at = r * a.cols;
        tv_two_packs<T, N> got[packs] = {}; /* of x and added; then of weight and bias */
        here.for_packs(a.cols, [&](int p, int64_t c) {
            got[p].a = tv_load_pack<N>(a.x + at + c);
            if (a.added != nullptr)
                got[p].b = tv_load_pack<N>(a.added + at + c);
        });
        here.for_packs(a.cols, [&](int p, int64_t c) { take_row<N>(a, at + c, got[p], v[p]); });
        here.for_packs(a.cols, [&](int p, int64_t c) {
            got[p].a = tv_load_pack<N>(a.weight + c);
            got[p].b = a.bias != nullptr ? tv_load_pack<N>(a.bias + c) : tv_pack<T, N>{};
        });
        if (a.mean != nullptr) {
            here.for_packs(a.cols, [&](int p, int64_t) {
                for (int k = 0; k < N; k++)
                    mean += v[p][k];
            });
            mean = here.sum(mean) / (float)a.cols;
        }
        here.for_packs(a.cols, [&](int p, int64_t) {
            for (int k = 0; k < N; k++)
                squares += (v[p][k] - mean) * (v[p][k] - mean);
        });
        const float rstd = 1 / sqrtf(here.sum(squares) / (float)a.cols + a.eps);
        here.for_packs(a.cols, [&](int p, int64_t c) {
            float w[N], b[N];
            tv_unpack<N>(got[p].a, w);
            tv_unpack<N>(got[p].b, b);
            for (int k = 0; k < N; k++)
                v[p][k] = (v[p][k] - mean) * rstd * w[k] + b[k];
            tv_store_floats<N>(a.y + at + c, v[p]);
        });
        if (here.lane == 0)
            a.keep(r, mean, rstd);
    }
}

/* Each thread's elements of a row: fn(col, N values at once). */
template <int N, typename Fn> __device__ void for_row(int64_t cols, Fn fn)
{
    for (int64_t c = (int64_t)threadIdx.x * N; c < cols; c += (int64_t)blockDim.x * N)
        fn(c);
}

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
        if (threadIdx.x == 0)
            a.keep(r, mean, rstd);
    }
}

unsigned threads_for(int64_t cols, int64_t n)
{
    return tv_row_threads(tv_ceil_div(cols, n), 512);
}

/* The sum first, where no team makes it on the way. */
template <typename T> tv_status_t norm_rows(tv_stream *stream, norm_row<T> row, bool is_aligned)
{
    constexpr int width = tv_width<T>;
    if (row.added != nullptr) {
        const tv_add_args add = {row.rows * row.cols, row.x, row.added, row.total};
        const auto add_rows = sizeof(T) == sizeof(float) ? TV_CUDA_F32(add) : TV_CUDA_BF16(add);
        TV_TRY(add_rows(stream, &add));
        row.x = row.total;
    }
    return tv_launch(is_aligned ? norm_kernel<width, T> : norm_kernel<1, T>, tv_grid(row.rows, 1),
                     threads_for(row.cols, is_aligned ? width : 1), 0, stream, row);
}

template <int N, typename T>
tv_status_t norm_teams(tv_stream *stream, const norm_row<T> &row, int64_t warps)
{
    if (warps == 1)
        return tv_launch(norm_team_kernel<N, true, T>, tv_grid(row.rows, warp_teams),
                         32 * warp_teams, 0, stream, row);
    return tv_launch(norm_team_kernel<N, false, T>, tv_grid(row.rows, 1), (unsigned)(32 * warps), 0,
                     stream, row);
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
                             static_cast<const T *>(a->added),
                             static_cast<T *>(a->sum),
                             a->rows,
                             a->cols,
                             (float)a->eps};
    const bool is_aligned = tv_is_aligned<width>(row.x, a->cols) && tv_is_aligned<width>(row.y) &&
                            tv_is_aligned<width>(row.weight) && tv_is_aligned<width>(row.bias) &&
                            tv_is_aligned<width>(row.added) && tv_is_aligned<width>(row.total);
    const int64_t warps = warps_for(a->cols, is_aligned ? width : 1, packs);
    if (warps > most_warps)
        return norm_rows(stream, row, is_aligned);
    return is_aligned ? norm_teams<width>(stream, row, warps) : norm_teams<1>(stream, row, warps);
}

template <typename T> tv_status_t layernorm_forward(tv_stream *stream, const tv_norm_args *a)
{
    return norm_forward<T>(stream, a, true);
}

template <typename T> tv_status_t rmsnorm_forward(tv_stream *stream, const tv_norm_args *a)
{
    return norm_forward<T>(stream, a, false);
}

/* chunks [2, grid, cols]; of the second, which are for the bias, RMSNorm makes none. holds: a block of few_warps
 * at most has the registers to keep a row from the sums to its gradient, others read it twice. */
constexpr int few_warps = 3;
template <int N, int P, bool holds, typename T>
__global__ void __launch_bounds__(32 * (holds ? few_warps : most_warps), holds ? 8 : 3 - P)
    slope_rows_kernel(slope<T> a, float *chunks)
{
    typedef tv_pack<T, N> pack;
    __shared__ float4 of_warps[2][warp_pairs];
    TV_SHARED_DYNAMIC(pack, room);
    const place<N, P, false> here;
    row_queue<N, P, T> queue(a, here, room);
    const float share = 1 / (float)a.cols;
    float x[N] = {}, d[N] = {}, w[P][N] = {}, dweight[P][N] = {}, dbias[P][N] = {};
    row_numbers of_32 = {}; /* of the block's next rows, one in each lane of a warp */
    int turn = 0, nth = 0;
    here.for_packs(a.cols, [&](int p, int64_t c) { tv_load_floats<N>(a.weight + c, w[p]); });
    if (here.lane < 2 * warp_pairs)
        of_warps[here.lane / warp_pairs][here.lane % warp_pairs] = {0, 0, 0, 0};
    __syncthreads();
    for (int64_t r = here.first_row; r < a.rows; r += here.step, turn ^= 1) {
        const int64_t at = r * a.cols;
        float mean_g = 0, mean_gn = 0;
        queue.fetch(a, here);
        if (nth == 0)
            of_32 = a.numbers(r + here.lane % 32 * here.step);
        const row_numbers row = {__shfl_sync(0xffffffffu, of_32.shift, nth),
                                 __shfl_sync(0xffffffffu, of_32.rstd, nth)};
        nth = (nth + 1) % 32;
        tv_copy_async_wait<row_queue<N, P, T>::slots - 1>();
        here.for_packs(a.cols, [&](int p, int64_t) {
            queue.read_row(p, x, d);
#pragma unroll
            for (int k = 0; k < N; k++) {
                const float n = (x[k] - row.shift) * row.rstd, g = d[k] * w[p][k];
                mean_g += g;
                mean_gn += g * n;
                dweight[p][k] += d[k] * n;
                dbias[p][k] += d[k];
            }
        });
        block_sums(of_warps[turn], mean_g, mean_gn);
        mean_g = a.mean != nullptr ? mean_g * share : 0;
        mean_gn *= share;
        here.for_packs(a.cols, [&](int p, int64_t c) {
            float dx[N] = {};
            if constexpr (!holds)
                queue.read_row(p, x, d);
            if (a.adds)
                queue.read(queue.DX, p, dx);
#pragma unroll
            for (int k = 0; k < N; k++) {
                const float n = (x[k] - row.shift) * row.rstd;
                dx[k] += row.rstd * (d[k] * w[p][k] - mean_g - n * mean_gn);
            }
            tv_store_floats<N>(a.dx + at + c, dx);
        });
        queue.pass();
    }
    tv_copy_async_wait<0>();
    float *const to = chunks + blockIdx.x * a.cols;
    here.for_packs(a.cols, [&](int p, int64_t c) {
        tv_store_floats<N>(to + c, dweight[p]);
        if (a.mean != nullptr)
            tv_store_floats<N>(to + gridDim.x * a.cols + c, dbias[p]);
    });
}

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

/* As many blocks as a GPU runs at once, by registers, but not so many that their sums count. */
int64_t slope_blocks(int64_t rows, int64_t warps, int64_t p)
{
    const int64_t fit = 32 / (p * warps);
    const int64_t most = TV_NORM_PROCESSORS * (fit < 1 ? 1 : fit < 8 ? fit : 8);
    return rows < most ? rows : most;
}

template <int N, int P, typename T>
tv_status_t slope_rows(tv_stream *stream, const slope<T> &work, const tv_columns<2> &out)
{
    const int64_t warps = warps_for(work.cols, N, P), blocks = slope_blocks(work.rows, warps, P);
    const int threads = (int)(32 * warps);
    void *room;
    TV_TRY(tv_cuda_workspace(stream, (size_t)(2 * blocks * work.cols) * sizeof(float), &room));
    float *const chunks = static_cast<float *>(room);
    TV_TRY(tv_launch_shared(P == 1 && warps <= few_warps ? slope_rows_kernel<N, P, P == 1, T>
                                                         : slope_rows_kernel<N, P, false, T>,
                            dim3((unsigned)blocks), (unsigned)threads,
                            row_queue<N, P, T>::bytes(threads), stream, work, chunks));
    return tv_add_chunks<2>(stream, chunks, blocks, work.cols, out);
}

template <int N, typename T>
tv_status_t slopes(tv_stream *stream, const slope<T> &work, const tv_columns<2> &out)
{
    if (warps_for(work.cols, N, 1) <= most_warps)
        return slope_rows<N, 1>(stream, work, out);
    if (warps_for(work.cols, N, 2) <= most_warps)
        return slope_rows<N, 2>(stream, work, out);
    TV_TRY((tv_add_column_sums<2, N>(stream, true, work.rows, work.cols, work, out)));
    return tv_launch(slope_kernel<N, T>, tv_grid(work.rows, 1), threads_for(work.cols, N), 0,
                     stream, work);
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
    const tv_columns<2> out = {{a->dweight, has_mean ? a->dbias : nullptr}, a->accumulate != 0};
    const bool is_aligned = tv_is_aligned<width>(work.x, a->cols) &&
                            tv_is_aligned<width>(work.dy) && tv_is_aligned<width>(work.weight) &&
                            tv_is_aligned<width>(work.dx);
    if (a->cols == 0)
        return TV_OK;
    if (a->rows == 0)
        return tv_add_chunks<2>(stream, nullptr, 0, a->cols, out);
    return is_aligned ? slopes<width>(stream, work, out) : slopes<1>(stream, work, out);
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
