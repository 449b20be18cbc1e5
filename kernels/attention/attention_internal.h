/* kernels/attention/attention_internal.h -- tiles of causal attention: parts of stored tensors as floats, and which
 * queries see which keys.
 *
 * Tiles begin at multiples of TV_TILE, so that a tile of keys lies wholly before a tile of queries, wholly
 * behind it, or holds the same places. There, on the diagonal, products go by strips of TV_STRIP. */
#ifndef TV_KERNELS_ATTENTION_INTERNAL_H
#define TV_KERNELS_ATTENTION_INTERNAL_H
#include "kernels/dropout/dropout_internal.h"
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include "kernels/matmul/tile_internal.h"

enum { TV_TILE = 64, TV_STRIP = TV_TILE_STEP, TV_MAX_HEAD = 256 };
_Static_assert((int)TV_TILE == (int)TV_DROPOUT_COLUMNS, "a row of a tile in one call");

/* Scores are kept in units of log 2, for exp2. */
#define TV_LOG2_E 1.4426950408889634
#define TV_LN_2   0.6931471805599453

/* Rows of a head's columns, as floats with a stride; columns up to the padded number are zero. */
struct tv_part {
    const float *data;
    int64_t ld;
};

/* A multiple of what products of tiles step by. */
static inline int tv_padded(int count)
{
    return (count + TV_STRIP - 1) / TV_STRIP * TV_STRIP;
}

static inline int tv_least(int a, int b)
{
    return a < b ? a : b;
}

/* Are a head's rows used in place: are they floats, and whole steps of products? */
static inline int tv_is_in_place(int h)
{
    return TV_STORAGE_DTYPE == TV_F32 && tv_padded(h) == h;
}

/* Rows [first, first + rows) of head `head` of h columns; room [rows, padded h], where the tensor's own elements will
 * not do. */
static inline struct tv_part tv_part_of(const void *tensor, int64_t ld, int64_t first, int rows,
                                        int head, int h, float *room)
{
    const tv_element_t *from = (const tv_element_t *)tensor + first * ld + (int64_t)head * h;
    const int width = tv_padded(h);
    if (tv_is_in_place(h))
        return (struct tv_part){(const float *)(const void *)from, ld};
    for (int i = 0; i < rows; i++) {
#pragma omp simd
        for (int d = 0; d < h; d++)
            room[i * width + d] = tv_load(from[i * ld + d]);
        for (int d = h; d < width; d++)
            room[i * width + d] = 0;
    }
    return (struct tv_part){room, width};
}

/* Rows of sums, with a stride. */
struct tv_sums {
    float *data;
    int64_t ld;
};

/* Where rows of a head from `first` on are added up: in the tensor itself, or in room [rows, padded h]. */
static inline struct tv_sums tv_sums_of(void *tensor, int64_t ld, int64_t first, int head, int h,
                                        float *room)
{
    if (tv_is_in_place(h))
        return (struct tv_sums){(float *)tensor + first * ld + (int64_t)head * h, ld};
    return (struct tv_sums){room, tv_padded(h)};
}

/* from [rows, h], with stride ld_from -> a head's columns of a stored tensor */
static inline void tv_store_part(const float *from, int64_t ld_from, void *tensor, int64_t ld,
                                 int64_t first, int rows, int head, int h)
{
    tv_element_t *to = (tv_element_t *)tensor + first * ld + (int64_t)head * h;
    for (int i = 0; i < rows; i++) {
#pragma omp simd
        for (int d = 0; d < h; d++)
            to[i * ld + d] = tv_store(from[i * ld_from + d]);
    }
}

/* The keys of a tile that a query sees, [begin, end) of those from `from`; none where begin >= end. */
struct tv_seen {
    int begin, end;
};

/* Of query `query` of a sequence whose first row is `base`, in a tile of `cols` keys from `from`. */
static inline struct tv_seen tv_seen_by(const int32_t *first_keys, int64_t base, int query,
                                        int from, int cols)
{
    const int behind = tv_first_key(first_keys, base + query) - from;
    return (struct tv_seen){behind > 0 ? behind : 0, tv_least(query - from + 1, cols)};
}

/* Do `count` equal pieces keep all threads at work but for a sixteenth of the time? */
static inline int tv_is_even(int count, int threads)
{
    return (int64_t)(count + threads - 1) / threads * threads * 15 <= (int64_t)count * 16;
}

/* Of rows x cols stored elements of the head that comes next. */
static inline enum tv_room_ahead tv_room_for_head(int rows, int cols)
{
    return tv_room_ahead(tv_second_cache_bytes(),
                         (int64_t)rows * cols * (int64_t)sizeof(tv_element_t));
}

/* A head, or some heads side by side, of a stored tensor [batch S, ld]. */
struct tv_heads {
    const void *tensor;
    int64_t ld;
    int head, num, h;
};

/* Adds to what is fetched, before the rest: rows [first, first + rows). */
static inline void tv_add_ahead(struct tv_ahead *ahead, struct tv_heads heads, int64_t first,
                                int rows)
{
    if (rows == 0)
        return;
    const tv_element_t *data = heads.tensor;
    ahead->areas[ahead->num++] = (struct tv_area){
        .data = (const char *)(data + first * heads.ld + (int64_t)heads.head * heads.h),
        .ld_bytes = heads.ld * (int64_t)sizeof(*data),
        .rows = rows,
        .bytes = (int64_t)heads.num * heads.h * (int64_t)sizeof(*data)};
}
#endif
