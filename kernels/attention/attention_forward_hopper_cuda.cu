/* attention_forward_hopper_cuda.cu -- causal attention of bf16 on Hopper (sm_90a), heads of 64 and 128 columns: after
 * FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608, algorithm 2). What it computes is attention_forward_cuda.cu's:
 * softmax in fp32 by powers of 2, weights rounded to bf16 for the product with the values.
 *
 * A block stays on its multiprocessor and takes tiles of 64 queries per warpgroup, 128 or 192, one after another. One
 * warp copies by TMA: queries once a tile, keys and values through rings of stages, ahead into the next tile. The other
 * warpgroups multiply: while the tensor cores work on scores of the next keys and on the sum over the present values,
 * a warpgroup softens scores; warpgroups take turns at starting products, so that one softens while another multiplies.
 * Keys come from the diagonal down, only tiles that hide something are masked. One tile goes over into the next: its
 * last values are added beside the next one's first scores.
 *
 * Blocks take the next tile when they are free: of planes (sequence and head) whose keys and values together stay in
 * the second-level cache, of those the longest tiles first. What a tile computes does not depend on who takes it.
 * 4 B heads h pairs FLOPs. */
#include "kernels/attention/attention_forward_hopper_softmax_internal.h"
#include "kernels/attention/attention_hopper_internal.h"

using namespace tv_forward;

namespace
{
/* One arrival of the warp. */
TV_ATTENTION_DEVICE void release(uint64_t *empty)
{
    if (threadIdx.x % 32 == 0)
        tv_barrier_arrive(empty);
}

/* Warpgroups start products in turns: named barriers from 1. */
template <typename P> TV_ATTENTION_DEVICE void await_turn(int group)
{
    tv_named_sync(1 + group, 256);
}
template <typename P> TV_ATTENTION_DEVICE void pass_turn(int group)
{
    tv_named_arrive(1 + (group + 1) % P::groups, 256);
}

/* scores = q k^T: starts it. q, k: operands from their first row and column */
template <typename P>
TV_ATTENTION_DEVICE void start_scores(multiplier<P> &r, uint64_t q, uint64_t k)
{
    tv_wgmma_fence();
#pragma unroll
    for (int i = 0; i < P::h / 16; i++)
        tv_wgmma_ss<tv_k_major, tv_k_major>(
            r.scores, tv_wgmma_on(q, i / 4 * P::q_panel + i % 4 * 32),
            tv_wgmma_on(k, i / 4 * P::kv_panel + i % 4 * 32), i > 0);
    tv_wgmma_commit();
}

/* sum += weights v: starts it. */
template <typename P> TV_ATTENTION_DEVICE void start_sum(multiplier<P> &r, uint64_t v)
{
    tv_wgmma_fence();
#pragma unroll
    for (int i = 0; i < keys / 16; i++)
        tv_wgmma_rs<tv_mn_major>(r.sum, r.weights[i], tv_wgmma_on(v, i * 2048), true);
    tv_wgmma_commit();
}

/* The present block's scores are there: away with its keys, and with the queries behind the last one. */
template <typename P>
TV_ATTENTION_DEVICE void take_scores(multiplier<P> &r, const work &w, barriers<P> &b)
{
    tv_wgmma_keep(r.scores);
    release(&b.k_empty[r.nth % P::stages]);
    if (r.block == r.low)
        release(&b.q_empty[r.nth_q % 2]);
    if (r.block < r.bare_low || r.block >= r.bare_high)
        hide(r, w, b.tiles[r.nth_q % 4]);
}

/* The weights of a tile are complete: lse, and factors for its sums. Then the next tile's weights. */
template <typename P>
TV_ATTENTION_DEVICE void settle(multiplier<P> &r, const work &w, const tile &t, float (&factor)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float weight = r.weight[half];
        weight += __shfl_xor_sync(0xffffffffu, weight, 1);
        weight += __shfl_xor_sync(0xffffffffu, weight, 2);
        factor[half] = 1 / weight;
        const int row = row_of(r, t.first) + 8 * half;
        if (threadIdx.x % 4 == 0 && row < t.end)
            w.lse[static_cast<int64_t>(t.plane) * w.seq_length + row] =
                r.top[half] * tv_score_scale<P::h> + logf(weight);
        r.top[half] = -INFINITY;
        r.weight[half] = 0;
    }
}

/* The sums of a tile are complete: o through shared memory by TMA, which leaves out rows behind the sequence's end. */
template <typename P>
TV_ATTENTION_DEVICE void store(multiplier<P> &r, const maps &m, const work &w, const tile &t,
                               const float (&factor)[2], unsigned char *room)
{
    const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4;
    if (lane == 0)
        tv_bulk_wait_read<0>(); /* the last tile's rows have left the room */
    __syncwarp();
#pragma unroll
    for (int i = 0; i < P::h / 4; i++) { /* pairs: column 8 (i / 2) + 2 t of row g + 8 (i % 2) */
        const int half = i % 2, chunk = i / 2 % 8, panel = i / 16;
        unsigned char *to =
            room + panel * store_bytes + (g + 8 * half) * 128 + ((chunk ^ g) * 16) + lane % 4 * 4;
        *reinterpret_cast<uint32_t *>(to) =
            tv_pack_bf16(r.sum[2 * i] * factor[half], r.sum[2 * i + 1] * factor[half]);
        r.sum[2 * i] = 0;
        r.sum[2 * i + 1] = 0;
    }
    tv_fence_async();
    __syncwarp();
    if (lane == 0 && t.first + 64 * r.group < t.end) {
        const int sequence = t.plane / w.num_heads, head = t.plane % w.num_heads;
        for (int i = 0; i < P::panels; i++)
            tv_tma_store(&m.o, room + i * store_bytes, head * P::h + 64 * i, row_of(r, t.first),
                         sequence);
        tv_bulk_commit();
    }
}

/* The compiler sees that all lanes of a warp have the same. */
TV_ATTENTION_DEVICE int as_one(int x)
{
    return __shfl_sync(0xffffffffu, x, 0);
}

/* To the first block of keys of the next tile, past one that is hidden from all of the warpgroup's queries; false:
 * there are no more tiles. A warpgroup whose queries are all behind the tile's end works for nothing. */
template <typename P>
TV_ATTENTION_DEVICE bool next_tile(multiplier<P> &r, const work &w, barriers<P> &b)
{
    const auto q = place<2>::of(r.nth_q);
    tv_barrier_wait(&b.q_full[q.stage], q.phase);
    const tile &t = b.tiles[r.nth_q % 4];
    const int plane = as_one(t.plane);
    if (plane < 0)
        return false;
    const int first = as_one(t.first) + 64 * r.group, end = as_one(t.end);
    const int last = tv_lesser(first + 64, end) - 1, high = as_one(t.high);
    r.block = (last < first ? end - 1 : last) / keys;
    r.low = as_one(t.low);
    r.bare_low = (as_one(first_key_of(w, plane, last)) + keys - 1) / keys;
    r.bare_high = (first + 1) / keys;
    if (r.block == high - 1)
        return true;
    const auto at = place<P::stages>::of(r.nth++);
    tv_barrier_wait(&b.k_full[at.stage], at.phase);
    await_turn<P>(r.group);
    pass_turn<P>(r.group);
    release(&b.k_empty[at.stage]);
    tv_barrier_wait(&b.v_full[at.stage], at.phase);
    release(&b.v_empty[at.stage]);
    return true;
}

/* Operands of the present tile's queries, and of a stage of keys and of values. */
template <typename P> TV_ATTENTION_DEVICE uint64_t q_of(const multiplier<P> &r, tv_shared_at at)
{
    return tv_wgmma_k_major(tv_uniform(at + 64 * 128 * r.group + r.nth_q % 2 * P::q_bytes));
}
template <typename P> TV_ATTENTION_DEVICE uint64_t k_of(tv_shared_at at, int stage)
{
    return tv_wgmma_k_major(tv_uniform(at + P::k_at + stage * P::kv_bytes));
}
template <typename P> TV_ATTENTION_DEVICE uint64_t v_of(tv_shared_at at, int stage)
{
    return tv_wgmma_mn_major(tv_uniform(at + P::v_at + stage * P::kv_bytes), P::kv_panel);
}

/* All tiles. Scores of a block are made and softened while the values of the block before are added, also where
 * another tile begins between the two. */
template <typename P>
TV_ATTENTION_DEVICE void multiply(multiplier<P> &r, const maps &m, const work &w,
                                  unsigned char *shared, barriers<P> &b, unsigned char *room)
{
    const tv_shared_at at = tv_shared_place(shared);
    float factor[2];
    next_tile(r, w, b); /* there is one for every block */
    auto v = place<P::stages>::of(r.nth);
    tv_barrier_wait(&b.k_full[v.stage], v.phase);
    await_turn<P>(r.group);
    start_scores(r, q_of(r, at), k_of<P>(at, v.stage));
    pass_turn<P>(r.group);
    tv_wgmma_wait<0>();
    take_scores(r, w, b);
    raise_top(r);
    weigh(r, r.weight);
    pack(r);
    for (;;) {
        const bool is_new = r.block == r.low;
        r.nth++;
        if (!is_new)
            r.block--;
        else if (r.nth_q++, !next_tile(r, w, b))
            break;
        const auto k = place<P::stages>::of(r.nth);
        const uint64_t of_q = q_of(r, at), of_k = k_of<P>(at, k.stage), of_v = v_of<P>(at, v.stage);
        tv_barrier_wait(&b.k_full[k.stage], k.phase);
        await_turn<P>(r.group);
        start_scores(r, of_q, of_k);
        tv_barrier_wait(&b.v_full[v.stage], v.phase);
        start_sum(r, of_v);
        pass_turn<P>(r.group);
        tv_wgmma_wait<1>();
        take_scores(r, w, b);
        float shrink[2];
        if (is_new) {
            settle(r, w, b.tiles[(r.nth_q - 1) % 4], factor);
            raise_top(r);
        }
        const bool shrinks = soften(r, w, b, shrink);
        tv_wgmma_wait<0>();
        tv_wgmma_keep(r.sum);
        tv_wgmma_keep(r.scores); /* packed from here on */
        release(&b.v_empty[v.stage]);
        if (is_new)
            store(r, m, w, b.tiles[(r.nth_q - 1) % 4], factor, room);
        else if (shrinks)
            shrink_sum(r, shrink);
        pack(r);
        v = k;
    }
    tv_barrier_wait(&b.v_full[v.stage], v.phase);
    start_sum(r, v_of<P>(at, v.stage));
    settle(r, w, b.tiles[(r.nth_q - 1) % 4], factor);
    tv_wgmma_wait<0>();
    tv_wgmma_keep(r.sum);
    store(r, m, w, b.tiles[(r.nth_q - 1) % 4], factor, room);
}

/* Before the first tile. */
template <typename P> TV_ATTENTION_DEVICE void begin(multiplier<P> &r)
{
    r.nth = r.nth_q = 0;
#pragma unroll
    for (int half = 0; half < 2; half++)
        r.top[half] = -INFINITY;
#pragma unroll
    for (int i = 0; i < P::h / 2; i++)
        r.sum[i] = 0;
}

template <typename P> TV_ATTENTION_DEVICE void init(barriers<P> &b)
{
    for (int i = 0; i < 2; i++) {
        tv_barrier_init(&b.q_full[i], 1);
        tv_barrier_init(&b.q_empty[i], 4 * P::groups);
    }
    for (int i = 0; i < P::stages; i++) {
        tv_barrier_init(&b.k_full[i], 1);
        tv_barrier_init(&b.v_full[i], 1);
        tv_barrier_init(&b.k_empty[i], 4 * P::groups);
        tv_barrier_init(&b.v_empty[i], 4 * P::groups);
    }
    tv_barriers_ready();
}

template <typename P>
__global__ void __launch_bounds__(P::threads, 1)
    attention_forward_wgmma(const __grid_constant__ maps m, const work w)
{
    TV_SHARED_DYNAMIC(unsigned char, dynamic);
    __shared__ barriers<P> b;
    unsigned char *shared = tv_shared_1024(dynamic);
    if (threadIdx.x == 0)
        init<P>(b);
    __syncthreads();
    if (threadIdx.x < 128) {
        tv_registers_fewer<P::copy_registers>();
        if (threadIdx.x == 0)
            copy<P>(m, w, shared, b);
        return;
    }
    tv_registers_more<P::multiply_registers>();
    multiplier<P> r;
    /* the compiler sees that a warp's lanes go the same way */
    const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32 - 4, 0);
    r.group = warp / 4;
    unsigned char *room = shared + P::o_at + warp * P::panels * store_bytes;
    if (r.group == P::groups - 1)
        pass_turn<P>(r.group); /* the first one begins */
    begin(r);
    multiply(r, m, w, shared, b, room);
    if (threadIdx.x % 32 == 0)
        tv_bulk_wait<0>();
}

template <typename P> tv_status_t launch(tv_stream *stream, const tv_attention_args *a)
{
    maps m;
    TV_TRY(tv_map_queries(&m.q, a, a->q, a->ld_q, P::queries));
    TV_TRY(tv_map_keys(&m.k, a, a->k, a->ld_k, keys));
    TV_TRY(tv_map_keys(&m.v, a, a->v, a->ld_v, keys));
    TV_TRY(tv_map_queries(&m.o, a, a->o, a->ld_o, warp_rows));
    work w = {};
    w.q = static_cast<const uint16_t *>(a->q);
    w.k = static_cast<const uint16_t *>(a->k);
    w.ld_q = a->ld_q;
    w.ld_k = a->ld_k;
    w.lse = a->lse;
    w.first_keys = a->first_keys;
    w.seq_length = a->seq_length;
    w.num_heads = a->num_heads;
    w.num_kv_heads = a->num_kv_heads;
    w.num_planes = a->batch * a->num_heads;
    w.tiles = static_cast<int>(tv_ceil_div(a->seq_length, P::queries));
    w.shorter = static_cast<int>(64 * tv_ceil_div(a->seq_length - (w.tiles - 1) * P::queries, 64));
    const int64_t kv_heads = cached_bytes / (static_cast<int64_t>(a->seq_length) * P::h * 4);
    const int64_t planes = (kv_heads < 1 ? 1 : kv_heads) * (a->num_heads / a->num_kv_heads);
    w.at_once = static_cast<int>(planes < w.num_planes ? planes : w.num_planes);
    void *taken;
    TV_TRY(tv_cuda_workspace(stream, sizeof(int), &taken));
    w.taken = static_cast<int *>(taken);
    TV_TRY(tv_cuda_status(
        cudaMemsetAsync(taken, 0, sizeof(int), static_cast<cudaStream_t>(tv_cuda_stream(stream))),
        "a counter of tiles"));
    return tv_launch_shared(attention_forward_wgmma<P>,
                            dim3(tv_hopper_blocks(stream, w.num_planes * w.tiles)), P::threads,
                            P::shared_bytes, stream, m, w);
}
} // namespace

bool tv_attention_forward_is_for_hopper(const tv_stream *stream, const tv_attention_args *a)
{
    const int64_t tiles = static_cast<int64_t>(a->batch) * a->num_heads *
                          (static_cast<int64_t>(a->seq_length) / 128 + 1);
    return tiles < INT32_MAX / 2 && tiles > 0 && tv_attention_is_for_hopper(stream, a);
}

tv_status_t tv_attention_forward_hopper(tv_stream *stream, const tv_attention_args *a)
{
    return a->head_dim == 64 ? launch<plan<64, 3>>(stream, a) : launch<plan<128, 2>>(stream, a);
}
