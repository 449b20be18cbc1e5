/* attention_forward_cuda.cu -- causal attention of bf16 on the tensor cores, heads of 64 and 128 columns: after
 * FlashAttention-2 (Dao 2023, arXiv:2307.08691, algorithm 1). Other heads, and fp32: attention_general_cuda.cu.
 *
 * A block has 128 queries of one head, a warp 32 of them: their scores against a tile of keys, the running maximum
 * and sum of the softmax (powers of 2, fp32) and the sums over values stay in registers; weights are rounded to bf16
 * for the product with the values. The next tile of keys and values is copied while one is worked on, with one
 * barrier per tile. Tiles wholly behind the queries or before their document are skipped; blocks with the most keys
 * come first.
 *
 * 4 B heads h pairs FLOPs. mma.sync does not reach Hopper's full rate: attention_forward_hopper_cuda.cu takes there
 * what it can. */
#include "kernels/attention/attention_cuda_internal.h"
#include "kernels/attention/attention_hopper_internal.h"

namespace
{
constexpr int queries = 128, warps = 4, threads = 32 * warps, m = 2; /* 16 m rows of a warp */
constexpr int keys = 64;                                             /* of a tile */
/* Columns of scores in registers. Dropout's words need some, too. */
template <int h, bool drops> constexpr int at_once = (h == 64 ? 64 : 32) / (drops ? 2 : 1);

/* queries, and twice keys and values */
template <int h> constexpr int shared_bytes = 2 * h *(queries + 2 * 2 * keys);

/* A warp's rows: of row g + 8 half of fragment i, top and weight [i][half]. */
template <int h> struct running {
    float sum[m][h / 8][4]; /* weights times values */
    float top[m][2];        /* of scores, not yet scaled */
    float weight[m][2];     /* sum of this lane's weights */
};

/* Scores become weights under the new maximum; what was summed under the old one shrinks. scale: of scores, for 2^x. */
template <int h, int n>
TV_ATTENTION_DEVICE void soften(running<h> &r, float (&scores)[m][n][4], float scale)
{
#pragma unroll
    for (int i = 0; i < m; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = r.top[i][half];
#pragma unroll
            for (int j = 0; j < n; j++)
                top = fmaxf(top, fmaxf(scores[i][j][2 * half], scores[i][j][2 * half + 1]));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            const float shift = top == -INFINITY ? 0 : top * scale;
            const float shrink = tv_exp2(r.top[i][half] * scale - shift);
            float weight = 0;
#pragma unroll
            for (int j = 0; j < 2 * n; j++) {
                float &score = scores[i][j / 2][2 * half + j % 2];
                score = tv_exp2(score * scale - shift);
                weight += score;
            }
            r.top[i][half] = top;
            r.weight[i][half] = r.weight[i][half] * shrink + weight;
            if (!__any_sync(0xffffffffu, shrink != 1))
                continue; /* mostly, behind the first tiles */
#pragma unroll
            for (int j = 0; j < h / 8; j++) {
                r.sum[i][j][2 * half] *= shrink;
                r.sum[i][j][2 * half + 1] *= shrink;
            }
        }
    }
}

/* Zeros for what dropout drops; its scale comes with the division by the sum of weights. */
template <int n> TV_ATTENTION_DEVICE void drop(float (&weights)[m][n][4], const uint32_t (&kept)[m])
{
#pragma unroll
    for (int i = 0; i < m; i++) {
#pragma unroll
        for (int j = 0; j < n; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                weights[i][j][e] = tv_is_kept(kept[i], j, e) ? weights[i][j][e] : 0;
        }
    }
}

/* The rows are complete: o into the warp's own rows of the tile of queries and from there to where it belongs; lse. */
template <int h>
TV_ATTENTION_DEVICE void finish(const tv_attention_args &a, running<h> &r, uint16_t *tile,
                                int first, const tv_head_rows_out &o)
{
    const int lane = static_cast<int>(threadIdx.x % 32),
              row = static_cast<int>(threadIdx.x / 32) * 16 * m;
    const float scale = tv_score_scale<h>;
    const float kept = a.dropout.threshold > 0 ? a.dropout.scale : 1;
    float *lse = a.lse + static_cast<int64_t>(blockIdx.x) * a.seq_length;
    float factor[m][2];
#pragma unroll
    for (int i = 0; i < 2 * m; i++) {
        float weight = r.weight[i / 2][i % 2];
        weight += __shfl_xor_sync(0xffffffffu, weight, 1);
        weight += __shfl_xor_sync(0xffffffffu, weight, 2);
        factor[i / 2][i % 2] = kept / weight;
        const int query = first + row + 8 * i + lane / 4;
        if (lane % 4 == 0 && query < a.seq_length)
            lse[query] = r.top[i / 2][i % 2] * scale + logf(weight);
    }
    tv_tile_put<h, m>(tile, row, r.sum, factor);
    tv_tile_store<h, 16 * m>(tile, row, o);
}

/* Start copying keys [from, + keys) and their values. */
template <int h>
TV_ATTENTION_DEVICE void load_keys(const tv_attention_args &a, uint16_t *tiles, int64_t base,
                                   int kv, int from, bool is_aligned)
{
    const int rows = a.seq_length - from;
    const int64_t at = static_cast<int64_t>(kv) * h;
    tv_tile_load<keys, h, threads>(tiles,
                                   tv_rows_of_head(a.k, a.ld_k, base + from, rows, at, is_aligned));
    tv_tile_load<keys, h, threads>(tiles + keys * h,
                                   tv_rows_of_head(a.v, a.ld_v, base + from, rows, at, is_aligned));
}

template <int h, bool drops>
__global__ void __launch_bounds__(threads)
    attention_forward_mma(const tv_attention_args a, bool is_aligned)
{
    constexpr int columns = at_once<h, drops>;
    TV_SHARED_DYNAMIC(uint16_t, shared);
    const int head = static_cast<int>(blockIdx.x) % a.num_heads;
    const int kv = head / (a.num_heads / a.num_kv_heads);
    const int64_t base = static_cast<int64_t>(blockIdx.x) / a.num_heads * a.seq_length;
    const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * queries;
    const int end = tv_lesser(first + queries, a.seq_length);
    const int row = static_cast<int>(threadIdx.x / 32) * 16 * m;
    const tv_seen seen = {a.first_keys, base, a.seq_length};
    const float scale = tv_score_scale<h> * tv_log2_e;
    uint16_t *tile_q = shared, *tiles = shared + queries * h;

    int from = tv_first_key_of(a.first_keys, base + first) / keys * keys;
    tv_tile_load<queries, h, threads>(
        tile_q, tv_rows_of_head(a.q, a.ld_q, base + first, a.seq_length - first,
                                static_cast<int64_t>(head) * h, is_aligned));
    load_keys<h>(a, tiles, base, kv, from, is_aligned);
    tv_copy_async_commit();

    running<h> r = {};
    for (int i = 0; i < 2 * m; i++)
        r.top[i / 2][i % 2] = -INFINITY;
    for (int buffer = 0; from < end; from += keys, buffer ^= 1) {
        uint16_t *tile_k = tiles + buffer * 2 * keys * h, *tile_v = tile_k + keys * h;
        tv_copy_async_wait<0>();
        __syncthreads(); /* the tile is there, and nobody reads the other buffer any more */
        if (from + keys < end)
            load_keys<h>(a, tiles + (buffer ^ 1) * 2 * keys * h, base, kv, from + keys, is_aligned);
        tv_copy_async_commit();
        for (int part = 0; part < keys; part += columns) {
            const int key = from + part;
            if (key > first + row + 16 * m - 1 || first + row >= a.seq_length)
                break; /* behind all queries of the warp, or it has none */
            uint32_t kept[m] = {};
            if (drops)
                tv_keep_by_query<m, columns / 8>(kept, a.dropout, base + first + row, head, key);
            float scores[m][columns / 8][4];
            tv_tile_product<h>(scores, tile_q, row, tile_k, part);
            if (tv_hides(seen, first + row, 16 * m, key, columns))
                tv_hide(scores, seen, first + row, key);
            soften(r, scores, scale);
            if (drops)
                drop(scores, kept);
            tv_tile_add_product<h>(r.sum, scores, tile_v, part);
        }
    }
    finish<h>(
        a, r, tile_q, first,
        {static_cast<uint16_t *>(a.o) + (base + first) * a.ld_o + static_cast<int64_t>(head) * h,
         a.ld_o, a.seq_length - first, is_aligned});
}

template <int h> tv_status_t launch(tv_stream *stream, const tv_attention_args *a)
{
    const bool is_aligned = tv_is_aligned_16(a->q, a->ld_q) && tv_is_aligned_16(a->k, a->ld_k) &&
                            tv_is_aligned_16(a->v, a->ld_v) && tv_is_aligned_16(a->o, a->ld_o);
    const unsigned tiles = static_cast<unsigned>(tv_ceil_div(a->seq_length, queries));
    const dim3 grid(static_cast<unsigned>(a->batch) * static_cast<unsigned>(a->num_heads), tiles);
    if (a->dropout.threshold > 0)
        return tv_launch_shared(attention_forward_mma<h, true>, grid, threads, shared_bytes<h>,
                                stream, *a, is_aligned);
    return tv_launch_shared(attention_forward_mma<h, false>, grid, threads, shared_bytes<h>, stream,
                            *a, is_aligned);
}
} // namespace

extern "C" tv_status_t TV_CUDA_F32(attention_forward)(tv_stream *stream, const tv_attention_args *a)
{
    return tv_attention_forward_general<float>(stream, a);
}

extern "C" tv_status_t TV_CUDA_BF16(attention_forward)(tv_stream *stream,
                                                       const tv_attention_args *a)
{
    if (tv_attention_forward_is_for_hopper(stream, a))
        return tv_attention_forward_hopper(stream, a);
    switch (a->head_dim) {
    case 64:
        return launch<64>(stream, a);
    case 128:
        return launch<128>(stream, a);
    default:
        return tv_attention_forward_general<__nv_bfloat16>(stream, a);
    }
}
