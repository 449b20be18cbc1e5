/* kernels/attention/attention_forward_hopper_internal.h -- the forward on Hopper: its tiles, and the warp that copies
 * them by TMA. */
#ifndef TV_KERNELS_ATTENTION_FORWARD_HOPPER_INTERNAL_H
#define TV_KERNELS_ATTENTION_FORWARD_HOPPER_INTERNAL_H
#include "kernels/attention/attention_cuda_internal.h"
#include "kernels/hopper_internal.h"

namespace tv_forward
{
constexpr int keys = 128;                  /* of a tile */
constexpr int64_t cached_bytes = 32 << 20; /* of keys and values that are worked on at a time */
constexpr int warp_rows = 16, store_bytes = warp_rows * 128; /* a warp's rows of one panel */

/* Heads of h columns, `groups` warpgroups that multiply. */
template <int h_, int groups_> struct plan {
    static constexpr int h = h_, groups = groups_, panels = h / 64;
    static constexpr int queries = 64 * groups, threads = 128 * (groups + 1);
    static constexpr int q_panel = queries * 128, kv_panel = keys * 128; /* bytes */
    static constexpr int q_bytes = panels * q_panel, kv_bytes = panels * kv_panel;
    static constexpr int stages = h == 64 ? 4 : 2; /* of keys, and of values */
    /* two stages of queries, results, stages of keys, stages of values */
    static constexpr int o_at = 2 * q_bytes, k_at = 3 * q_bytes, v_at = k_at + stages * kv_bytes;
    static constexpr int shared_bytes = v_at + stages * kv_bytes + 1024;
    static constexpr int copy_registers = groups == 2 ? 40 : 32;
    static constexpr int multiply_registers = groups == 2 ? 232 : 160;
    static_assert(128 * (copy_registers + groups * multiply_registers) <= 65536, "registers");
};

struct maps {
    CUtensorMap q, k, v, o;
};
struct work {
    const uint16_t *q, *k; /* also by the maps */
    int64_t ld_q, ld_k;
    float *lse;                /* [B, num_heads, S] */
    const int32_t *first_keys; /* [B*S] or NULL */
    int seq_length, num_heads, num_kv_heads;
    int num_planes; /* B num_heads */
    int at_once;    /* planes whose keys are cached together */
    int tiles;      /* of queries in a plane */
    int shorter;    /* queries of a plane's first tile, rounded up to 64; the others are full */
    int *taken;     /* of all tiles, behind the first of every block */
};
/* A tile of queries [first, end): blocks of keys from high - 1 down to low. */
struct tile {
    int plane, first, end, low, high;
};

/* In shared memory, beside the tiles. */
template <typename P> struct barriers {
    tile tiles[4]; /* whose queries are full, and the two before; no more: plane -1 */
    uint64_t q_full[2], q_empty[2];
    uint64_t k_full[P::stages], k_empty[P::stages], v_full[P::stages], v_empty[P::stages];
};

/* The first key that a query sees. row: of its sequence */
TV_ATTENTION_DEVICE int first_key_of(const work &w, int plane, int row)
{
    if (w.first_keys == nullptr)
        return 0;
    return w.first_keys[static_cast<int64_t>(plane / w.num_heads) * w.seq_length + row];
}

/* Tile number `at` of all; at: less than their number. */
template <typename P> TV_ATTENTION_DEVICE tile find_tile(const work &w, int at)
{
    tile t;
    const int section = at / (w.at_once * w.tiles), before = section * w.at_once;
    const int planes = tv_lesser(w.at_once, w.num_planes - before);
    const int inside = at - before * w.tiles;
    t.plane = before + inside % planes;
    const int end = w.shorter + (w.tiles - 1 - inside / planes) * P::queries;
    t.first = end > P::queries ? end - P::queries : 0;
    t.end = tv_lesser(end, w.seq_length);
    t.low = first_key_of(w, t.plane, t.first) / keys;
    t.high = (t.end + keys - 1) / keys;
    return t;
}

/* Stage and phase of the nth use of a ring since the kernel began: of keys, of values; of queries. */
template <int stages> struct place {
    int stage;
    unsigned phase;
    TV_ATTENTION_DEVICE place of(unsigned nth)
    {
        return {static_cast<int>(nth % stages), nth / stages % 2};
    }
};

template <typename P>
TV_ATTENTION_DEVICE void load_panels(const CUtensorMap *map, unsigned char *to, uint64_t *full,
                                     int panel, int head, int row, int sequence)
{
    tv_barrier_arrive_expect(full, static_cast<uint32_t>(P::panels * panel));
#pragma unroll
    for (int i = 0; i < P::panels; i++)
        tv_tma_load(map, to + i * panel, full, head * P::h + 64 * i, row, sequence);
}

/* One thread: all copies into shared memory. */
template <typename P>
TV_ATTENTION_DEVICE void copy(const maps &m, const work &w, unsigned char *shared, barriers<P> &b)
{
    tv_tma_prefetch(&m.q);
    tv_tma_prefetch(&m.k);
    tv_tma_prefetch(&m.v);
    unsigned nth = 0, nth_q = 0;
    int at = static_cast<int>(blockIdx.x);
    while (at < w.num_planes * w.tiles) {
        const tile t = find_tile<P>(w, at);
        const int sequence = t.plane / w.num_heads, head = t.plane % w.num_heads;
        const int kv = head / (w.num_heads / w.num_kv_heads);
        const auto q = place<2>::of(nth_q);
        /* keys of a block, and values of the one before */
#pragma unroll 1
        for (int block = t.high - 1; block >= t.low - 1; block--, nth++) {
            if (block >= t.low) {
                const auto k = place<P::stages>::of(nth);
                tv_barrier_wait(&b.k_empty[k.stage], k.phase ^ 1);
                load_panels<P>(&m.k, shared + P::k_at + k.stage * P::kv_bytes, &b.k_full[k.stage],
                               P::kv_panel, kv, block * keys, sequence);
            }
            if (block == t.high - 1) {
                tv_barrier_wait(&b.q_empty[q.stage], q.phase ^ 1);
                b.tiles[nth_q % 4] = t;
                load_panels<P>(&m.q, shared + q.stage * P::q_bytes, &b.q_full[q.stage], P::q_panel,
                               head, t.first, sequence);
                continue;
            }
            if (block < t.low) /* before a wait, behind which the number has come */
                at = static_cast<int>(gridDim.x) + atomicAdd(w.taken, 1);
            const auto v = place<P::stages>::of(nth - 1);
            tv_barrier_wait(&b.v_empty[v.stage], v.phase ^ 1);
            load_panels<P>(&m.v, shared + P::v_at + v.stage * P::kv_bytes, &b.v_full[v.stage],
                           P::kv_panel, kv, (block + 1) * keys, sequence);
        }
        nth--; /* the last round had values alone */
        nth_q++;
    }
    const auto q = place<2>::of(nth_q);
    tv_barrier_wait(&b.q_empty[q.stage], q.phase ^ 1);
    b.tiles[nth_q % 4].plane = -1;
    tv_barrier_arrive(&b.q_full[q.stage]);
}
} // namespace tv_forward
#endif
