/* attention_backward_hopper_internal.h -- what stands beside the products in the backward of attention on Hopper:
 * what a block does, the warp that loads, the warps that add up dq, what must be known of every row of queries before.
 *
 * A block draws tickets, each for a task, until there are none; the next one while it still works on one.
 *
 * Sums of tasks in one order. A count in global memory says how many tasks have added to a tile; the task whose number
 * it is adds and counts on. A task waits only for tasks of lower tickets. These are done or have been drawn by running
 * blocks, which work on their tickets in ascending order: whatever the order in which blocks start, and however few run
 * at once, the lowest ticket that is not done is at work and waits for nobody. PTX ISA: "Memory Consistency Model",
 * "Async proxy". */
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
constexpr int keys = 128, stages = 2;
constexpr int multipliers = 256, adders = 96, threads = 128 + multipliers;
template <int h> constexpr int queries = h == 64 ? 128 : 64;
template <int h> constexpr int panels = h / 64;
template <int h>
constexpr int together = h == 64 ? 64 : 32; /* heads: the best of 16, 32, 64 on an H200 */
template <int h> constexpr int ds_tiles = h == 64 ? 1 : 2;
template <int h> constexpr int key_rooms = h == 64 ? 2 : 1;

/* Named barriers; ds_read and the next: of each of the two warpgroups. */
constexpr int ds_written = 1, added = 2, ds_taken = 3, ds_read = 4;

/* Of the queries of a tile. lse in powers of 2, infinite behind the end of the sequence, so that weights are 0. */
template <int h> struct tile_terms {
    float lse[queries<h>], delta[queries<h>];
    int first_key[queries<h>];
};

template <int h> struct tile_pair {
    uint16_t q[queries<h> * h], d_o[queries<h> * h];
};

/* What a block has to do next: `tiles` tiles of queries from the diagonal's first_tile on, for every head of a group.
 * No tiles: nothing is left. */
struct task {
    int sequence, kv, group, key_tile, first_tile, tiles;
    int64_t base; /* row of the sequence */
};

/* Which tile of queries it is: its first, and whether it is a task's last one. */
struct tile_note {
    int query, is_last;
};

/* Shared memory, at a multiple of 1024 bytes. Tiles are panels: hopper_internal.h. dq: row by row; of 8
 * columns of row r, u-th of the row, the even ones are at 4 (2u ^ r % 8), the odd ones at 4 ((2u + 1) ^ r % 8). */
template <int h> struct room {
    uint16_t k[key_rooms<h>][keys * h], v[keys * h];
    tile_pair<h> tiles[stages];
    uint16_t ds[ds_tiles<h>][keys * queries<h>]; /* transposed */
    float dq[2][queries<h> * h]; /* of the block's even steps, and of its odd ones */
    tile_terms<h> terms[stages];
    tile_note notes[stages];
    task tasks[2]; /* the one at work and the next */
    uint64_t has_task[2], needs_task[2], has_keys[key_rooms<h>], has_values, needs_keys,
        full[stages], empty[stages], dq_full[2], dq_empty[2];
};

struct sweep {
    CUtensorMap q, d_o, k, v;
    tv_attention_backward_args a;
    void *terms;         /* tile_terms [batch, num_heads, query tiles] */
    int *counts, *drawn; /* of the same tiles: who has added; tickets */
    int key_tiles, query_tiles, num_tasks;
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
    const int heads = s.a.batch * s.a.num_kv_heads, before = ticket / (together<h> * s.key_tiles),
              here = tv_lesser(together<h>, heads - before * together<h>);
    const int rest = ticket - before * together<h> * s.key_tiles;
    const int head = before * together<h> + rest % here, key_tile = rest / here;
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

template <int h> TV_HOPPER task draw_task(const sweep &s)
{
    const int ticket = atomicAdd(s.drawn, 1);
    task of = {};
    if (ticket >= s.num_tasks)
        return of;
    of = task_of<h>(s, ticket);
    of.tiles = count_tiles<h>(s, of);
    return of;
}

/* The block's nth task, as the loading warp has drawn it, until it is given back; by whole warps. */
template <int h> TV_HOPPER const task &take_task(room<h> &shared, int n)
{
    tv_barrier_wait(&shared.has_task[n % 2], n / 2 & 1);
    return shared.tasks[n % 2];
}
template <int h> TV_HOPPER void give_back_task(room<h> &shared, int n)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        tv_barrier_arrive(&shared.needs_task[n % 2]);
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

/* Keys and values of the nth task. A second room for keys is free when the values of the task before have come: they
 * have waited for the end of the one before that. */
template <int h> TV_HOPPER void load_keys(const sweep &s, room<h> &shared, const task &of, int n)
{
    const int room_number = n % key_rooms<h>, first = of.key_tile * keys;
    uint64_t *has_keys = &shared.has_keys[room_number];
    const bool is_one = threadIdx.x % 32 == 0;
    if (key_rooms<h> == 1 && n > 0)
        tv_barrier_wait(&shared.needs_keys, (n - 1) & 1);
    if (is_one) {
        tv_barrier_arrive_expect(has_keys, 2 * keys * h);
        load_tile<h, keys>(&s.k, shared.k[room_number], has_keys, of.kv, first, of.sequence);
    }
    if (key_rooms<h> == 2 && n > 0)
        tv_barrier_wait(&shared.needs_keys, (n - 1) & 1);
    if (is_one) {
        tv_barrier_arrive_expect(&shared.has_values, 2 * keys * h);
        load_tile<h, keys>(&s.v, shared.v, &shared.has_values, of.kv, first, of.sequence);
    }
    __syncwarp();
}

/* Until the block's nth step has room for a tile of queries. */
template <int h> TV_HOPPER void wait_for_room(room<h> &shared, int n)
{
    if (n >= stages)
        tv_barrier_wait(&shared.empty[n % stages], (n / stages - 1) & 1);
}

/* The tile of queries of the block's nth step. */
template <int h>
TV_HOPPER void load_queries(const sweep &s, room<h> &shared, const task &of, place at, int n,
                            bool is_last)
{
    const int lane = static_cast<int>(threadIdx.x % 32), stage = n % stages;
    constexpr int chunks = static_cast<int>(sizeof(tile_terms<h>) / 16);
    uint64_t *full = &shared.full[stage];
    if (lane == 0) {
        tile_pair<h> &to = shared.tiles[stage];
        const int row = at.tile * queries<h>;
        tv_barrier_arrive_expect(full, 2 * 2 * queries<h> * h);
        load_tile<h, queries<h>>(&s.q, to.q, full, at.head, row, of.sequence);
        load_tile<h, queries<h>>(&s.d_o, to.d_o, full, at.head, row, of.sequence);
    }
    const uint4 *from = reinterpret_cast<const uint4 *>(
        static_cast<const tile_terms<h> *>(s.terms) + tile_number(s, of, at));
    uint4 *to = reinterpret_cast<uint4 *>(&shared.terms[stage]);
    for (int i = lane; i < chunks; i += 32)
        to[i] = from[i];
    __syncwarp();
    if (lane == 0) {
        shared.notes[stage] = {at.tile * queries<h>, is_last};
        tv_barrier_arrive(full);
    }
    __syncwarp();
}

/* A task is drawn when there is room for its first tile: a task that is drawn long before it begins keeps those waiting
 * that come after it. */
template <int h> TV_HOPPER void load(const sweep &s, room<h> &shared)
{
    for (int n = 0, step = 0;; n++) {
        wait_for_room(shared, step);
        if (threadIdx.x % 32 == 0) {
            if (n >= 2)
                tv_barrier_wait(&shared.needs_task[n % 2], (n / 2 - 1) & 1);
            shared.tasks[n % 2] = draw_task<h>(s);
            tv_barrier_arrive(&shared.has_task[n % 2]);
        }
        __syncwarp();
        const task &of = shared.tasks[n % 2];
        if (of.tiles == 0)
            return;
        place at = first_place(of);
        for (int left = of.tiles * of.group; left > 0; left--, at = next_place(of, at)) {
            wait_for_room(shared, step);
            load_queries<h>(s, shared, of, at, step++, left == 1);
            if (left == of.tiles * of.group)
                load_keys<h>(s, shared, of, n);
        }
    }
}

/* ---- the adding warps ---- */

/* What the tasks before have added up, while the block's own part is not there yet. A thread copies what it reads. */
template <int h> TV_HOPPER void fetch_sums(float *to, const float *sums, int rows)
{
    for (int i = static_cast<int>(threadIdx.x) - 32; i < rows * h / 8; i += adders) {
        tv_copy_async_16(to + 8 * i, sums + 8 * i, true);
        tv_copy_async_16(to + 8 * i + 4, sums + 8 * i + 4, true);
    }
    tv_copy_async_commit();
    tv_copy_async_wait<0>();
}

/* Eight columns of dq as bf16: sums of the tasks before and this one's, scaled. odd: where the odd ones are, 0 or 4;
 * the even ones are at the other place. */
template <int h>
TV_HOPPER uint4 finish_unit(const float *own, const float *before, bool has_before, int odd)
{
    float x[8], y[8] = {};
    tv_load_floats<4>(own + 4 - odd, x);
    tv_load_floats<4>(own + odd, x + 4);
    if (has_before) {
        tv_load_floats<4>(before + 4 - odd, y);
        tv_load_floats<4>(before + odd, y + 4);
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = (y[i] + x[i]) * tv_score_scale<h>;
    return {tv_pack_bf16(x[0], x[4]), tv_pack_bf16(x[1], x[5]), tv_pack_bf16(x[2], x[6]),
            tv_pack_bf16(x[3], x[7])};
}

/* What a step adds to: tile `at`, as the task number `number` of those that do; is_last: of them. */
struct part {
    place at;
    int number;
    bool is_last;
};
/* It ends a sum that others have begun. */
TV_HOPPER bool fetches(const part &p)
{
    return p.is_last && p.number > 0;
}
template <int h> TV_HOPPER part part_of(const sweep &s, const task &of, place at)
{
    return {at, of.key_tile - first_key_tile<h>(s.a, of.base, at.tile),
            at.tile * queries<h> / keys == of.key_tile};
}

/* The last part of a tile's sums comes from here: dq. */
template <int h>
TV_HOPPER void finish_dq(const sweep &s, const float *own, const float *before, const task &of,
                         const part &p, int rows)
{
    constexpr int units = h / 8;
    uint16_t *dq = static_cast<uint16_t *>(s.a.dq) +
                   (of.base + static_cast<int64_t>(p.at.tile) * queries<h>)*s.a.ld_dq +
                   static_cast<int64_t>(p.at.head) * h;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) - 32; i < rows * units; i += adders) {
        const int row = i / units, unit = i % units ^ (row & 7) / 2;
        *reinterpret_cast<uint4 *>(dq + row * s.a.ld_dq + unit * 8) =
            finish_unit<h>(own + 8 * i, before + 8 * i, p.number > 0, row % 2 == 0 ? 4 : 0);
    }
}

/* An addition under way: its tile's count, to be set to `number` when it is done. */
struct addition {
    int *count;
    int number;
};

/* By the thread that began it. */
TV_HOPPER void settle(addition &last)
{
    if (last.count == nullptr)
        return;
    tv_bulk_wait<0>();
    tv_fence_async_global();
    tv_count_set(last.count, last.number);
    last.count = nullptr;
}

/* The block's part of a tile's dq, once it is in shared memory. The first thread adds, or begins the sum; that of the
 * next warp waits for the tasks before. What is fetched goes to the room of the next step's part. */
template <int h>
TV_HOPPER void add_tile(const sweep &s, room<h> &shared, const task &of, const part &p, int step,
                        addition &last)
{
    const int thread = static_cast<int>(threadIdx.x) - 32, first = p.at.tile * queries<h>,
              rows = tv_lesser(queries<h>, s.a.seq_length - first);
    const int64_t head = static_cast<int64_t>(of.sequence) * s.a.num_heads + p.at.head;
    float *own = shared.dq[step % 2], *before = shared.dq[(step + 1) % 2],
          *sums = s.a.work + (head * s.a.seq_length + first) * h;
    int *count = s.counts + tile_number(s, of, p.at);
    if (thread == 32 && p.number > 0)
        tv_count_wait(count, p.number);
    __syncwarp();
    tv_named_sync(added, adders);
    if (fetches(p))
        fetch_sums<h>(before, sums, rows);
    tv_barrier_wait(&shared.dq_full[step % 2], step / 2 & 1);
    if (p.is_last) {
        finish_dq<h>(s, own, before, of, p, rows);
    } else if (thread == 0) {
        const uint32_t bytes = static_cast<uint32_t>(rows * h * 4);
        tv_fence_async_global();
        if (p.number == 0)
            tv_bulk_store(sums, own, bytes);
        else
            tv_bulk_add(sums, own, bytes);
        tv_bulk_commit();
        tv_bulk_wait_read<0>();
        last = {count, p.number + 1};
    }
    __syncwarp();
}

/* By each adding warp: there is room for the part of a step of the block. */
template <int h> TV_HOPPER void make_room(room<h> &shared, int step)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        tv_barrier_arrive(&shared.dq_empty[step % 2]);
}

/* The next step's part may come while this one's waits for its turn: not all blocks take their steps equally fast. */
template <int h> TV_HOPPER void add(const sweep &s, room<h> &shared)
{
    addition last = {};
    make_room(shared, 0);
    for (int n = 0, step = 0;; n++) {
        const task &of = take_task(shared, n);
        if (of.tiles == 0)
            return;
        place at = first_place(of);
        for (int i = 0; i < of.tiles * of.group; i++, step++, at = next_place(of, at)) {
            const part p = part_of<h>(s, of, at);
            if (!fetches(p))
                make_room(shared, step + 1);
            settle(last);
            __syncwarp();
            add_tile<h>(s, shared, of, p, step, last);
            if (fetches(p))
                make_room(shared, step + 1);
        }
        settle(last);
        give_back_task(shared, n);
    }
}

/* ---- a kernel before it ---- */

constexpr int terms_threads = 256;
template <int h> constexpr int terms_rows = terms_threads / (h / 8);

/* The terms of all tiles; no tickets are drawn, and nothing is added. h / 8 threads for a row of a head; rows of the
 * tiles behind the end of the sequence, too. Blocks: heads of all sequences, rows. */
template <int h>
__global__ void __launch_bounds__(terms_threads)
    attention_backward_terms(const __grid_constant__ sweep s)
{
    constexpr int lanes = h / 8;
    const int lane = static_cast<int>(threadIdx.x) % lanes,
              row = static_cast<int>(blockIdx.y) * terms_rows<h> +
                    static_cast<int>(threadIdx.x) / lanes;
    const int sequence = static_cast<int>(blockIdx.x) / s.a.num_heads,
              head = static_cast<int>(blockIdx.x) % s.a.num_heads;
    const int64_t base = static_cast<int64_t>(sequence) * s.a.seq_length, at = base + row;
    const int64_t column = static_cast<int64_t>(head) * h + lane * 8;
    const bool is_row = row < s.a.seq_length;
    float delta = 0;
    if (is_row) {
        float o[8], d_o[8];
        tv_load_floats<8>(static_cast<const __nv_bfloat16 *>(s.a.o) + at * s.a.ld_o + column, o);
        tv_load_floats<8>(static_cast<const __nv_bfloat16 *>(s.a.d_o) + at * s.a.ld_do + column,
                          d_o);
#pragma unroll
        for (int e = 0; e < 8; e++)
            delta += o[e] * d_o[e];
    }
#pragma unroll
    for (int bits = lanes / 2; bits > 0; bits /= 2)
        delta += __shfl_xor_sync(0xffffffffu, delta, bits);
    if (lane != 0)
        return;
    const int64_t plane = blockIdx.x, tile = plane * s.query_tiles + row / queries<h>;
    tile_terms<h> &terms = static_cast<tile_terms<h> *>(s.terms)[tile];
    terms.lse[row % queries<h>] =
        is_row ? s.a.lse[plane * s.a.seq_length + row] * tv_log2_e : INFINITY;
    terms.delta[row % queries<h>] = delta;
    terms.first_key[row % queries<h>] =
        tv_first_key_of(s.a.first_keys, is_row ? at : base + s.a.seq_length - 1);
    if (row % queries<h> == 0)
        s.counts[tile] = 0;
    if (blockIdx.x == 0 && row == 0)
        *s.drawn = 0;
}
} // namespace tv_backward
#endif
