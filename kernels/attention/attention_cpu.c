/* attention_cpu.c -- causal attention, forward, in tiles of 64 queries x 64 keys with the online softmax (Dao et al.
 * 2022, arXiv:2205.14135): per thread a few tiles on the stack, whatever the sequence length.
 *
 * A tile of scores is held with the queries side by side, [keys, queries]: maxima, exponentials and sums of the
 * softmax then run down the keys for 16 queries at once, in vector lanes. The tile's queries are
 * turned once, keys and values are read as they lie. Of a tile on the diagonal, only the strips of 16 that
 * the causal mask leaves are worked out. Scores are in units of log 2.
 *
 * Tiles are fp32: parts of stored tensors are read into them, and what is added up over tiles of keys is rounded
 * when it is complete. Parallel over (sequence, query head, tile of queries), a head's longest
 * tile first: the last tiles at work are short ones. */
#include "kernels/attention/attention_internal.h"
#include <math.h>

struct forward_tile {
    _Alignas(TV_LINE_BYTES) float q[TV_MAX_HEAD * TV_TILE]; /* [h, queries], scaled */
    float weights[TV_TILE * TV_TILE]; /* [keys, queries]: scores, then exponentials */
    struct tv_sums sums;              /* [queries, padded h]: of weights times values */
    float top[TV_TILE];               /* largest score so far, but for SLACK */
    float shrink[TV_TILE];            /* what sums of a smaller top are multiplied by */
    double total[TV_TILE];            /* sum of exponentials */
    float rooms[2][TV_TILE * TV_MAX_HEAD], sum_room[TV_TILE * TV_MAX_HEAD];
    const struct tv_tiles *tiles;
    struct tv_ahead ahead;
};

/* Scores of keys [0, cols): all queries from strip to strip later where the tile lies on the diagonal. */
static void scores(struct forward_tile *t, struct tv_part k, int cols, int lanes, int width,
                   int is_diagonal)
{
    const int rows = is_diagonal ? TV_STRIP : cols;
    for (int j = 0; j < cols; j += rows) {
        const int lane = is_diagonal ? j : 0;
        const struct tv_tile_args tile = {.m = tv_least(rows, cols - j),
                                          .n = lanes - lane,
                                          .k = width,
                                          .a = k.data + j * k.ld,
                                          .ld_a = k.ld,
                                          .b = t->q + lane,
                                          .ld_b = TV_TILE,
                                          .c = t->weights + j * TV_TILE + lane,
                                          .ld_c = TV_TILE,
                                          .ahead = &t->ahead};
        t->tiles->product(&tile);
    }
}

/* -inf for the keys of a tile on the diagonal that come after a query, in the strips that were worked out; for the
 * strip of queries before those, weights of 0. */
static void mask_after(struct forward_tile *t, int cols)
{
    for (int j = 0; j < cols; j++) {
        const int strip = j / TV_STRIP * TV_STRIP;
        float *x = t->weights + j * TV_TILE + strip;
        if (strip > 0)
            memset(x - TV_STRIP, 0, TV_STRIP * sizeof(*x));
#pragma omp simd
        for (int i = 0; i < TV_STRIP; i++)
            x[i] = strip + i < j ? -INFINITY : x[i];
    }
}

/* -inf for the keys of documents that have ended before a query. */
static void mask_before(struct forward_tile *t, const int32_t *first_keys, int64_t first, int from,
                        int rows, int cols)
{
    for (int i = 0; i < rows; i++) {
        const int end = tv_least(tv_first_key(first_keys, first + i) - from, cols);
        for (int j = 0; j < end; j++)
            t->weights[j * TV_TILE + i] = -INFINITY;
    }
}

/* The largest of x[num] rows of a strip and of top. In fours: a chain of maxima a quarter as long. */
static void raise_top(const float *x, int num, float top[TV_STRIP])
{
    int j = 0;
    for (; j + 4 <= num; j += 4) {
        const float *row = x + j * TV_TILE;
#pragma omp simd
        for (int i = 0; i < TV_STRIP; i++) {
            const float p = row[i], q = row[TV_TILE + i], r = row[2 * TV_TILE + i],
                        s = row[3 * TV_TILE + i];
            const float pq = p > q ? p : q, rs = r > s ? r : s, four = pq > rs ? pq : rs;
            top[i] = four > top[i] ? four : top[i];
        }
    }
    for (; j < num; j++) {
        for (int i = 0; i < TV_STRIP; i++)
            top[i] = x[j * TV_TILE + i] > top[i] ? x[j * TV_TILE + i] : top[i];
    }
}

/* So much may a score exceed what counts as the largest one before sums shrink: their exponentials are 2^8 at most. */
#define SLACK 8.0f

/* The scores of `num` keys and a strip of queries from `lane` become exponentials. A NaN among the scores may
 * not be the largest of them, but stays what it is. */
static void softmax_strip(struct forward_tile *t, int lane, int num)
{
    float *x = t->weights + lane, top[TV_STRIP], shift[TV_STRIP], sum[TV_STRIP] = {0};
    memcpy(top, t->top + lane, sizeof(top));
    raise_top(x, num, top);
#pragma omp simd
    for (int i = 0; i < TV_STRIP; i++) {
        const float before = t->top[lane + i];
        top[i] = top[i] > before + SLACK ? top[i] : before;
        shift[i] = top[i] == -INFINITY ? 0 : top[i]; /* no key seen yet */
        t->shrink[lane + i] = tv_fast_exp2(t->top[lane + i] - shift[i]);
    }
    t->tiles->exponentials(
        &(struct tv_tile_strip){.x = x, .ld = TV_TILE, .rows = num, .shift = shift, .sum = sum});
#pragma omp simd
    for (int i = 0; i < TV_STRIP; i++) {
        t->top[lane + i] = top[i];
        t->total[lane + i] = t->total[lane + i] * (double)t->shrink[lane + i] + (double)sum[i];
    }
}

static void drop_tile(struct forward_tile *t, const struct tv_dropout *dropout, int64_t query,
                      int rows, int head, int from, int cols)
{
    float factor[TV_TILE];
    for (int i = 0; i < rows; i++) {
        tv_dropout_factors(dropout, query + i, head, from, factor);
        for (int j = 0; j < cols; j++)
            t->weights[j * TV_TILE + i] *= factor[j];
    }
}

static void shrink_sums(struct forward_tile *t, int rows, int width)
{
    for (int i = 0; i < rows; i++) {
        const float shrink = t->shrink[i];
        if (shrink == 1)
            continue;
#pragma omp simd
        for (int d = 0; d < width; d++)
            t->sums.data[i * t->sums.ld + d] *= shrink;
    }
}

/* sums += weights v (=, for the first tile of keys) */
static void add_values(struct forward_tile *t, struct tv_part v, int cols, int rows, int width,
                       int is_first, int is_diagonal)
{
    const struct tv_tile_args tile = {.m = rows,
                                      .n = width,
                                      .k = cols,
                                      .a = t->weights,
                                      .ld_a = TV_TILE,
                                      .trans_a = 1,
                                      .b = v.data,
                                      .ld_b = v.ld,
                                      .accumulate = !is_first,
                                      .c = t->sums.data,
                                      .ld_c = t->sums.ld,
                                      .shape = is_diagonal ? TV_TILE_LOWER : TV_TILE_WHOLE,
                                      .ahead = &t->ahead};
    t->tiles->product(&tile);
}

/* One tile of keys, [from, from + cols); is_first of the queries' tiles */
static void add_keys(struct forward_tile *t, const struct tv_attention_args *a, int b, int head,
                     int first, int from, int rows, int is_first)
{
    const int h = a->head_dim, kv = head / (a->num_heads / a->num_kv_heads), width = tv_padded(h);
    const int lanes = tv_padded(rows), is_diagonal = from == first;
    const int cols = is_diagonal ? rows : TV_TILE;
    const int64_t base = (int64_t)b * a->seq_length;
    const struct tv_part k = tv_part_of(a->k, a->ld_k, base + from, cols, kv, h, t->rooms[0]);
    const struct tv_part v = tv_part_of(a->v, a->ld_v, base + from, cols, kv, h, t->rooms[1]);
    scores(t, k, cols, lanes, width, is_diagonal);
    if (is_diagonal)
        mask_after(t, cols);
    if (tv_first_key(a->first_keys, base + first + rows - 1) > from)
        mask_before(t, a->first_keys, base + first, from, rows, cols);
    for (int lane = 0; lane < lanes; lane += TV_STRIP)
        softmax_strip(t, lane, is_diagonal ? tv_least(lane + TV_STRIP, cols) : cols);
    if (a->dropout.threshold > 0)
        drop_tile(t, &a->dropout, base + first, rows, head, from, cols);
    if (!is_first)
        shrink_sums(t, rows, width);
    add_values(t, v, cols, rows, width, is_first, is_diagonal);
}

static void store_tile(struct forward_tile *t, const struct tv_attention_args *a, int b, int head,
                       int first, int rows)
{
    const int h = a->head_dim;
    const int64_t row = (int64_t)b * a->seq_length + first;
    float *lse = a->lse + ((int64_t)b * a->num_heads + head) * a->seq_length + first;
    float scale[TV_TILE];
#pragma omp simd
    for (int i = 0; i < rows; i++) {
        const float total = (float)t->total[i];
        scale[i] = 1 / total;
        lse[i] = (float)(((double)t->top[i] + (double)tv_fast_log2(total)) * TV_LN_2);
    }
    for (int i = 0; i < rows; i++) {
        const float *sums = t->sums.data + i * t->sums.ld;
        tv_element_t *o = (tv_element_t *)a->o + (row + i) * a->ld_o + (int64_t)head * h;
#pragma omp simd
        for (int d = 0; d < h; d++)
            o[d] = tv_store(sums[d] * scale[i]);
    }
}

static void forward_queries(struct forward_tile *t, const struct tv_attention_args *a, int b,
                            int head, int first)
{
    const int h = a->head_dim, width = tv_padded(h);
    const int rows = tv_least(TV_TILE, a->seq_length - first);
    const int64_t base = (int64_t)b * a->seq_length;
    const struct tv_part q = tv_part_of(a->q, a->ld_q, base + first, rows, head, h, t->rooms[0]);
    t->tiles->turn(&(struct tv_tile_turn){.rows = rows,
                                          .cols = width,
                                          .from = q.data,
                                          .ld_from = q.ld,
                                          .scale = (float)(TV_LOG2_E / sqrt((double)h)),
                                          .to = t->q,
                                          .ld_to = TV_TILE});
    for (int i = 0; i < TV_TILE; i++) {
        t->top[i] = -INFINITY;
        t->total[i] = 0;
    }
    t->sums = tv_sums_of(a->o, a->ld_o, base + first, head, h, t->sum_room);
    const int from = tv_first_key(a->first_keys, base + first) / TV_TILE * TV_TILE;
    for (int key = from; key <= first; key += TV_TILE)
        add_keys(t, a, b, head, first, key, rows, key == from);
    store_tile(t, a, b, head, first, rows);
}

/* While a head is at work, the one that this thread takes next is fetched. */
static void look_ahead(struct forward_tile *t, const struct tv_attention_args *a, int next)
{
    t->ahead.num = 0;
    const int h = a->head_dim, rows = a->seq_length;
    if (next >= a->batch * a->num_heads || tv_room_for_head(rows, 4 * h) != TV_AHEAD_ALL)
        return;
    const int head = next % a->num_heads;
    const int kv = head / (a->num_heads / a->num_kv_heads);
    const int64_t first = (int64_t)(next / a->num_heads) * rows;
    tv_add_ahead(&t->ahead, (struct tv_heads){a->o, a->ld_o, head, 1, h}, first, rows);
    tv_add_ahead(&t->ahead, (struct tv_heads){a->v, a->ld_v, kv, 1, h}, first, rows);
    tv_add_ahead(&t->ahead, (struct tv_heads){a->k, a->ld_k, kv, 1, h}, first, rows);
    tv_add_ahead(&t->ahead, (struct tv_heads){a->q, a->ld_q, head, 1, h}, first, rows);
}

tv_status_t TV_CPU(attention_forward)(struct tv_stream *stream, const struct tv_attention_args *a)
{
    if (a->head_dim > TV_MAX_HEAD)
        return TV_REF(attention_forward)(stream, a);
    const int tiles = (a->seq_length + TV_TILE - 1) / TV_TILE, heads = a->batch * a->num_heads;
    const int threads = tv_threads_for(stream, (int64_t)heads * tiles * TV_TILE * TV_TILE);
    const int whole = tv_is_even(heads, threads), chunk = whole ? tiles : 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct forward_tile t;
        t.tiles = tv_tiles_of(0);
        t.ahead.num = 0;
#pragma omp for schedule(dynamic, chunk) nowait
        for (int i = 0; i < heads * tiles; i++) {
            const int head = i / tiles, tile = tiles - 1 - i % tiles;
            if (whole && tile == tiles - 1)
                look_ahead(&t, a, head + threads);
            forward_queries(&t, a, head / a->num_heads, head % a->num_heads, tile * TV_TILE);
        }
    }
    return TV_OK;
}
