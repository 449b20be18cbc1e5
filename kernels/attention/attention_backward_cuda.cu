/* attention_backward_cuda.cu -- backward of causal attention of bf16 on the tensor cores, heads of 64 and 128
 * columns: after FlashAttention-2 (Dao 2023, arXiv:2307.08691, algorithm 2). Other heads, and fp32:
 * attention_general_cuda.cu.
 *
 * With p = exp(score - lse), D = sum(do o) of a row: ds = p (do.v - D); dq = scale ds k, dk = scale ds^T q, dv = p^T
 * do. First D of every row; then a kernel with a block per 128 queries for dq and one with a block per 128 keys for
 * dk and dv, which works on transposed scores, so that p and ds are the a operands of the next products as they lie
 * in registers. A sum belongs to one warp, which adds in one order: no atomics, the same bits always. That costs 7
 * products per pair in place of 5 and saves the traffic of dq's fp32 sums. The query heads of a group are added up
 * one after another.
 *
 * 14 B heads h pairs FLOPs (10 counted). On Hopper, without dropout: attention_backward_hopper_cuda.cu. */
#include "kernels/attention/attention_cuda_internal.h"
#include "kernels/attention/attention_hopper_internal.h"

namespace
{
/* Of a row's sums: what they are and where they lie. */
struct row_terms {
    const float *lse, *delta; /* of row 0 of the head */
};

TV_ATTENTION_DEVICE row_terms terms_of(const tv_attention_backward_args &a, int64_t sequence,
                                       int head)
{
    const int64_t at = (sequence * a.num_heads + head) * a.seq_length;
    return {a.lse + at, a.work + at};
}

/* The part of a stored tensor that begins at a row of a head. */
template <int h>
TV_ATTENTION_DEVICE tv_head_rows_out part_out(void *tensor, int64_t ld, int64_t row, int head,
                                              int rows, bool is_aligned)
{
    return {static_cast<uint16_t *>(tensor) + row * ld + static_cast<int64_t>(head) * h, ld, rows,
            is_aligned};
}
template <int h>
TV_ATTENTION_DEVICE tv_head_rows part_in(const void *tensor, int64_t ld, int64_t row, int head,
                                         int rows, bool is_aligned)
{
    return tv_rows_of_head(tensor, ld, row, rows, static_cast<int64_t>(head) * h, is_aligned);
}

/* dq: 4 warps with 32 queries each. */
namespace by_query
{
constexpr int queries = 128, threads = 128, m = 2;
template <int h> constexpr int keys = h == 64 ? 64 : 32;
/* Columns of scores in registers. Dropout's words need some, too. */
template <int h, bool drops> constexpr int at_once = h == 128 && drops ? 16 : 32;
/* q, do, and twice keys and values */
template <int h> constexpr int shared_bytes = 2 * h *(2 * queries + 2 * 2 * keys<h>);

/* Of row g + 8 half of fragment i. lse in powers of 2; behind the end of the sequence infinite, so that weights are
 * 0. */
struct rows_terms {
    float lse[m][2], delta[m][2];
};

TV_ATTENTION_DEVICE rows_terms rows_of(const row_terms &terms, int first, int end)
{
    rows_terms mine;
#pragma unroll
    for (int i = 0; i < 2 * m; i++) {
        const int row = first + 8 * i + static_cast<int>(threadIdx.x % 32) / 4;
        mine.lse[i / 2][i % 2] = row < end ? terms.lse[row] * tv_log2_e : INFINITY;
        mine.delta[i / 2][i % 2] = row < end ? terms.delta[row] : 0;
    }
    return mine;
}

/* scores and the products do.v -> ds in place of the latter. drop_scale: of what is kept */
template <int h, bool drops, int n>
TV_ATTENTION_DEVICE void score_gradients(float (&ds)[m][n][4], const float (&scores)[m][n][4],
                                         const rows_terms &rows, const uint32_t (&kept)[m],
                                         float drop_scale)
{
    constexpr float scale = tv_score_scale<h> * tv_log2_e;
#pragma unroll
    for (int i = 0; i < m; i++) {
#pragma unroll
        for (int j = 0; j < n; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float p = tv_exp2(scores[i][j][e] * scale - rows.lse[i][e / 2]);
                float dp = ds[i][j][e];
                if (drops)
                    dp = tv_is_kept(kept[i], j, e) ? dp * drop_scale : 0;
                ds[i][j][e] = p * (dp - rows.delta[i][e / 2]);
            }
        }
    }
}

template <int h>
TV_ATTENTION_DEVICE void load_keys(const tv_attention_backward_args &a, uint16_t *tiles,
                                   int64_t base, int kv, int from, bool is_aligned)
{
    const int rows = a.seq_length - from;
    tv_tile_load<keys<h>, h, threads>(tiles,
                                      part_in<h>(a.k, a.ld_k, base + from, kv, rows, is_aligned));
    tv_tile_load<keys<h>, h, threads>(tiles + keys<h> * h,
                                      part_in<h>(a.v, a.ld_v, base + from, kv, rows, is_aligned));
}

template <int h, bool drops>
__global__ void __launch_bounds__(threads)
    attention_backward_queries(const tv_attention_backward_args a, bool is_aligned)
{
    constexpr int columns = at_once<h, drops>;
    TV_SHARED_DYNAMIC(uint16_t, shared);
    const int head = static_cast<int>(blockIdx.x) % a.num_heads;
    const int kv = head / (a.num_heads / a.num_kv_heads);
    const int64_t sequence = static_cast<int64_t>(blockIdx.x) / a.num_heads,
                  base = sequence * a.seq_length;
    const int first = static_cast<int>(gridDim.y - 1 - blockIdx.y) * queries;
    const int end = tv_lesser(first + queries, a.seq_length), rows = a.seq_length - first;
    const int row = static_cast<int>(threadIdx.x / 32) * 16 * m;
    const tv_seen seen = {a.first_keys, base, a.seq_length};
    uint16_t *tile_q = shared, *tile_do = tile_q + queries * h, *tiles = tile_do + queries * h;

    int from = tv_first_key_of(a.first_keys, base + first) / keys<h> * keys<h>;
    tv_tile_load<queries, h, threads>(
        tile_q, part_in<h>(a.q, a.ld_q, base + first, head, rows, is_aligned));
    tv_tile_load<queries, h, threads>(
        tile_do, part_in<h>(a.d_o, a.ld_do, base + first, head, rows, is_aligned));
    load_keys<h>(a, tiles, base, kv, from, is_aligned);
    tv_copy_async_commit();
    const rows_terms terms = rows_of(terms_of(a, sequence, head), first + row, a.seq_length);

    float dq[m][h / 8][4] = {};
    for (int buffer = 0; from < end; from += keys<h>, buffer ^= 1) {
        uint16_t *tile_k = tiles + buffer * 2 * keys<h> * h, *tile_v = tile_k + keys<h> * h;
        tv_copy_async_wait<0>();
        __syncthreads(); /* the tile is there, and nobody reads the other buffer any more */
        if (from + keys<h> < end)
            load_keys<h>(a, tiles + (buffer ^ 1) * 2 * keys<h> * h, base, kv, from + keys<h>,
                         is_aligned);
        tv_copy_async_commit();
        for (int part = 0; part < keys<h>; part += columns) {
            const int key = from + part;
            if (key > first + row + 16 * m - 1 || row >= rows)
                break; /* behind all queries of the warp, or it has none */
            uint32_t kept[m] = {};
            if (drops)
                tv_keep_by_query<m, columns / 8>(kept, a.dropout, base + first + row, head, key);
            float scores[m][columns / 8][4], ds[m][columns / 8][4];
            tv_tile_product<h>(scores, tile_q, row, tile_k, part);
            if (tv_hides(seen, first + row, 16 * m, key, columns))
                tv_hide(scores, seen, first + row, key);
            tv_tile_product<h>(ds, tile_do, row, tile_v, part);
            score_gradients<h, drops>(ds, scores, terms, kept, a.dropout.scale);
            tv_tile_add_product<h>(dq, ds, tile_k, part);
        }
    }
    constexpr float scale = tv_score_scale<h>;
    const float factor[m][2] = {{scale, scale}, {scale, scale}};
    tv_tile_put<h, m>(tile_q, row, dq, factor);
    tv_tile_store<h, 16 * m>(tile_q, row,
                             part_out<h>(a.dq, a.ld_dq, base + first, head, rows, is_aligned));
}
} // namespace by_query

/* dk, dv: heads of 64 columns 4 warps with 32 keys each, of 128 columns 8 warps with 16. */
namespace by_key
{
constexpr int keys = 128, queries = 64;
/* Columns of scores in registers. Dropout's words need some, too. */
template <int h, bool drops> constexpr int at_once = h == 64 && drops ? 16 : 32;
template <int h> constexpr int m = h == 64 ? 2 : 1;
template <int h> constexpr int threads = keys / (16 * m<h>)*32;

/* Of the queries of a tile. */
struct columns_terms {
    float lse[queries], delta[queries]; /* lse in powers of 2, infinite behind the end */
    int first_key[queries];
};
template <int h>
constexpr int shared_bytes = 2 * h *(2 * keys + 2 * 2 * queries) +
                             2 * static_cast<int>(sizeof(columns_terms));

/* Where the walk over the queries that see the block's keys is: head by head, upwards. */
struct walk {
    int head, query;
};

/* What a block has to know. */
struct block_place {
    int64_t sequence, base;
    int kv, group, first; /* first: key */
};

TV_ATTENTION_DEVICE walk step(const tv_attention_backward_args &a, const block_place &at, walk now)
{
    now.query += queries;
    if (now.query < a.seq_length &&
        tv_first_key_of(a.first_keys, at.base + now.query) < at.first + keys)
        return now;
    return {now.head + 1, at.first}; /* nor do later queries see these keys */
}

template <int h>
TV_ATTENTION_DEVICE void load_queries(const tv_attention_backward_args &a, uint16_t *tiles,
                                      columns_terms *terms, const block_place &at, const walk &to,
                                      bool is_aligned)
{
    const int rows = a.seq_length - to.query, i = static_cast<int>(threadIdx.x);
    const int64_t row = at.base + to.query;
    tv_tile_load<queries, h, threads<h>>(tiles,
                                         part_in<h>(a.q, a.ld_q, row, to.head, rows, is_aligned));
    tv_tile_load<queries, h, threads<h>>(
        tiles + queries * h, part_in<h>(a.d_o, a.ld_do, row, to.head, rows, is_aligned));
    if (i >= queries)
        return;
    const row_terms from = terms_of(a, at.sequence, to.head);
    terms->lse[i] = i < rows ? from.lse[to.query + i] * tv_log2_e : INFINITY;
    terms->delta[i] = i < rows ? from.delta[to.query + i] : 0;
    terms->first_key[i] = tv_first_key_of(a.first_keys, row + (i < rows ? i : rows - 1));
}

/* Columns of scores: queries from `query` of a head, from `column` of a tile. */
struct part {
    const columns_terms *terms;
    int column, query, head;
    int64_t row; /* of the tensor */
};

/* Scores of keys [key, + 16 rows) against a part. */
template <int rows, int n>
TV_ATTENTION_DEVICE void hide(float (&scores)[rows][n][4], const part &of, int key)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int j = 0; j < 2 * n; j++) {
        const int at = j / 2 * 8 + lane % 4 * 2 + j % 2, query = of.query + at;
        const int first = of.terms->first_key[of.column + at];
#pragma unroll
        for (int i = 0; i < 2 * rows; i++) {
            const int k = key + 8 * i + lane / 4;
            if (k > query || k < first)
                scores[i / 2][j / 2][i % 2 * 2 + j % 2] = -INFINITY;
        }
    }
}

/* scores -> p after dropout, whose scale comes at the end; the products v.do -> ds. */
template <int h, bool drops, int rows, int n>
TV_ATTENTION_DEVICE void weights_and_gradients(float (&p)[rows][n][4], float (&ds)[rows][n][4],
                                               const part &of, const uint32_t (&kept)[rows],
                                               float drop_scale)
{
    constexpr float scale = tv_score_scale<h> * tv_log2_e;
#pragma unroll
    for (int j = 0; j < n; j++) {
        const int at = of.column + 8 * j + static_cast<int>(threadIdx.x % 4) * 2;
        const float lse[2] = {of.terms->lse[at], of.terms->lse[at + 1]};
        const float delta[2] = {of.terms->delta[at], of.terms->delta[at + 1]};
#pragma unroll
        for (int i = 0; i < rows; i++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float weight = tv_exp2(p[i][j][e] * scale - lse[e % 2]);
                const bool is_kept = !drops || tv_is_kept(kept[i], j, e);
                const float dp = drops ? (is_kept ? ds[i][j][e] * drop_scale : 0) : ds[i][j][e];
                ds[i][j][e] = weight * (dp - delta[e % 2]);
                p[i][j][e] = is_kept ? weight : 0;
            }
        }
    }
}

/* A warp's sums, [16 m, h] each. */
template <int h> struct sums {
    float dk[m<h>][h / 8][4], dv[m<h>][h / 8][4];
};

/* What a tile of queries and their do adds. row: the warp's first key in the block's tiles, `key` in the sequence */
template <int h, bool drops>
TV_ATTENTION_DEVICE void
add_queries(sums<h> &sum, uint16_t *tile_k, uint16_t *tile_q, const columns_terms &terms,
            const tv_attention_backward_args &a, const block_place &at, const walk &now)
{
    const int row = static_cast<int>(threadIdx.x / 32) * 16 * m<h>, key = at.first + row;
    constexpr int columns = at_once<h, drops>;
    uint16_t *tile_v = tile_k + keys * h, *tile_do = tile_q + queries * h;
    for (int column = 0; column < queries; column += columns) {
        const part of = {&terms, column, now.query + column, now.head,
                         at.base + now.query + column};
        if (of.query + columns <= key || of.query >= a.seq_length)
            continue; /* before all keys of the warp, or behind the end */
        uint32_t kept[m<h>] = {};
        if (drops)
            tv_keep_by_key<m<h>, columns / 8>(kept, a.dropout, of.row, of.head, key);
        float p[m<h>][columns / 8][4], ds[m<h>][columns / 8][4];
        tv_tile_product<h>(p, tile_k, row, tile_q, column);
        if (key + 16 * m<h> - 1 > of.query || terms.first_key[column + columns - 1] > key)
            hide(p, of, key);
        tv_tile_product<h>(ds, tile_v, row, tile_do, column);
        weights_and_gradients<h, drops>(p, ds, of, kept, a.dropout.scale);
        tv_tile_add_product<h>(sum.dv, p, tile_do, column);
        tv_tile_add_product<h>(sum.dk, ds, tile_q, column);
    }
}

/* The sums are complete: into the warp's own rows of the tiles of keys and values, and from there to where they
 * belong. */
template <int h>
TV_ATTENTION_DEVICE void finish(const sums<h> &sum, uint16_t *tile_k,
                                const tv_attention_backward_args &a, const block_place &at,
                                bool is_aligned)
{
    const int row = static_cast<int>(threadIdx.x / 32) * 16 * m<h>, rows = a.seq_length - at.first;
    const float kept = a.dropout.threshold > 0 ? a.dropout.scale : 1;
    uint16_t *tile_v = tile_k + keys * h;
    float for_k[m<h>][2], for_v[m<h>][2];
    for (int i = 0; i < 2 * m<h>; i++) {
        for_k[i / 2][i % 2] = tv_score_scale<h>;
        for_v[i / 2][i % 2] = kept;
    }
    tv_tile_put<h, m<h>>(tile_k, row, sum.dk, for_k);
    tv_tile_put<h, m<h>>(tile_v, row, sum.dv, for_v);
    tv_tile_store<h, 16 * m<h>>(
        tile_k, row, part_out<h>(a.dk, a.ld_dk, at.base + at.first, at.kv, rows, is_aligned));
    tv_tile_store<h, 16 * m<h>>(
        tile_v, row, part_out<h>(a.dv, a.ld_dv, at.base + at.first, at.kv, rows, is_aligned));
}

template <int h, bool drops>
__global__ void __launch_bounds__(threads<h>)
    attention_backward_keys(const tv_attention_backward_args a, bool is_aligned)
{
    TV_SHARED_DYNAMIC(uint16_t, shared);
    const int64_t sequence = static_cast<int64_t>(blockIdx.x) / a.num_kv_heads;
    const block_place at = {sequence, sequence * a.seq_length,
                            static_cast<int>(blockIdx.x) % a.num_kv_heads,
                            a.num_heads / a.num_kv_heads, static_cast<int>(blockIdx.y) * keys};
    const int rows = a.seq_length - at.first, end = (at.kv + 1) * at.group;
    constexpr int tile = 2 * queries * h; /* queries and their do */
    uint16_t *tile_k = shared, *tiles = tile_k + 2 * keys * h;
    columns_terms *terms = reinterpret_cast<columns_terms *>(tiles + 2 * tile);

    walk now = {at.kv * at.group, at.first};
    tv_tile_load<keys, h, threads<h>>(
        tile_k, part_in<h>(a.k, a.ld_k, at.base + at.first, at.kv, rows, is_aligned));
    tv_tile_load<keys, h, threads<h>>(
        tile_k + keys * h, part_in<h>(a.v, a.ld_v, at.base + at.first, at.kv, rows, is_aligned));
    load_queries<h>(a, tiles, terms, at, now, is_aligned);
    tv_copy_async_commit();

    sums<h> sum = {};
    for (int buffer = 0; now.head < end; buffer ^= 1) {
        const walk next = step(a, at, now);
        tv_copy_async_wait<0>();
        __syncthreads(); /* the tile is there, and nobody reads the other buffer any more */
        if (next.head < end)
            load_queries<h>(a, tiles + (buffer ^ 1) * tile, terms + (buffer ^ 1), at, next,
                            is_aligned);
        tv_copy_async_commit();
        add_queries<h, drops>(sum, tile_k, tiles + buffer * tile, terms[buffer], a, at, now);
        now = next;
    }
    finish(sum, tile_k, a, at, is_aligned);
}
} // namespace by_key

template <int h> tv_status_t launch(tv_stream *stream, const tv_attention_backward_args *a)
{
    const bool is_aligned = tv_is_aligned_16(a->q, a->ld_q) && tv_is_aligned_16(a->k, a->ld_k) &&
                            tv_is_aligned_16(a->v, a->ld_v) && tv_is_aligned_16(a->d_o, a->ld_do) &&
                            tv_is_aligned_16(a->dq, a->ld_dq) &&
                            tv_is_aligned_16(a->dk, a->ld_dk) && tv_is_aligned_16(a->dv, a->ld_dv);
    const bool drops = a->dropout.threshold > 0;
    const unsigned batch = static_cast<unsigned>(a->batch);
    const unsigned query_tiles =
        static_cast<unsigned>((a->seq_length + by_query::queries - 1) / by_query::queries);
    const unsigned key_tiles =
        static_cast<unsigned>((a->seq_length + by_key::keys - 1) / by_key::keys);
    TV_TRY(tv_attention_row_terms<__nv_bfloat16>(stream, a));
    TV_TRY(tv_launch_shared(drops ? by_key::attention_backward_keys<h, true>
                                  : by_key::attention_backward_keys<h, false>,
                            dim3(batch * static_cast<unsigned>(a->num_kv_heads), key_tiles),
                            by_key::threads<h>, by_key::shared_bytes<h>, stream, *a, is_aligned));
    return tv_launch_shared(drops ? by_query::attention_backward_queries<h, true>
                                  : by_query::attention_backward_queries<h, false>,
                            dim3(batch * static_cast<unsigned>(a->num_heads), query_tiles),
                            by_query::threads, by_query::shared_bytes<h>, stream, *a, is_aligned);
}
} // namespace

extern "C" tv_status_t TV_CUDA_F32(attention_backward)(tv_stream *stream,
                                                       const tv_attention_backward_args *a)
{
    return tv_attention_backward_general<float>(stream, a);
}

extern "C" tv_status_t TV_CUDA_BF16(attention_backward)(tv_stream *stream,
                                                        const tv_attention_backward_args *a)
{
    if (tv_attention_backward_is_for_hopper(stream, a))
        return tv_attention_backward_hopper(stream, a);
    switch (a->head_dim) {
    case 64:
        return launch<64>(stream, a);
    case 128:
        return launch<128>(stream, a);
    default:
        return tv_attention_backward_general<__nv_bfloat16>(stream, a);
    }
}
