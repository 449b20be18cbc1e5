/* kernels/attention/attention_cuda_internal.h -- what the attention kernels of CUDA share: places of tiles, first keys,
 * dropout by fragments, tiles of bf16 in shared memory and their products on the tensor cores.
 *
 * A tile [rows, h] lies in shared memory row by row in chunks of 16 bytes; chunk c of row r is at c ^ (r % 8), so the
 * eight rows that ldmatrix reads at once, and the chunks that a copy writes, are in different banks. */
#ifndef TV_KERNELS_ATTENTION_CUDA_INTERNAL_H
#define TV_KERNELS_ATTENTION_CUDA_INTERNAL_H
#include "kernels/attention/attention_general_internal.h"
#include "kernels/mma_internal.h"

constexpr float tv_log2_e = 1.44269504f;

/* 1 / sqrt(h) of the heads that the tensor-core kernels take */
template <int h> constexpr float tv_score_scale = h == 64 ? 0.125f : 0.0883883476f;

/* Rows of one head in a stored tensor of bf16, as bits; zeros behind `rows`. */
struct tv_head_rows {
    const uint16_t *at; /* row 0, column 0 of the head */
    int64_t ld;
    int rows;
    bool is_aligned; /* 16 bytes, every row */
};

/* head: number of the head in the tensor; first: row of the tensor */
TV_ATTENTION_DEVICE tv_head_rows tv_rows_of_head(const void *tensor, int64_t ld, int64_t first,
                                                 int rows, int64_t head_at, bool is_aligned)
{
    return {static_cast<const uint16_t *>(tensor) + first * ld + head_at, ld, rows, is_aligned};
}

/* Can the rows of a tensor of bf16 be read 16 bytes at a time? */
inline bool tv_is_aligned_16(const void *tensor, int64_t ld)
{
    return tv_is_aligned<8>(static_cast<const uint16_t *>(tensor), ld);
}

template <int h> TV_ATTENTION_DEVICE uint16_t *tv_tile_chunk(uint16_t *tile, int row, int chunk)
{
    return tile + row * h + (chunk ^ (row & 7)) * 8;
}

/* Start copying a tile of `rows` rows; the threads of the block share the work. Complete after tv_copy_async_wait and a
 * barrier. */
template <int rows, int h, int threads>
TV_ATTENTION_DEVICE void tv_tile_load(uint16_t *tile, const tv_head_rows &from)
{
    constexpr int chunks = h / 8;
    static_assert(rows * chunks % threads == 0, "every thread copies as much");
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < rows * chunks; i += threads) {
        const int row = i / chunks, chunk = i % chunks;
        const bool is_there = row < from.rows;
        const uint16_t *source = from.at + (is_there ? row * from.ld + chunk * 8 : 0);
        uint16_t *to = tv_tile_chunk<h>(tile, row, chunk);
        if (from.is_aligned) {
            tv_copy_async_16(to, source, is_there);
            continue;
        }
        for (int e = 0; e < 8; e++)
            to[e] = is_there ? source[e] : static_cast<uint16_t>(0);
    }
}

/* Where a lane reads 16 columns from 16 k of rows [first, first + 16): its row (0 to 15) of them and its half of the
 * columns. A step of k changes bits that the tile's place leaves alone. */
template <int h>
TV_ATTENTION_DEVICE tv_shared_at tv_tile_lane(const uint16_t *tile, int first, int row, int half,
                                              int k)
{
    const unsigned at = static_cast<unsigned>(row * h * 2 + (half ^ (row & 7)) * 16);
    return ((tv_shared_place(tile) + at) ^ static_cast<unsigned>(k % 4 * 32)) +
           static_cast<unsigned>(first * h * 2 + k / 4 * 128);
}

/* The a fragment of rows [row, row + 16), columns [16 k, 16 k + 16). row: a multiple of 8 */
template <int h>
TV_ATTENTION_DEVICE void tv_tile_a(uint32_t word[4], const uint16_t *tile, int row, int k)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    tv_ldmatrix(word, tv_tile_lane<h>(tile, row, lane % 16, lane / 16, k));
}

/* The b fragments of a tile's transpose: its rows [row, row + 16) are two times 8 columns of b, its columns from 16 k
 * the rows of b. Words 0, 1 and words 2, 3. */
template <int h>
TV_ATTENTION_DEVICE void tv_tile_b_transposed(uint32_t word[4], const uint16_t *tile, int row,
                                              int k)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    tv_ldmatrix(word, tv_tile_lane<h>(tile, row, lane / 16 * 8 + lane % 8, lane / 8 % 2, k));
}

/* The b fragments of rows [row, row + 16) of a tile, columns [16 n, 16 n + 16): two times 8 columns. */
template <int h>
TV_ATTENTION_DEVICE void tv_tile_b(uint32_t word[4], const uint16_t *tile, int row, int n)
{
    uint32_t thread = threadIdx.x % 32;
    tv_not_ahead(thread); /* the places of all n */
    const int lane = static_cast<int>(thread);
    tv_ldmatrix_transposed(word, tv_tile_lane<h>(tile, row, lane % 16, lane / 16, n));
}

/* out[16 m, 8 n] = a b^T: rows [row_a, + 16 m) of tile a with rows [row_b, + 8 n) of tile b, over h columns. */
template <int h, int m, int n>
TV_ATTENTION_DEVICE void tv_tile_product(float (&out)[m][n][4], const uint16_t *a, int row_a,
                                         const uint16_t *b, int row_b)
{
#pragma unroll
    for (int i = 0; i < m * n * 4; i++)
        out[i / (n * 4)][i / 4 % n][i % 4] = 0;
#pragma unroll
    for (int k = 0; k < h / 16; k++) {
        uint32_t rows[m][4], columns[4];
#pragma unroll
        for (int i = 0; i < m; i++)
            tv_tile_a<h>(rows[i], a, row_a + 16 * i, k);
#pragma unroll
        for (int j = 0; j < n; j += 2) {
            tv_tile_b_transposed<h>(columns, b, row_b + 8 * j, k);
#pragma unroll
            for (int i = 0; i < m; i++) {
                tv_mma_16x8x16(out[i][j], rows[i], columns[0], columns[1]);
                tv_mma_16x8x16(out[i][j + 1], rows[i], columns[2], columns[3]);
            }
        }
    }
}

/* sum[16 m, h] += x[16 m, 8 n] b[8 n, h]: x rounded to bf16, b rows [row_b, + 8 n) of a tile. */
template <int h, int m, int n>
TV_ATTENTION_DEVICE void tv_tile_add_product(float (&sum)[m][h / 8][4], const float (&x)[m][n][4],
                                             const uint16_t *b, int row_b)
{
#pragma unroll
    for (int k = 0; k < n / 2; k++) {
        uint32_t rows[m][4], columns[4];
#pragma unroll
        for (int i = 0; i < m; i++) {
#pragma unroll
            for (int w = 0; w < 4; w++) {
                const float *pair = &x[i][2 * k + w / 2][w % 2 * 2];
                rows[i][w] = tv_pack_bf16(pair[0], pair[1]);
            }
        }
#pragma unroll
        for (int j = 0; j < h / 16; j++) {
            tv_tile_b<h>(columns, b, row_b + 16 * k, j);
#pragma unroll
            for (int i = 0; i < m; i++) {
                tv_mma_16x8x16(sum[i][2 * j], rows[i], columns[0], columns[1]);
                tv_mma_16x8x16(sum[i][2 * j + 1], rows[i], columns[2], columns[3]);
            }
        }
    }
}

/* sum * factor -> rows [row, + 16 m) of a tile, as bf16. factor [m][2]: of rows g and g + 8 of each fragment. */
template <int h, int m>
TV_ATTENTION_DEVICE void tv_tile_put(uint16_t *tile, int row, const float (&sum)[m][h / 8][4],
                                     const float (&factor)[m][2])
{
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < m; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int n = 0; n < h / 8; n++) {
                uint16_t *chunk = tv_tile_chunk<h>(tile, row + 16 * i + 8 * half + lane / 4, n);
                const float *pair = &sum[i][n][2 * half];
                reinterpret_cast<uint32_t *>(chunk)[lane % 4] =
                    tv_pack_bf16(pair[0] * factor[i][half], pair[1] * factor[i][half]);
            }
        }
    }
}

/* Where a warp's rows of a tile go. */
struct tv_head_rows_out {
    uint16_t *at;
    int64_t ld;
    int rows; /* what lies behind is not stored */
    bool is_aligned;
};

/* Rows [row, + rows) of a tile, by one warp; the rest of the block is elsewhere. */
template <int h, int rows>
TV_ATTENTION_DEVICE void tv_tile_store(uint16_t *tile, int row, const tv_head_rows_out &to)
{
    constexpr int chunks = h / 8;
    __syncwarp();
    for (int i = static_cast<int>(threadIdx.x % 32); i < rows * chunks; i += 32) {
        const int r = row + i / chunks, chunk = i % chunks;
        if (r >= to.rows)
            continue;
        const uint16_t *from = tv_tile_chunk<h>(tile, r, chunk);
        uint16_t *place = to.at + r * to.ld + chunk * 8;
        if (to.is_aligned) {
            *reinterpret_cast<uint4 *>(place) = *reinterpret_cast<const uint4 *>(from);
            continue;
        }
        for (int e = 0; e < 8; e++)
            place[e] = from[e];
    }
}

/* Scores of queries [query, + 16 m) against keys [key, + 8 n): -inf where the query does not see the key. rows: of the
 * sequence, which starts at row `base`. */
struct tv_seen {
    const int32_t *first_keys;
    int64_t base;
    int rows;
};
template <int m, int n>
TV_ATTENTION_DEVICE void tv_hide(float (&scores)[m][n][4], const tv_seen &seen, int query, int key)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < 2 * m; i++) {
        const int row = query + 8 * i + lane / 4;
        const int first =
            tv_first_key_of(seen.first_keys, seen.base + (row < seen.rows ? row : seen.rows - 1));
#pragma unroll
        for (int j = 0; j < 2 * n; j++) {
            const int at = key + j / 2 * 8 + lane % 4 * 2 + j % 2;
            if (at > row || at < first)
                scores[i / 2][j / 2][i % 2 * 2 + j % 2] = -INFINITY;
        }
    }
}

/* Does any of the queries [query, + rows) not see one of the keys [key, + keys)? Its first keys never fall. */
TV_ATTENTION_DEVICE bool tv_hides(const tv_seen &seen, int query, int rows, int key, int keys)
{
    const int last = query + rows < seen.rows ? query + rows - 1 : seen.rows - 1;
    return key + keys - 1 > query || tv_first_key_of(seen.first_keys, seen.base + last) > key;
}

/* What dropout keeps of a c fragment whose rows are queries from tensor row `row` and whose columns are keys from
 * `key`: bit i is element i. A lane draws the block of one of its two rows and has the other one's from its
 * neighbour. */
TV_ATTENTION_DEVICE uint32_t tv_kept_by_query(tv_dropout d, int64_t row, int plane, int key)
{
    tv_not_ahead(d.key); /* twenty keys of rounds */
    const int lane = static_cast<int>(threadIdx.x % 32), odd = lane % 2;
    const uint32_t mine =
        tv_dropout_kept(d, row + lane / 4 + 8 * odd, plane, key / 4 + lane % 4 / 2);
    const uint32_t other = __shfl_xor_sync(0xffffffffu, mine, 1);
    return odd ? (other >> 2 | (mine >> 2) << 2) : ((mine & 3) | (other & 3) << 2);
}

/* The same where rows are keys from `key` and columns are queries from tensor row `row`: four lanes hold four keys of
 * one block, and of four blocks each draws one. */
TV_ATTENTION_DEVICE uint32_t tv_kept_by_key(tv_dropout d, int64_t row, int plane, int key)
{
    tv_not_ahead(d.key);
    const int lane = static_cast<int>(threadIdx.x % 32), place = lane / 4 % 4;
    uint32_t all = tv_dropout_kept(d, row + lane % 4 * 2 + place % 2, plane,
                                   key / 4 + lane / 16 + place / 2 * 2)
                   << (4 * place);
    all |= __shfl_xor_sync(0xffffffffu, all, 4);
    all |= __shfl_xor_sync(0xffffffffu, all, 8);
    all >>= place;
    return (all & 1) | (all >> 3 & 2) | (all >> 6 & 4) | (all >> 9 & 8);
}

/* The same of m n fragments, 4 bits of kept[i] for fragment j of row i. Drawn before there are scores, since the
 * words of many blocks at once take registers. */
template <int m, int n>
TV_ATTENTION_DEVICE void tv_keep_by_query(uint32_t (&kept)[m], const tv_dropout &d, int64_t row,
                                          int plane, int key)
{
    static_assert(4 * n <= 32, "a word for a row of fragments");
#pragma unroll
    for (int i = 0; i < m; i++) {
        kept[i] = 0;
#pragma unroll 2
        for (int j = 0; j < n; j++)
            kept[i] |= tv_kept_by_query(d, row + 16 * i, plane, key + 8 * j) << (4 * j);
    }
}
template <int m, int n>
TV_ATTENTION_DEVICE void tv_keep_by_key(uint32_t (&kept)[m], const tv_dropout &d, int64_t row,
                                        int plane, int key)
{
    static_assert(4 * n <= 32, "a word for a row of fragments");
#pragma unroll
    for (int i = 0; i < m; i++) {
        kept[i] = 0;
#pragma unroll 2
        for (int j = 0; j < n; j++)
            kept[i] |= tv_kept_by_key(d, row + 8 * j, plane, key + 16 * i) << (4 * j);
    }
}
TV_ATTENTION_DEVICE bool tv_is_kept(uint32_t kept, int fragment, int element)
{
    return (kept >> (4 * fragment + element) & 1) != 0;
}
#endif
