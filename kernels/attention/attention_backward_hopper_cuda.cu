/* attention_backward_hopper_cuda.cu -- backward of causal attention of bf16 on Hopper (wgmma, TMA), heads of 64 and 128
 * columns: after FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608). What it computes: attention_backward_cuda.cu.
 *
 * A block takes task after task: 128 keys of one head of keys, and a walk over the queries that see them, down to the
 * diagonal, by tiles of 128 (h = 64) or 64 queries. One warp loads tiles ahead. Two warpgroups have 64 keys each:
 * s^T = k q^T and dp^T = v do^T leave p^T and ds^T in registers as they must lie for dv += p^T do and dk += ds^T q,
 * whose sums stay there; ds^T also goes to shared memory for dq = ds k of all 128 keys. Five products per pair.
 *
 * dq's sums are fp32 in global memory, added up by three warps in one order, so that the bits are always the same: of
 * a tile of queries first come the first keys that it sees, which store, then tile by tile of keys the next ones, which
 * add. The last ones, on the diagonal, add their part and store bf16. Tasks whose keys come first have the most to do
 * and start first; one that starts together with the task before it waits for one step, once. Why none waits for ever:
 * attention_backward_hopper_internal.h.
 *
 * 10 B heads h pairs FLOPs. Shared memory of 200 to 227 KiB: one block per SM. */
#include "kernels/attention/attention_backward_hopper_internal.h"
#include "kernels/attention/attention_hopper_internal.h"

namespace
{
using namespace tv_backward;

/* A thread: warpgroup 0 or 1, row (of its first element; the other is 8 on) in the block's keys, lane % 4. */
struct self {
    int group, row, t;
};

/* s^T or dp^T [64, queries] of a warpgroup: keys or values from `rows` on with a tile of queries or do. */
template <int h>
TV_HOPPER void start_scores(float (&s)[queries<h> / 2], tv_shared_at rows, tv_shared_at columns)
{
    const uint64_t a = tv_wgmma_k_major(rows), b = tv_wgmma_k_major(columns);
    tv_wgmma_forget(s);
    tv_wgmma_fence();
#pragma unroll
    for (int i = 0; i < h / 16; i++) {
        const uint32_t in = static_cast<uint32_t>(i % 4 * 32), panel = static_cast<uint32_t>(i / 4);
        tv_wgmma_ss<tv_k_major, tv_k_major>(s, tv_wgmma_on(a, panel * keys * 128 + in),
                                            tv_wgmma_on(b, panel * queries<h> * 128 + in), i > 0);
    }
    tv_wgmma_commit();
}

/* The a fragments of the next product. */
template <int n> struct fragments {
    uint32_t word[n][4];
};
template <int n> TV_HOPPER void keep(fragments<n> &x)
{
#pragma unroll
    for (int i = 0; i < 4 * n; i++)
        tv_not_ahead(x.word[i / 4][i % 4]);
}

/* What follows goes by parts of 64 queries: 4 fragments, 32 elements of a thread. */
template <int n> TV_HOPPER void pack(fragments<n> &to, const float (&from)[8 * n], int part)
{
#pragma unroll
    for (int i = 16 * part; i < 16 * part + 16; i++) {
        to.word[i / 4][i % 4] = tv_pack_bf16(from[2 * i], from[2 * i + 1]);
        tv_not_ahead(to.word[i / 4][i % 4]);
    }
}

/* sum [64, h] of a warpgroup += a part of x [64, queries] times a tile of queries or do; adds: else the first part
 * begins the sum. */
template <int h>
TV_HOPPER void start_sum(float (&sum)[h / 2], fragments<queries<h> / 16> &x, tv_shared_at tile,
                         int part, bool adds)
{
    const uint64_t b = tv_wgmma_mn_major(tile, queries<h> * 128);
    if (part == 0)
        tv_wgmma_keep(sum);
    tv_wgmma_fence();
#pragma unroll
    for (int i = 4 * part; i < 4 * part + 4; i++)
        tv_wgmma_rs<tv_mn_major>(sum, x.word[i], tv_wgmma_on(b, static_cast<uint32_t>(i) * 2048),
                                 i > 0 || adds);
    tv_wgmma_commit();
}

/* A warpgroup's part of dq, [64, 64]: rows or columns 64 g on, over all keys. */
template <int h>
TV_HOPPER void start_dq(float (&dq)[32], tv_shared_at ds, tv_shared_at k, int group)
{
    const uint32_t of_ds = h == 64 ? static_cast<uint32_t>(group) * keys * 128 : 0;
    const uint32_t of_k = h == 64 ? 0 : static_cast<uint32_t>(group) * keys * 128;
    const uint64_t a = tv_wgmma_mn_major(ds + of_ds, keys * 128),
                   b = tv_wgmma_mn_major(k + of_k, keys * 128);
    tv_wgmma_forget(dq);
    tv_wgmma_fence();
#pragma unroll
    for (int i = 0; i < keys / 16; i++)
        tv_wgmma_ss<tv_mn_major, tv_mn_major>(dq, tv_wgmma_on(a, static_cast<uint32_t>(i) * 2048),
                                              tv_wgmma_on(b, static_cast<uint32_t>(i) * 2048),
                                              i > 0);
    tv_wgmma_commit();
}

/* Scores of keys `key` and key + 8 with the queries of a tile: -inf where the query does not see the key. */
template <int h>
TV_HOPPER void hide(float (&s)[queries<h> / 2], const tile_terms<h> &terms, int query, int key,
                    int t)
{
#pragma unroll
    for (int i = 0; i < queries<h> / 2; i++) {
        const int column = i / 4 * 8 + 2 * t + i % 2, k = key + i % 4 / 2 * 8;
        const bool is_hidden = (k > query + column) | (k < terms.first_key[column]);
        s[i] = is_hidden ? -INFINITY : s[i];
    }
}

/* scores -> weights */
template <int h>
TV_HOPPER void soften(float (&s)[queries<h> / 2], const tile_terms<h> &terms, int t, int part)
{
    constexpr float scale = tv_score_scale<h> * tv_log2_e;
#pragma unroll
    for (int j = 8 * part; j < 8 * part + 8; j++) {
        float lse[2];
        tv_load_floats<2>(terms.lse + 8 * j + 2 * t, lse);
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[4 * j + e] = tv_exp2(s[4 * j + e] * scale - lse[e % 2]);
    }
}

/* weights, and the products v.do -> gradients of scores in place of the latter */
template <int h>
TV_HOPPER void differentiate(float (&dp)[queries<h> / 2], const float (&p)[queries<h> / 2],
                             const tile_terms<h> &terms, int t, int part)
{
#pragma unroll
    for (int j = 8 * part; j < 8 * part + 8; j++) {
        float delta[2];
        tv_load_floats<2>(terms.delta + 8 * j + 2 * t, delta);
#pragma unroll
        for (int e = 0; e < 4; e++)
            dp[4 * j + e] = p[4 * j + e] * (dp[4 * j + e] - delta[e % 2]);
    }
}

/* ds^T into its tile, panels of [keys, 64]: a fragment is four matrices, of rows 0 and 8 on of the warp's. */
template <int h>
TV_HOPPER void put_ds(uint16_t *tile, const fragments<queries<h> / 16> &ds, const self &me)
{
    const int lane = static_cast<int>(threadIdx.x % 32), row = me.row - lane / 4 + lane % 16;
    const tv_shared_at at = tv_shared_place(tile + row * 64);
    uint32_t chunk = static_cast<uint32_t>(lane / 16 ^ (row & 7));
    tv_not_ahead(chunk);
#pragma unroll
    for (int i = 0; i < queries<h> / 16; i++)
        tv_stmatrix(at + i / 4 * keys * 128 + (chunk ^ i % 4 * 2) * 16, ds.word[i]);
}

/* The part of dq into its tile: matrices of the even columns of eight, and of the odd ones. */
template <int h> TV_HOPPER void put_dq(float *tile, const float (&dq)[32], const self &me)
{
    const int lane = static_cast<int>(threadIdx.x % 32),
              row = me.row - (h == 64 ? 0 : 64 * me.group) - lane / 4 + lane / 16 * 8 + lane % 8;
    const tv_shared_at at =
        tv_shared_place(tile + row * h) + (h == 64 ? 0 : static_cast<uint32_t>(me.group) * 256);
    uint32_t chunk = static_cast<uint32_t>(lane / 8 % 2 ^ (row & 7));
    tv_not_ahead(chunk);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t word[4] = {__float_as_uint(dq[4 * i]), __float_as_uint(dq[4 * i + 1]),
                                  __float_as_uint(dq[4 * i + 2]), __float_as_uint(dq[4 * i + 3])};
        tv_stmatrix(at + i / 4 * 128 + (chunk ^ i % 4 * 2) * 16, word);
    }
}

/* The part of a step is complete: to those who add. */
template <int h>
TV_HOPPER void hand_over_dq(room<h> &shared, float (&dq)[32], int step, const self &me)
{
    tv_wgmma_keep(dq);
    tv_barrier_wait(&shared.dq_empty[step % 2], step / 2 & 1);
    put_dq<h>(shared.dq[step % 2], dq, me);
    tv_fence_async();
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        tv_barrier_arrive(&shared.dq_full[step % 2]);
    __syncwarp(); /* the compiler sees one way for all lanes */
}

/* A warp's 16 rows of dk or dv through its rows of a tile to where they belong. */
template <int h>
TV_HOPPER void finish(uint16_t *tile, const float (&sum)[h / 2], float scale,
                      const tv_head_rows_out &to, const self &me)
{
    uint32_t first = static_cast<uint32_t>(me.row) - threadIdx.x % 32 / 4;
    tv_not_ahead(first);
    const int row = static_cast<int>(first);
    const float factor[1][2] = {{scale, scale}};
    float fragment[1][h / 8][4];
#pragma unroll
    for (int i = 0; i < h / 2; i++)
        fragment[0][i / 4][i % 4] = sum[i];
    __syncwarp();
    tv_tile_put<h, 1>(tile, row, fragment, factor);
    tv_tile_store<h, 16>(tile, row, to);
}

/* What a warpgroup has in registers: sums; s^T, then p^T; dp^T, then ds^T; a part of dq. */
template <int h> struct products {
    float dk[h / 2], dv[h / 2], p[queries<h> / 2], ds[queries<h> / 2], dq[32];
    fragments<queries<h> / 16> p_words, ds_words;
};

/* Where a warpgroup is: the block's nth task, the block's steps so far; is_first: of the task. */
struct progress {
    int n, step;
    bool is_first;
};

/* Scores, begun by the step before -> weights and their gradients as words; the products for dv and dk are begun. */
template <int h>
TV_HOPPER void gradients(products<h> &x, room<h> &shared, const progress &at, const self &me)
{
    const int stage = at.step % stages, query = shared.notes[stage].query,
              first = shared.tasks[at.n % 2].key_tile * keys, key = first + 64 * me.group;
    const tile_terms<h> &terms = shared.terms[stage];
    const tv_shared_at q = tv_shared_place(shared.tiles[stage].q),
                       d_o = tv_shared_place(shared.tiles[stage].d_o),
                       v = tv_shared_place(shared.v) + me.group * 64 * 128;
    if (at.is_first)
        tv_barrier_wait(&shared.has_values, at.n & 1);
    start_scores<h>(x.ds, v, d_o);
    tv_wgmma_wait<1>();
    tv_wgmma_keep(x.p);
    if (key + 63 > query || terms.first_key[queries<h> - 1] > key)
        hide<h>(x.p, terms, query, first + me.row, me.t);
#pragma unroll
    for (int part = 0; part < queries<h> / 64; part++) {
        soften<h>(x.p, terms, me.t, part);
        if (h == 128) { /* there are registers for weights as floats and as words */
            pack(x.p_words, x.p, part);
            start_sum<h>(x.dv, x.p_words, d_o, part, !at.is_first);
            tv_wgmma_wait<1>();
        } else if (part == 0) {
            tv_wgmma_wait<0>();
        }
        if (part == 0)
            tv_wgmma_keep(x.ds);
        differentiate<h>(x.ds, x.p, terms, me.t, part);
        if (h == 64) {
            pack(x.p_words, x.p, part);
            start_sum<h>(x.dv, x.p_words, d_o, part, !at.is_first);
        }
        pack(x.ds_words, x.ds, part);
        start_sum<h>(x.dk, x.ds_words, q, part, !at.is_first);
    }
}

/* The sums of dk and dv are complete; ds gives them room. */
template <int h>
TV_HOPPER void finish_keys(products<h> &x, const sweep &s, room<h> &shared, const task &of,
                           const self &me)
{
    tv_wgmma_keep(x.dk);
    tv_wgmma_keep(x.dv);
    const int first = of.key_tile * keys, rows = s.a.seq_length - first;
    const int64_t head_at = static_cast<int64_t>(of.kv) * h, row = of.base + first;
    uint16_t *dk = static_cast<uint16_t *>(s.a.dk), *dv = static_cast<uint16_t *>(s.a.dv);
    tv_named_sync(ds_taken, multipliers);
    finish<h>(shared.ds[0], x.dk, tv_score_scale<h>,
              {dk + row * s.a.ld_dk + head_at, s.a.ld_dk, rows, true}, me);
    finish<h>(shared.ds[0], x.dv, 1, {dv + row * s.a.ld_dv + head_at, s.a.ld_dv, rows, true}, me);
    tv_named_sync(ds_taken, multipliers);
}

template <int h> TV_HOPPER tv_shared_at keys_of(room<h> &shared, int n)
{
    return tv_shared_place(shared.k[n % key_rooms<h>]);
}

/* Begin the scores of a step, once its queries are there. */
template <int h>
TV_HOPPER void start_step(products<h> &x, room<h> &shared, const progress &at, const self &me)
{
    const int stage = at.step % stages;
    tv_barrier_wait(&shared.full[stage], at.step / stages & 1);
    start_scores<h>(x.p, keys_of<h>(shared, at.n) + me.group * 64 * 128,
                    tv_shared_place(shared.tiles[stage].q));
}

/* Is there an nth task? Its keys are there. */
template <int h> TV_HOPPER bool begin_task(room<h> &shared, int n)
{
    if (take_task(shared, n).tiles == 0)
        return false;
    tv_barrier_wait(&shared.has_keys[n % key_rooms<h>], n / key_rooms<h> & 1);
    return true;
}

/* A step but for what is done with its part of dq, which is complete. Returns whether it is the task's last one. */
template <int h>
TV_HOPPER bool take_step(products<h> &x, room<h> &shared, const progress &at, const self &me)
{
    const int stage = at.step % stages;
    uint16_t *ds = shared.ds[at.step % ds_tiles<h>];
    gradients<h>(x, shared, at, me);
    if (ds_tiles<h> == 1 && !at.is_first)
        tv_named_sync(ds_read + 1 - me.group, multipliers);
    put_ds<h>(ds, x.ds_words, me);
    tv_fence_async();
    tv_named_sync(ds_written, multipliers);
    start_dq<h>(x.dq, tv_shared_place(ds), keys_of<h>(shared, at.n), me.group);
    tv_wgmma_wait<0>();
    keep(x.p_words);
    keep(x.ds_words);
    const bool is_last = shared.notes[stage].is_last;
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
        tv_barrier_arrive(&shared.empty[stage]);
        if (is_last)
            tv_barrier_arrive(&shared.needs_keys);
    }
    __syncwarp();
    if (ds_tiles<h> == 1 && !is_last)
        tv_named_arrive(ds_read + me.group, multipliers);
    return is_last;
}

/* Where there is room for two tasks' keys, the next task's first scores are begun before this one's sums are stored. */
template <int h> TV_HOPPER void multiply(const sweep &s, room<h> &shared)
{
    const int thread = static_cast<int>(threadIdx.x) - 128;
    const self me = {__shfl_sync(0xffffffffu, thread / 128, 0), /* the compiler sees: of a warp */
                     thread / 32 * 16 + thread % 32 / 4, thread % 4};
    products<h> x = {};
    tv_wgmma_keep(x.dk);
    tv_wgmma_keep(x.dv);
    progress at = {0, 0, true};
    if (!begin_task<h>(shared, 0))
        return;
    start_step<h>(x, shared, at, me);
    for (;;) {
        const bool is_last = take_step<h>(x, shared, at, me);
        at.step++;
        at.is_first = is_last;
        if (!is_last) {
            start_step<h>(x, shared, at, me);
            hand_over_dq<h>(shared, x.dq, at.step - 1, me);
            continue;
        }
        const int n = at.n++;
        if (key_rooms<h> == 2 && begin_task<h>(shared, at.n)) {
            start_step<h>(x, shared, at, me);
            hand_over_dq<h>(shared, x.dq, at.step - 1, me);
            finish_keys<h>(x, s, shared, shared.tasks[n % 2], me);
            give_back_task(shared, n);
            continue;
        }
        hand_over_dq<h>(shared, x.dq, at.step - 1, me);
        finish_keys<h>(x, s, shared, shared.tasks[n % 2], me);
        give_back_task(shared, n);
        if (key_rooms<h> == 2 || !begin_task<h>(shared, at.n))
            return;
        start_step<h>(x, shared, at, me);
    }
}

template <int h>
__global__ void __launch_bounds__(threads, 1)
    attention_backward_wgmma(const __grid_constant__ sweep s)
{
    TV_SHARED_DYNAMIC(unsigned char, bytes);
    room<h> &shared = *reinterpret_cast<room<h> *>(tv_shared_1024(bytes));
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            tv_barrier_init(&shared.has_task[i], 1);
            tv_barrier_init(&shared.needs_task[i], (multipliers + adders) / 32);
            tv_barrier_init(&shared.dq_full[i], multipliers / 32);
            tv_barrier_init(&shared.dq_empty[i], adders / 32);
        }
        for (int i = 0; i < stages; i++) {
            tv_barrier_init(&shared.full[i], 2);
            tv_barrier_init(&shared.empty[i], multipliers / 32);
        }
        for (int i = 0; i < key_rooms<h>; i++)
            tv_barrier_init(&shared.has_keys[i], 1);
        tv_barrier_init(&shared.has_values, 1);
        tv_barrier_init(&shared.needs_keys, multipliers / 32);
        tv_barriers_ready();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        tv_registers_fewer<40>();
        if (threadIdx.x < 32)
            load<h>(s, shared);
        else
            add<h>(s, shared);
    } else {
        tv_registers_more<232>();
        multiply<h>(s, shared);
    }
}

/* Places in the stream's workspace, and what TMA reads. */
template <int h>
tv_status_t prepare(tv_stream *stream, const tv_attention_backward_args *a, sweep *s_out)
{
    sweep &s = *s_out;
    s.a = *a;
    s.key_tiles = static_cast<int>(tv_ceil_div(a->seq_length, keys));
    s.query_tiles = static_cast<int>(tv_ceil_div(a->seq_length, queries<h>));
    s.num_tasks = a->batch * a->num_kv_heads * s.key_tiles;
    const size_t tiles = static_cast<size_t>(a->batch) * static_cast<size_t>(a->num_heads) *
                         static_cast<size_t>(s.query_tiles);
    TV_TRY(tv_cuda_workspace(stream, tiles * (sizeof(tile_terms<h>) + sizeof(int)) + sizeof(int),
                             &s.terms));
    s.counts = reinterpret_cast<int *>(static_cast<tile_terms<h> *>(s.terms) + tiles);
    s.drawn = s.counts + tiles;
    TV_TRY(tv_map_queries(&s.q, a, a->q, a->ld_q, queries<h>));
    TV_TRY(tv_map_queries(&s.d_o, a, a->d_o, a->ld_do, queries<h>));
    TV_TRY(tv_map_keys(&s.k, a, a->k, a->ld_k, keys));
    return tv_map_keys(&s.v, a, a->v, a->ld_v, keys);
}

template <int h> tv_status_t launch(tv_stream *stream, const tv_attention_backward_args *a)
{
    sweep s = {};
    TV_TRY(prepare<h>(stream, a, &s));
    const dim3 heads_and_rows(static_cast<unsigned>(a->batch) * static_cast<unsigned>(a->num_heads),
                              static_cast<unsigned>(s.query_tiles * queries<h> / terms_rows<h>));
    TV_TRY(
        tv_launch(attention_backward_terms<h>, heads_and_rows, dim3(terms_threads), 0, stream, s));
    constexpr int bytes = static_cast<int>(sizeof(room<h>)) + 1024;
    static_assert(bytes <= 232448, "what a block may have");
    return tv_launch_shared(attention_backward_wgmma<h>,
                            dim3(tv_hopper_blocks(stream, s.num_tasks)), threads, bytes, stream, s);
}
} // namespace

bool tv_attention_backward_is_for_hopper(const tv_stream *stream,
                                         const tv_attention_backward_args *a)
{
    return tv_attention_is_for_hopper(stream, a) && tv_is_aligned_16(a->d_o, a->ld_do) &&
           tv_is_aligned_16(a->dq, a->ld_dq) && tv_is_aligned_16(a->dk, a->ld_dk) &&
           tv_is_aligned_16(a->dv, a->ld_dv) && tv_is_aligned<4>(a->work);
}

tv_status_t tv_attention_backward_hopper(tv_stream *stream, const tv_attention_backward_args *a)
{
    return a->head_dim == 64 ? launch<64>(stream, a) : launch<128>(stream, a);
}
