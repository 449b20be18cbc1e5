/* attention_forward_hopper_softmax_internal.h -- what a warpgroup of the forward on Hopper does with its scores: hides
 * those that are not seen and makes them weights. A row's weights stand under one score, the maximum of the first block
 * of keys that the row meets, which holds its own key; maxima of further blocks, which cost a tenth of the kernel's
 * time, are sought only where sums come near the end of fp32. Any score does as well: it cancels out in the end. */
#ifndef TV_KERNELS_ATTENTION_FORWARD_HOPPER_SOFTMAX_INTERNAL_H
#define TV_KERNELS_ATTENTION_FORWARD_HOPPER_SOFTMAX_INTERNAL_H
#include "kernels/attention/attention_forward_hopper_internal.h"
#include <cmath>

namespace tv_forward
{
/* A warpgroup that multiplies. top: a score of rows g and g + 8, the maximum of the first block of keys or, where that
 * would not do, of more of them; weight: this lane's part of the sum of weights. */
template <typename P> struct multiplier {
    float sum[P::h / 2];    /* [64, h]: weights times values */
    float scores[64];       /* [64, keys] */
    uint32_t weights[8][4]; /* the same as bf16 */
    float top[2], weight[2];
    int group;
    /* where it is: */
    unsigned nth, nth_q;     /* blocks of keys and tiles of queries before */
    int block, low;          /* block of keys, the tile's last one */
    int bare_low, bare_high; /* blocks [bare_low, bare_high) hide nothing */
};

/* The row of a sequence that is g of the 16 rows of this warp. */
template <typename P> TV_ATTENTION_DEVICE int row_of(const multiplier<P> &r, int first)
{
    const int thread = static_cast<int>(threadIdx.x % 128);
    return first + 64 * r.group + thread / 32 * warp_rows + thread % 32 / 4;
}

/* Two elements. */
TV_ATTENTION_DEVICE uint32_t word_at(const uint16_t *at)
{
    return *reinterpret_cast<const uint32_t *>(at);
}

/* -inf where a query of the tile does not see a key of the block. */
template <typename P> TV_ATTENTION_DEVICE void hide(multiplier<P> &r, const work &w, const tile &t)
{
    const int column = r.block * keys + static_cast<int>(threadIdx.x % 4) * 2;
    const int row = row_of(r, t.first);
    const int last[2] = {row - column, row + 8 - column}; /* that is seen, from the lane's first */
#pragma unroll
    for (int i = 0; i < 64; i++)
        r.scores[i] = i / 4 * 8 + i % 2 > last[i / 2 % 2] ? -INFINITY : r.scores[i];
    if (w.first_keys == nullptr)
        return;
    int first[2];
    for (int half = 0; half < 2; half++)
        first[half] =
            first_key_of(w, t.plane, tv_lesser(row + 8 * half, w.seq_length - 1)) - column;
#pragma unroll
    for (int i = 0; i < 64; i++)
        r.scores[i] = i / 4 * 8 + i % 2 < first[i / 2 % 2] ? -INFINITY : r.scores[i];
}

/* Scores become weights: powers of 2 of their distance to `top`. sums: this lane's, of rows g and g + 8 */
template <typename P> TV_ATTENTION_DEVICE void weigh(multiplier<P> &r, float (&sums)[2])
{
    const float scale = tv_score_scale<P::h> * tv_log2_e;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float *s = r.scores + 2 * half;
        const float shift = r.top[half] == -INFINITY ? 0 : r.top[half] * scale;
        float sum[4] = {}; /* four chains */
#pragma unroll
        for (int i = 0; i < 16; i++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                s[4 * i + e] = tv_exp2(s[4 * i + e] * scale - shift);
                sum[i % 2 * 2 + e] += s[4 * i + e];
            }
        }
        sums[half] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
}

/* The maxima of the rows' scores, or the old ones where they are no less. */
template <typename P> TV_ATTENTION_DEVICE void raise_top(multiplier<P> &r)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float *s = r.scores + 2 * half;
        float top[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            top[i] = fmaxf(s[4 * i], s[4 * i + 1]);
#pragma unroll
        for (int i = 4; i < 16; i++)
            top[i % 4] = fmaxf(top[i % 4], fmaxf(s[4 * i], s[4 * i + 1]));
        float most = fmaxf(fmaxf(top[0], top[1]), fmaxf(top[2], top[3]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        r.top[half] = fmaxf(r.top[half], most);
    }
}

/* The present block's scores once more, by the warp alone, out of global memory: the first ones were overwritten. Rows
 * behind the sequence's end are its last. */
template <typename P>
TV_ATTENTION_DEVICE void score_again(multiplier<P> &r, const work &w, const tile &t)
{
    const int lane = static_cast<int>(threadIdx.x % 32), last = w.seq_length - 1;
    const int sequence = t.plane / w.num_heads, head = t.plane % w.num_heads;
    const int kv = head / (w.num_heads / w.num_kv_heads), row = row_of(r, t.first);
    const int64_t base = static_cast<int64_t>(sequence) * w.seq_length;
    const uint16_t *q[2], *k = w.k + kv * P::h + lane % 4 * 2;
    for (int half = 0; half < 2; half++)
        q[half] =
            w.q + (base + tv_lesser(row + 8 * half, last)) * w.ld_q + head * P::h + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < keys / 8; n++) {
        const uint16_t *of_n =
            k + (base + tv_lesser(r.block * keys + 8 * n + lane / 4, last)) * w.ld_k;
        float *s = r.scores + 4 * n;
        s[0] = s[1] = s[2] = s[3] = 0;
#pragma unroll 1
        for (int i = 0; i < P::h; i += 16) {
            const uint32_t of_q[4] = {word_at(q[0] + i), word_at(q[1] + i), word_at(q[0] + i + 8),
                                      word_at(q[1] + i + 8)};
            tv_mma_16x8x16(s, of_q, word_at(of_n + i), word_at(of_n + i + 8));
        }
    }
    if (r.block < r.bare_low || r.block >= r.bare_high)
        hide(r, w, t);
}

/* Scores become weights under the maxima that there are, of the tile's first block as a rule: that further ones are
 * higher does no harm until a lane's weights are over 2^64 together, infinite ones among them. Then the block's scores
 * are made again and the maxima raised; shrink: what sums so far are to be multiplied by, if the result is true. */
template <typename P>
TV_ATTENTION_DEVICE bool soften(multiplier<P> &r, const work &w, const barriers<P> &b,
                                float (&shrink)[2])
{
    constexpr float most = 18446744073709551616.f;
    float sums[2];
    weigh(r, sums);
    /* ptxas leaves the softening behind the products under way, as it cannot take the branch before all weights are
     * there. */
    const bool is_over = __any_sync(0xffffffffu, !(fmaxf(sums[0], sums[1]) < most));
    if (is_over) {
        const float old[2] = {r.top[0], r.top[1]};
        score_again(r, w, b.tiles[r.nth_q % 4]);
        raise_top(r);
        weigh(r, sums);
        for (int half = 0; half < 2; half++) {
            shrink[half] =
                old[half] == r.top[half]
                    ? 1
                    : tv_exp2((old[half] - r.top[half]) * tv_score_scale<P::h> * tv_log2_e);
            r.weight[half] *= shrink[half];
        }
    }
    for (int half = 0; half < 2; half++)
        r.weight[half] += sums[half];
    return is_over;
}

template <typename P> TV_ATTENTION_DEVICE void pack(multiplier<P> &r)
{
#pragma unroll
    for (int i = 0; i < 32; i++)
        r.weights[i / 4][i % 4] = tv_pack_bf16(r.scores[2 * i], r.scores[2 * i + 1]);
}

template <typename P>
TV_ATTENTION_DEVICE void shrink_sum(multiplier<P> &r, const float (&shrink)[2])
{
#pragma unroll
    for (int i = 0; i < P::h / 2; i++)
        r.sum[i] *= shrink[i / 2 % 2];
}
} // namespace tv_forward
#endif
