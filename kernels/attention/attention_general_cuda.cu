/* attention_general_cuda.cu -- causal attention, forward and backward, for every size of head, in fp32 without the
 * tensor cores: tiles of 64 x 64 scores with the online softmax (Dao et al. 2022, arXiv:2205.14135).
 *
 * 256 threads, 16 x 16; thread (y, x) has rows 4 y.. and columns 4 x.. of the scores, so that the 16 threads of half
 * a warp share a row, and a block of random words is one thread's. Heads pass through shared memory 32 columns at a
 * time. A block sums up `chunk` columns of a head (64 or 128); wider heads take several blocks, each with its own
 * scores. Every sum is one thread's, in one order.
 *
 * 4 B heads h pairs FLOPs forward, 14 backward, for heads of up to 128 columns. */
#include "kernels/attention/attention_general_internal.h"

namespace
{
constexpr int tile = 64, part = 32, step = 16, threads = 256;

template <int chunk> struct alignas(16) room {
    float a[tile][part + 4],
        b[tile][part + 4]; /* columns of two heads; rows of b in the order of spread() */
    float weights[tile][tile + 4];
    float x[step][chunk];
};

__device__ int thread_x()
{
    return static_cast<int>(threadIdx.x % 16);
}
__device__ int thread_y()
{
    return static_cast<int>(threadIdx.x / 16);
}

/* Rows of one head in a stored tensor; zeros around them. */
template <typename Element> struct head_rows {
    const Element *at;
    int64_t ld;
    int rows, cols;
    __device__ float load(int row, int col) const
    {
        return row < rows && col < cols ? tv_to_float(at[row * ld + col]) : 0;
    }
};
template <typename Element>
__device__ head_rows<Element> part_of(const void *tensor, int64_t ld, int64_t row, int rows,
                                      int head, int h)
{
    return {static_cast<const Element *>(tensor) + row * ld + static_cast<int64_t>(head) * h, ld,
            rows, h};
}

/* Where row 4 x + j of b is: 16 j + x, so that half a warp reads different banks. */
__device__ int spread(int row)
{
    return row % 4 * 16 + row / 4;
}

__device__ float dot(const float4 &x, const float4 &y)
{
    return x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
}

/* out = this thread's part of a b^T. The block calls together. */
template <int chunk, typename Element>
__device__ void product(room<chunk> &shared, const head_rows<Element> &a,
                        const head_rows<Element> &b, float (&out)[4][4])
{
    const int x = thread_x(), y = thread_y();
    for (int i = 0; i < 16; i++)
        out[i / 4][i % 4] = 0;
    for (int from = 0; from < a.cols; from += part) {
        __syncthreads();
#pragma unroll 2
        for (int i = static_cast<int>(threadIdx.x); i < tile * part; i += threads) {
            shared.a[i / part][i % part] = a.load(i / part, from + i % part);
            shared.b[spread(i / part)][i % part] = b.load(i / part, from + i % part);
        }
        __syncthreads();
#pragma unroll 1
        for (int c = 0; c < part; c += 4) {
            float4 columns[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                columns[j] = *reinterpret_cast<const float4 *>(&shared.b[16 * j + x][c]);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float4 row = *reinterpret_cast<const float4 *>(&shared.a[4 * y + i][c]);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    out[i][j] += dot(row, columns[j]);
            }
        }
    }
}

/* sum += weights b, columns [from, from + chunk) of b: this thread's rows, columns x, x + 16, ... The block calls
 * together with its parts of the weights. */
template <int chunk, typename Element>
__device__ void add_product(room<chunk> &shared, const float (&weights)[4][4],
                            const head_rows<Element> &b, int from, float (&sum)[4][chunk / 16])
{
    const int x = thread_x(), y = thread_y();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++)
        *reinterpret_cast<float4 *>(&shared.weights[4 * y + i][4 * x]) =
            make_float4(weights[i][0], weights[i][1], weights[i][2], weights[i][3]);
    for (int k = 0; k < tile; k += step) {
        __syncthreads();
#pragma unroll 2
        for (int i = static_cast<int>(threadIdx.x); i < step * chunk; i += threads)
            shared.x[i / chunk][i % chunk] = b.load(k + i / chunk, from + i % chunk);
        __syncthreads();
#pragma unroll 1
        for (int c = 0; c < step; c += 4) {
            float4 rows[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                rows[i] = *reinterpret_cast<const float4 *>(&shared.weights[4 * y + i][k + c]);
#pragma unroll
            for (int j = 0; j < chunk / 16; j++) {
                const int col = x + 16 * j;
                const float4 column = make_float4(shared.x[c][col], shared.x[c + 1][col],
                                                  shared.x[c + 2][col], shared.x[c + 3][col]);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[i][j] += dot(rows[i], column);
            }
        }
    }
}

/* sum * factor of rows 4 y.. -> columns [from, from + chunk) of a head whose rows begin at `to` */
template <int chunk, typename Element>
__device__ void store(const float (&sum)[4][chunk / 16], const float (&factor)[4], Element *to,
                      int64_t ld, int rows, int from, int h)
{
    for (int i = 0; i < 4; i++) {
        const int row = 4 * thread_y() + i;
#pragma unroll
        for (int j = 0; j < chunk / 16; j++) {
            const int col = from + thread_x() + 16 * j;
            if (row < rows && col < h)
                to[row * ld + col] = tv_from_float<Element>(sum[i][j] * factor[i]);
        }
    }
}

/* Over the 16 threads of a row. */
__device__ float row_max(float x)
{
    for (int bits = 8; bits > 0; bits /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
    return x;
}
__device__ float row_sum(float x)
{
    for (int bits = 8; bits > 0; bits /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, bits);
    return x;
}

/* sum(do o) of one row, by the 16 threads of it. */
template <typename Element>
__device__ float row_delta(const head_rows<Element> &d_o, const head_rows<Element> &o, int row)
{
    float sum = 0;
    for (int c = thread_x(); c < o.cols; c += 16)
        sum += d_o.load(row, c) * o.load(row, c);
    return row_sum(sum);
}

__device__ float score_scale(int h)
{
    return 1 / sqrtf(static_cast<float>(h));
}

/* What dropout leaves of weights of queries 4 y.. for keys `key`..: its scale comes later. */
__device__ void drop(float (&weights)[4][4], const tv_dropout &d, int64_t row, int head, int key)
{
    for (int i = 0; i < 4 && d.threshold > 0; i++) {
        const uint32_t kept = tv_dropout_kept(d, row + 4 * thread_y() + i, head, key / 4);
        for (int j = 0; j < 4; j++)
            weights[i][j] = (kept >> j & 1) != 0 ? weights[i][j] : 0;
    }
}

template <typename Element, int chunk>
__global__ void __launch_bounds__(threads) attention_forward_tiles(const tv_attention_args a)
{
    __shared__ room<chunk> shared;
    const int head = static_cast<int>(blockIdx.x) % a.num_heads, h = a.head_dim;
    const int kv = head / (a.num_heads / a.num_kv_heads);
    const int64_t base = static_cast<int64_t>(blockIdx.x) / a.num_heads * a.seq_length;
    const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * tile;
    const int end = tv_lesser(first + tile, a.seq_length),
              from_col = static_cast<int>(blockIdx.z) * chunk;
    const auto q = part_of<Element>(a.q, a.ld_q, base + first, end - first, head, h);
    float sum[4][chunk / 16] = {}, top[4], weight[4] = {};
    for (int i = 0; i < 4; i++)
        top[i] = -INFINITY;
    for (int from = tv_first_key_of(a.first_keys, base + first) / tile * tile; from < end;
         from += tile) {
        const int key = from + 4 * thread_x();
        float p[4][4];
        product(shared, q, part_of<Element>(a.k, a.ld_k, base + from, end - from, kv, h), p);
        for (int i = 0; i < 4; i++) {
            const int row = first + 4 * thread_y() + i;
            const int begin = row < end ? tv_first_key_of(a.first_keys, base + row) : end;
            float here = -INFINITY;
            for (int j = 0; j < 4; j++) {
                const bool is_seen = key + j >= begin && key + j <= row;
                p[i][j] = is_seen ? p[i][j] * score_scale(h) : -INFINITY;
                here = fmaxf(here, p[i][j]);
            }
            here = fmaxf(top[i], row_max(here));
            const float shrink = top[i] == -INFINITY ? 0 : expf(top[i] - here);
            for (int j = 0; j < 4; j++)
                p[i][j] = p[i][j] == -INFINITY ? 0 : expf(p[i][j] - here);
            top[i] = here;
            weight[i] = weight[i] * shrink + row_sum(p[i][0] + p[i][1] + (p[i][2] + p[i][3]));
            for (int j = 0; j < chunk / 16; j++)
                sum[i][j] *= shrink;
        }
        drop(p, a.dropout, base + first, head, key);
        add_product(shared, p, part_of<Element>(a.v, a.ld_v, base + from, end - from, kv, h),
                    from_col, sum);
    }
    float factor[4];
    for (int i = 0; i < 4; i++) {
        const int row = first + 4 * thread_y() + i;
        factor[i] = (a.dropout.threshold > 0 ? a.dropout.scale : 1) / weight[i];
        if (blockIdx.z == 0 && thread_x() == 0 && row < end)
            a.lse[static_cast<int64_t>(blockIdx.x) * a.seq_length + row] = top[i] + logf(weight[i]);
    }
    store<chunk>(sum, factor,
                 static_cast<Element *>(a.o) + (base + first) * a.ld_o +
                     static_cast<int64_t>(head) * h,
                 a.ld_o, end - first, from_col, h);
}

/* Where sum(do o) of a row is kept. */
template <typename Element>
__device__ float *delta_at(const tv_attention_backward_args &a, int64_t sequence, int head, int row)
{
    if (sizeof(Element) == sizeof(float))
        return static_cast<float *>(a.dq) + (sequence * a.seq_length + row) * a.ld_dq +
               static_cast<int64_t>(head) * a.head_dim;
    return a.work + (sequence * a.num_heads + head) * a.seq_length + row;
}

/* 16 threads for a row of a head. */
template <typename Element>
__global__ void __launch_bounds__(threads) attention_row_terms(const tv_attention_backward_args a)
{
    const int64_t rows = static_cast<int64_t>(a.batch) * a.seq_length;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * (threads / 16) + thread_y();
    const bool is_there = i < rows * a.num_heads;
    const int64_t row = is_there ? i / a.num_heads : 0;
    const int head = static_cast<int>(i % a.num_heads);
    const float sum =
        row_delta(part_of<Element>(a.d_o, a.ld_do, row, is_there ? 1 : 0, head, a.head_dim),
                  part_of<Element>(a.o, a.ld_o, row, is_there ? 1 : 0, head, a.head_dim), 0);
    if (is_there && thread_x() == 0)
        *delta_at<Element>(a, row / a.seq_length, head, static_cast<int>(row % a.seq_length)) = sum;
}

/* p and ds of one pair out of its score (before the scale) and do.v; `keep` is what dropout multiplies by. */
__device__ void pair_gradient(float &p, float &ds, float scale, float lse, float delta, float keep)
{
    const float weight = expf(p * scale - lse);
    ds = weight * (keep * ds - delta) * scale;
    p = weight * keep;
}

template <typename Element, int chunk>
__global__ void __launch_bounds__(threads)
    attention_backward_queries(const tv_attention_backward_args a)
{
    __shared__ room<chunk> shared;
    const int head = static_cast<int>(blockIdx.x) % a.num_heads, h = a.head_dim;
    const int kv = head / (a.num_heads / a.num_kv_heads);
    const int64_t base = static_cast<int64_t>(blockIdx.x) / a.num_heads * a.seq_length;
    const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * tile;
    const int end = tv_lesser(first + tile, a.seq_length),
              from_col = static_cast<int>(blockIdx.z) * chunk;
    const auto q = part_of<Element>(a.q, a.ld_q, base + first, end - first, head, h);
    const auto d_o = part_of<Element>(a.d_o, a.ld_do, base + first, end - first, head, h);
    const auto o = part_of<Element>(a.o, a.ld_o, base + first, end - first, head, h);
    float sum[4][chunk / 16] = {}, delta[4];
    for (int i = 0; i < 4; i++)
        delta[i] = row_delta(d_o, o, 4 * thread_y() + i);
    for (int from = tv_first_key_of(a.first_keys, base + first) / tile * tile; from < end;
         from += tile) {
        const int key = from + 4 * thread_x();
        const auto k = part_of<Element>(a.k, a.ld_k, base + from, end - from, kv, h);
        float p[4][4], ds[4][4];
        product(shared, q, k, p);
        product(shared, d_o, part_of<Element>(a.v, a.ld_v, base + from, end - from, kv, h), ds);
        for (int i = 0; i < 4; i++) {
            const int row = first + 4 * thread_y() + i;
            const int begin = row < end ? tv_first_key_of(a.first_keys, base + row) : end;
            const float lse =
                row < end ? a.lse[static_cast<int64_t>(blockIdx.x) * a.seq_length + row] : 0;
            const uint32_t kept =
                a.dropout.threshold > 0 ? tv_dropout_kept(a.dropout, base + row, head, key / 4) : 0;
            for (int j = 0; j < 4; j++) {
                const float keep = a.dropout.threshold == 0 ? 1
                                   : (kept >> j & 1) != 0   ? a.dropout.scale
                                                            : 0;
                pair_gradient(p[i][j], ds[i][j], score_scale(h), lse, delta[i], keep);
                if (key + j < begin || key + j > row)
                    ds[i][j] = 0;
            }
        }
        add_product(shared, ds, k, from_col, sum);
    }
    const float factor[4] = {1, 1, 1, 1};
    store<chunk>(sum, factor,
                 static_cast<Element *>(a.dq) + (base + first) * a.ld_dq +
                     static_cast<int64_t>(head) * h,
                 a.ld_dq, end - first, from_col, h);
}

/* p and ds of keys `key`.. against queries `query`.. of a head: the parts of this thread */
template <typename Element>
__device__ void key_gradients(const tv_attention_backward_args &a, int64_t sequence, int head,
                              int key, int query, float (&p)[4][4], float (&ds)[4][4])
{
    const int64_t base = sequence * a.seq_length;
    for (int j = 0; j < 4; j++) {
        const int row = query + j;
        const bool is_row = row < a.seq_length;
        const float lse = is_row ? a.lse[(sequence * a.num_heads + head) * a.seq_length + row] : 0;
        const float delta = is_row ? *delta_at<Element>(a, sequence, head, row) : 0;
        const int begin = is_row ? tv_first_key_of(a.first_keys, base + row) : a.seq_length;
        const uint32_t kept =
            a.dropout.threshold > 0 ? tv_dropout_kept(a.dropout, base + row, head, key / 4) : 0;
        for (int i = 0; i < 4; i++) {
            const float keep = a.dropout.threshold == 0 ? 1
                               : (kept >> i & 1) != 0   ? a.dropout.scale
                                                        : 0;
            pair_gradient(p[i][j], ds[i][j], score_scale(a.head_dim), lse, delta, keep);
            if (key + i < begin || key + i > row)
                p[i][j] = ds[i][j] = 0;
        }
    }
}

template <typename Element, int chunk>
__global__ void __launch_bounds__(threads)
    attention_backward_keys(const tv_attention_backward_args a)
{
    __shared__ room<chunk> shared;
    const int kv = static_cast<int>(blockIdx.x) % a.num_kv_heads, h = a.head_dim;
    const int group = a.num_heads / a.num_kv_heads, from = static_cast<int>(blockIdx.y) * tile;
    const int64_t sequence = static_cast<int64_t>(blockIdx.x) / a.num_kv_heads,
                  base = sequence * a.seq_length;
    const int rows = tv_lesser(tile, a.seq_length - from),
              from_col = static_cast<int>(blockIdx.z) * chunk;
    const auto k = part_of<Element>(a.k, a.ld_k, base + from, rows, kv, h);
    const auto v = part_of<Element>(a.v, a.ld_v, base + from, rows, kv, h);
    float dk[4][chunk / 16] = {}, dv[4][chunk / 16] = {};
    for (int head = kv * group; head < (kv + 1) * group; head++) {
        for (int first = from; first < a.seq_length; first += tile) {
            if (tv_first_key_of(a.first_keys, base + first) >= from + tile)
                break; /* nor do later queries see these keys */
            const int last = tv_lesser(tile, a.seq_length - first);
            const auto q = part_of<Element>(a.q, a.ld_q, base + first, last, head, h);
            const auto d_o = part_of<Element>(a.d_o, a.ld_do, base + first, last, head, h);
            float p[4][4], ds[4][4];
            product(shared, k, q, p);
            product(shared, v, d_o, ds);
            key_gradients<Element>(a, sequence, head, from + 4 * thread_y(), first + 4 * thread_x(),
                                   p, ds);
            add_product(shared, p, d_o, from_col, dv);
            add_product(shared, ds, q, from_col, dk);
        }
    }
    const float factor[4] = {1, 1, 1, 1};
    const int64_t head_at = static_cast<int64_t>(kv) * h;
    store<chunk>(dk, factor, static_cast<Element *>(a.dk) + (base + from) * a.ld_dk + head_at,
                 a.ld_dk, rows, from_col, h);
    store<chunk>(dv, factor, static_cast<Element *>(a.dv) + (base + from) * a.ld_dv + head_at,
                 a.ld_dv, rows, from_col, h);
}

/* Blocks: a head of every sequence, tiles, chunks of a head's columns. */
dim3 grid_of(int batch, int heads, int seq_length, int head_dim, int chunk)
{
    return dim3(static_cast<unsigned>(batch) * static_cast<unsigned>(heads),
                static_cast<unsigned>(tv_ceil_div(seq_length, tile)),
                static_cast<unsigned>(tv_ceil_div(head_dim, chunk)));
}

template <typename Element, int chunk>
tv_status_t launch_backward(tv_stream *stream, const tv_attention_backward_args *a)
{
    TV_TRY(tv_attention_row_terms<Element>(stream, a));
    /* keys first: in fp32 they read what dq then takes the place of */
    TV_TRY(tv_launch(attention_backward_keys<Element, chunk>,
                     grid_of(a->batch, a->num_kv_heads, a->seq_length, a->head_dim, chunk),
                     dim3(threads), 0, stream, *a));
    return tv_launch(attention_backward_queries<Element, chunk>,
                     grid_of(a->batch, a->num_heads, a->seq_length, a->head_dim, chunk),
                     dim3(threads), 0, stream, *a);
}
} // namespace

template <typename Element>
tv_status_t tv_attention_row_terms(tv_stream *stream, const tv_attention_backward_args *a)
{
    const int64_t rows = static_cast<int64_t>(a->batch) * a->seq_length * a->num_heads;
    const int64_t blocks = tv_ceil_div(rows, threads / 16);
    return tv_launch(attention_row_terms<Element>, dim3(static_cast<unsigned>(blocks)),
                     dim3(threads), 0, stream, *a);
}

template <typename Element>
tv_status_t tv_attention_forward_general(tv_stream *stream, const tv_attention_args *a)
{
    const int chunk = a->head_dim <= 64 ? 64 : 128;
    return tv_launch(a->head_dim <= 64 ? attention_forward_tiles<Element, 64>
                                       : attention_forward_tiles<Element, 128>,
                     grid_of(a->batch, a->num_heads, a->seq_length, a->head_dim, chunk),
                     dim3(threads), 0, stream, *a);
}

template <typename Element>
tv_status_t tv_attention_backward_general(tv_stream *stream, const tv_attention_backward_args *a)
{
    return a->head_dim <= 64 ? launch_backward<Element, 64>(stream, a)
                             : launch_backward<Element, 128>(stream, a);
}

template tv_status_t tv_attention_forward_general<float>(tv_stream *, const tv_attention_args *);
template tv_status_t tv_attention_forward_general<__nv_bfloat16>(tv_stream *,
                                                                 const tv_attention_args *);
template tv_status_t tv_attention_backward_general<float>(tv_stream *,
                                                          const tv_attention_backward_args *);
template tv_status_t
tv_attention_backward_general<__nv_bfloat16>(tv_stream *, const tv_attention_backward_args *);
template tv_status_t tv_attention_row_terms<__nv_bfloat16>(tv_stream *,
                                                           const tv_attention_backward_args *);
