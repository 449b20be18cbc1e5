/* attention_backward_hopper_internal.h -- what stands beside the products in the backward of attention on Hopper:
 * what a block does, the warp that loads, the warps that add up dq.
 *
 * Sums of blocks in one order. A count in global memory says how many blocks have added to a tile; the block whose
 * number it is adds and counts on. A block waits only for blocks with lower tickets, which a running block has drawn:
 * whatever the order in which blocks start, and however few run at once, the lowest ticket of the running ones never
 * waits. PTX ISA: "Memory Consistency Model", "Async proxy". */
#ifndef TV_KERNELS_ATTENTION_BACKWARD_HOPPER_INTERNAL_H
#define TV_KERNELS_ATTENTION_BACKWARD_HOPPER_INTERNAL_H
#include "kernels/attention/attention_cuda_internal.h"
#include "kernels/hopper_internal.h"

#ifdef __CUDACC__
/* By one thread, until the count has that value: what was written before it was counted is seen from then on. */
static __device__ __forceinline__ void tv_count_wait(const int *count, int value)
{
    int now;
    do
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];\n" : "=r"(now) : "l"(count) : "memory");
    while (now != value);
}
/* By one thread, behind a barrier of those that wrote. */
static __device__ __forceinline__ void tv_count_set(int *count, int value)
{
    asm volatile("st.release.gpu.global.s32 [%0], %1;\n" ::"l"(count), "r"(value) : "memory");
}
/* Between plain accesses to global memory and bulk copies to and from the same places. */
static __device__ __forceinline__ void tv_fence_async_global(void)
{
    asm volatile("fence.proxy.async.global;\n" ::: "memory");
}
/* What d holds is not needed any more: its registers are free until a product writes them. */
template <int n> static __device__ __forceinline__ void tv_wgmma_forget(float (&d)[n])
{
#pragma unroll
    for (int i = 0; i < n; i++)
        asm volatile("" : "=f"(d[i]));
}
#else
/* Blocks of the emulation run one after another: who would wait now would wait for ever. */
inline void tv_count_wait(const int *count, int value)
{
    if (*count != value)
        emulation::fail("a block waits for the count %d of a tile, which is %d", value, *count);
}
inline void tv_count_set(int *count, int value)
{
    *count = value;
}
inline void tv_fence_async_global()
{
}
template <int n> void tv_wgmma_forget(float (&)[n])
{
}
#endif

namespace tv_backward
{
constexpr int keys = 128, stages = 2, together = 32;
constexpr int multipliers = 256, adders = 96, threads = 128 + multipliers;
template <int h> constexpr int queries = h == 64 ? 128 : 64;
template <int h> constexpr int panels = h / 64;

/* Named barriers. Of the two warpgroups' part of dq: 3 and 4. */
constexpr int ds_written = 1, dq_written = 2, dq_taken = 3, added = 5;

/* Of the queries of a tile. lse in powers of 2, infinite behind the end of the sequence, so that weights are 0. */
template <int h> struct tile_terms {
    float lse[queries<h>], delta[queries<h>];
    int first_key[queries<h>];
};

template <int h> struct tile_pair {
    uint16_t q[queries<h> * h], d_o[queries<h> * h];
};

/* Shared memory, at a multiple of 1024 bytes. Tiles are panels: hopper_internal.h. dq: row by row; 8 columns of row r,
 * which start at 8 u, are at 8 (u ^ (r % 8)). */
template <int h> struct room {
    uint16_t k[keys * h], v[keys * h];
    tile_pair<h> tiles[stages];
    uint16_t ds[2][keys * queries<h>]; /* transposed */
    float dq[queries<h> * h];
    tile_terms<h> terms[stages];
    uint64_t full[stages], empty[stages], has_keys;
    int ticket, num_tiles;
};

struct sweep {
    CUtensorMap q, d_o, k, v;
    tv_attention_backward_args a;
    void *terms;         /* tile_terms [batch, num_heads, query tiles] */
    int *counts, *drawn; /* of the same tiles: who has added; tickets */
    int key_tiles, query_tiles;
};

/* What a block has to do: `tiles` tiles of queries from the diagonal's first_tile on, for every head of a group. */
struct task {
    int sequence, kv, group, key_tile, first_tile, tiles;
    int64_t base; /* row of the sequence */
};

/* A walk over a task: from the last tile to the diagonal, through the heads of each. */
struct place {
    int head, tile;
};
TV_HOPPER place first_place(const task &of)
{
    return {of.kv * of.group, of.first_tile + of.tiles - 1};
}
TV_HOPPER place next_place(const task &of, place at)
{
    if (at.head + 1 < (of.kv + 1) * of.group)
        return {at.head + 1, at.tile};
    return {of.kv * of.group, at.tile - 1};
}
TV_HOPPER int64_t tile_number(const sweep &s, const task &of, place at)
{
    return (static_cast<int64_t>(of.sequence) * s.a.num_heads + at.head) * s.query_tiles + at.tile;
}

/* The first tile of keys that a tile of queries sees. */
template <int h>
TV_HOPPER int first_key_tile(const tv_attention_backward_args &a, int64_t base, int tile)
{
    return tv_first_key_of(a.first_keys, base + static_cast<int64_t>(tile) * queries<h>) / keys;
}

/* Tickets go to a number of heads together, the first keys of all of them first: the longest walks, and the first to
 * add. */
template <int h> TV_HOPPER task task_of(const sweep &s, int ticket)
{
    const int heads = s.a.batch * s.a.num_kv_heads, before = ticket / (together * s.key_tiles),
              here = tv_lesser(together, heads - before * together);
    const int rest = ticket - before * together * s.key_tiles;
    const int head = before * together + rest % here, key_tile = rest / here;
    task of;
    of.sequence = head / s.a.num_kv_heads;
    of.kv = head % s.a.num_kv_heads;
    of.group = s.a.num_heads / s.a.num_kv_heads;
    of.key_tile = key_tile;
    of.first_tile = key_tile * (keys / queries<h>);
    of.base = static_cast<int64_t>(of.sequence) * s.a.seq_length;
    of.tiles = s.query_tiles - of.first_tile;
    return of;
}

/* How many tiles of queries see a key of the task: first keys never fall. */
template <int h> TV_HOPPER int count_tiles(const sweep &s, const task &of)
{
    if (s.a.first_keys == nullptr)
        return of.tiles;
    int seeing = 1, end = of.tiles + 1; /* the diagonal's does */
    while (end - seeing > 1) {
        const int middle = seeing + (end - seeing) / 2;
        if (first_key_tile<h>(s.a, of.base, of.first_tile + middle - 1) <= of.key_tile)
            seeing = middle;
        else
            end = middle;
    }
    return seeing;
}

/* ---- the loading warp ---- */

/* A tile [rows, h] by one thread. */
template <int h, int rows>
TV_HOPPER void load_tile(const CUtensorMap *map, uint16_t *tile, uint64_t *barrier, int head,
                         int row, int sequence)
{
#pragma unroll
    for (int p = 0; p < panels<h>; p++)
        tv_tma_load(map, tile + p * rows * 64, barrier, head * h + p * 64, row, sequence);
}

template <int h> TV_HOPPER void load(const sweep &s, room<h> &shared, const task &of)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    constexpr int chunks = static_cast<int>(sizeof(tile_terms<h>) / 16);
    const int steps = of.tiles * of.group, first = of.key_tile * keys;
    if (lane == 0) {
        tv_barrier_arrive_expect(&shared.has_keys, 2 * 2 * keys * h);
        load_tile<h, keys>(&s.k, shared.k, &shared.has_keys, of.kv, first, of.sequence);
        load_tile<h, keys>(&s.v, shared.v, &shared.has_keys, of.kv, first, of.sequence);
    }
    place at = first_place(of);
    for (int n = 0; n < steps; n++, at = next_place(of, at)) {
        const int stage = n % stages;
        uint64_t *full = &shared.full[stage];
        if (n >= stages)
            tv_barrier_wait(&shared.empty[stage], (n / stages - 1) & 1);
        if (lane == 0) {
            const int row = at.tile * queries<h>;
            tv_barrier_arrive_expect(full, 2 * 2 * queries<h> * h);
            load_tile<h, queries<h>>(&s.q, shared.tiles[stage].q, full, at.head, row, of.sequence);
            load_tile<h, queries<h>>(&s.d_o, shared.tiles[stage].d_o, full, at.head, row,
                                     of.sequence);
        }
        const uint4 *from = reinterpret_cast<const uint4 *>(
            static_cast<const tile_terms<h> *>(s.terms) + tile_number(s, of, at));
        uint4 *to = reinterpret_cast<uint4 *>(&shared.terms[stage]);
        for (int i = lane; i < chunks; i += 32)
            to[i] = from[i];
        __syncwarp();
        if (lane == 0)
            tv_barrier_arrive(full);
    }
}

/* ---- the adding warps ---- */

/* Eight columns of dq: sums of the blocks before, unless there are none, and of this one, scaled, as bf16. */
template <int h> TV_HOPPER uint4 finish_unit(const float *own, const float *before, bool has_before)
{
    float x[8], y[8] = {};
    tv_load_floats<4>(own, x);
    tv_load_floats<4>(own + 4, x + 4);
    if (has_before) {
        tv_load_floats<4>(before, y);
        tv_load_floats<4>(before + 4, y + 4);
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = (y[i] + x[i]) * tv_score_scale<h>;
    return {tv_pack_bf16(x[0], x[1]), tv_pack_bf16(x[2], x[3]), tv_pack_bf16(x[4], x[5]),
            tv_pack_bf16(x[6], x[7])};
}

/* The last part of a tile's sums comes from here: dq. */
template <int h>
TV_HOPPER void finish_dq(const sweep &s, const room<h> &shared, const task &of, place at,
                         const float *sums, bool has_before)
{
    constexpr int units = h / 8;
    const int first = at.tile * queries<h>, rows = tv_lesser(queries<h>, s.a.seq_length - first);
    uint16_t *dq = static_cast<uint16_t *>(s.a.dq) + (of.base + first) * s.a.ld_dq +
                   static_cast<int64_t>(at.head) * h;
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x) - 32; i < rows * units; i += adders) {
        const int row = i / units, unit = i % units, from = row * h + (unit ^ (row & 7)) * 8;
        *reinterpret_cast<uint4 *>(dq + row * s.a.ld_dq + unit * 8) =
            finish_unit<h>(shared.dq + from, sums + from, has_before);
    }
}

template <int h> TV_HOPPER void add(const sweep &s, room<h> &shared, const task &of)
{
    const int thread = static_cast<int>(threadIdx.x) - 32, steps = of.tiles * of.group;
    for (int g = 0; g < 2; g++)
        tv_named_arrive(dq_taken + g, 128 + adders);
    place at = first_place(of);
    for (int n = 0; n < steps; n++, at = next_place(of, at)) {
        const int first = at.tile * queries<h>,
                  number = of.key_tile - first_key_tile<h>(s.a, of.base, at.tile);
        const int rows = tv_lesser(queries<h>, s.a.seq_length - first);
        const bool is_last = first / keys == of.key_tile;
        int *count = s.counts + tile_number(s, of, at);
        float *sums = s.a.work + ((static_cast<int64_t>(of.sequence) * s.a.num_heads + at.head) *
                                      s.a.seq_length +
                                  first) *
                                     h;
        if (thread == 0 && number > 0)
            tv_count_wait(count, number);
        __syncwarp();
        tv_named_sync(dq_written, multipliers + adders);
        if (is_last) {
            finish_dq<h>(s, shared, of, at, sums, number > 0);
        } else if (number == 0) {
            const float4 *from = reinterpret_cast<const float4 *>(shared.dq);
            for (int i = thread; i < rows * h / 4; i += adders)
                reinterpret_cast<float4 *>(sums)[i] = from[i];
            tv_fence_async_global();
        } else if (thread == 0) {
            tv_fence_async_global();
            tv_bulk_add(sums, shared.dq, static_cast<uint32_t>(rows * h * 4));
            tv_bulk_commit();
            tv_bulk_wait_read<0>();
        }
        __syncwarp();
        if (n + 1 < steps) {
            for (int g = 0; g < 2; g++)
                tv_named_arrive(dq_taken + g, 128 + adders);
        }
        if (!is_last) {
            tv_named_sync(added, adders);
            if (thread == 0) {
                tv_bulk_wait<0>();
                tv_fence_async_global();
                tv_count_set(count, number + 1);
            }
            __syncwarp();
        }
    }
}
} // namespace tv_backward
#endif
