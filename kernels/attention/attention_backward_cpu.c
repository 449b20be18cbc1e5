/* attention_backward_cpu.c -- causal attention, backward, in tiles of 64 queries x 128 keys (64 for heads above 128).
 *
 * A tile of scores is held with the keys side by side, [queries, keys]: what belongs to a query (lse, delta)
 * is one number per row, and of the operands only keys and values are turned, once for all queries. Of a tile
 * that the diagonal cuts, only the strips of 16 that the causal mask leaves are worked out.
 *
 * The gradients of a tile of keys are added up over the queries of all heads that read it, those of queries over
 * tiles of keys in ascending order, in fp32, and rounded when complete. Parallel over (sequence, key/value
 * head), whose thread also does the query heads of the group, so that no two threads add to one gradient. Where
 * that leaves threads idle, keys and queries are two passes: over (sequence, key/value head, tile of keys)
 * and over (sequence, query head, tile of queries). Scores are then worked out twice, every sum is the same. */
#include "kernels/attention/attention_internal.h"
#include "kernels/reduce_internal.h"

/* Rows of keys side by side are a strip further apart than they are long: a column of them is then spread over the
 * sets of the first cache. */
enum {
    TILE_ELEMENTS = 64 * TV_MAX_HEAD,
    MAX_KEYS = 128,
    TURNED_ELEMENTS = (MAX_KEYS / 2 + TV_STRIP) * TV_MAX_HEAD,
    PAIRS = TV_TILE * (MAX_KEYS + TV_STRIP)
};

struct backward_tile {
    _Alignas(TV_LINE_BYTES) float k_turned[TURNED_ELEMENTS]; /* [width, keys], scaled */
    float v_turned[TURNED_ELEMENTS];
    float p[PAIRS], ds[PAIRS]; /* [queries, keys] */
    float rooms[3][TILE_ELEMENTS], sum_rooms[2][TILE_ELEMENTS];
    struct tv_sums dk, dv; /* [keys, width] */
    const struct tv_attention_backward_args *a;
    int b, kv;            /* sequence and key/value head */
    int from, cols, keys; /* keys [from, from + cols), of a tile of up to `keys` */
    int ld;               /* between rows of keys */
    int width;            /* padded head_dim */
    struct tv_part k;     /* [cols, width] */
    const struct tv_tiles *tiles;
    struct tv_ahead ahead;
    int pairs_fetch; /* do products of pairs fetch, too? */
};

/* A tile of queries of a head. */
struct query_tile {
    int head, first, rows;
    int whole; /* keys of the tile before the diagonal, at most cols */
    struct tv_part q, d_o;
};

/* Tiles of 128 keys halve what is done for every pair of tiles: delta, reading queries. */
static int keys_of_tile(int head_dim)
{
    return head_dim <= TILE_ELEMENTS / MAX_KEYS ? MAX_KEYS : MAX_KEYS / 2;
}

/* The keys' part [cols, width] -> [width, keys] */
static void turn(const struct backward_tile *t, struct tv_part from, float scale, float *to)
{
    t->tiles->turn(&(struct tv_tile_turn){.rows = t->cols,
                                          .cols = t->width,
                                          .from = from.data,
                                          .ld_from = from.ld,
                                          .scale = scale,
                                          .to = to,
                                          .ld_to = t->ld});
}

static void take_keys(struct backward_tile *t, int from)
{
    const struct tv_attention_backward_args *a = t->a;
    const int h = a->head_dim;
    const int64_t first = (int64_t)t->b * a->seq_length + from;
    t->from = from;
    t->cols = tv_least(t->keys, a->seq_length - from);
    t->k = tv_part_of(a->k, a->ld_k, first, t->cols, t->kv, h, t->rooms[0]);
    const struct tv_part v = tv_part_of(a->v, a->ld_v, first, t->cols, t->kv, h, t->rooms[1]);
    turn(t, t->k, (float)(TV_LOG2_E / sqrt((double)h)), t->k_turned);
    turn(t, v, 1, t->v_turned);
}

static struct query_tile take_queries(struct backward_tile *t, int head, int first)
{
    const struct tv_attention_backward_args *a = t->a;
    const int h = a->head_dim, rows = tv_least(TV_TILE, a->seq_length - first);
    const int64_t row = (int64_t)t->b * a->seq_length + first;
    return (struct query_tile){.head = head,
                               .first = first,
                               .rows = rows,
                               .whole = tv_least(first - t->from, t->cols),
                               .q = tv_part_of(a->q, a->ld_q, row, rows, head, h, t->rooms[1]),
                               .d_o =
                                   tv_part_of(a->d_o, a->ld_do, row, rows, head, h, t->rooms[2])};
}

/* Columns of the tile that the strip of queries from row i is worked out for. */
static int lanes_of(const struct backward_tile *t, const struct query_tile *q, int i)
{
    return tv_padded(tv_least(q->whole + i + TV_STRIP, t->cols));
}

static int is_cut(const struct backward_tile *t, const struct query_tile *q)
{
    return q->whole < t->cols;
}

/* left [rows, width] times turned [width, keys] -> out [rows, keys] */
static void pairs(struct backward_tile *t, const struct query_tile *q, struct tv_part left,
                  const float *turned, float *out)
{
    const int step = is_cut(t, q) ? TV_STRIP : q->rows;
    for (int i = 0; i < q->rows; i += step) {
        const struct tv_tile_args tile = {.m = tv_least(step, q->rows - i),
                                          .n = lanes_of(t, q, i),
                                          .k = t->width,
                                          .a = left.data + i * left.ld,
                                          .ld_a = left.ld,
                                          .b = turned,
                                          .ld_b = t->ld,
                                          .c = out + i * t->ld,
                                          .ld_c = t->ld,
                                          .ahead = t->pairs_fetch ? &t->ahead : NULL};
        t->tiles->product(&tile);
    }
}

static enum tv_tile_shape shape_of(const struct backward_tile *t, const struct query_tile *q,
                                   enum tv_tile_shape triangle)
{
    return is_cut(t, q) ? triangle : TV_TILE_WHOLE;
}

/* sums [to - from, width] of keys [from, to) += (=) pairs^T right: over the queries from a key's own on */
static void add_to_some(struct backward_tile *t, const struct query_tile *q, const float *pair,
                        struct tv_part right, struct tv_sums to_keys, int from, int to,
                        int accumulate)
{
    const struct tv_tile_args tile = {.m = to - from,
                                      .n = t->width,
                                      .k = q->rows,
                                      .a = pair + from,
                                      .ld_a = t->ld,
                                      .trans_a = 1,
                                      .b = right.data,
                                      .ld_b = right.ld,
                                      .accumulate = accumulate,
                                      .c = to_keys.data + from * to_keys.ld,
                                      .ld_c = to_keys.ld,
                                      .shape = shape_of(t, q, TV_TILE_UPPER),
                                      .lead = q->whole - from,
                                      .ahead = &t->ahead};
    t->tiles->product(&tile);
}

/* Of the keys that some of the queries see, those before the diagonal have sums by now; all of them, where a head of
 * the group is done. The others begin here. */
static void add_to_keys(struct backward_tile *t, const struct query_tile *q, const float *pair,
                        struct tv_part right, struct tv_sums to_keys)
{
    const int seen = tv_least(q->whole + q->rows, t->cols);
    const int group = t->a->num_heads / t->a->num_kv_heads;
    const int begun = q->head == t->kv * group ? q->whole : seen;
    if (begun > 0)
        add_to_some(t, q, pair, right, to_keys, 0, begun, 1);
    if (seen > begun)
        add_to_some(t, q, pair, right, to_keys, begun, seen, 0);
}

/* dq [queries, width] += (=) ds k */
static void add_keys(struct backward_tile *t, const struct query_tile *q, struct tv_sums dq,
                     int accumulate)
{
    const struct tv_tile_args tile = {.m = q->rows,
                                      .n = t->width,
                                      .k = t->cols,
                                      .a = t->ds,
                                      .ld_a = t->ld,
                                      .b = t->k.data,
                                      .ld_b = t->k.ld,
                                      .accumulate = accumulate,
                                      .c = dq.data,
                                      .ld_c = dq.ld,
                                      .shape = shape_of(t, q, TV_TILE_LOWER),
                                      .lead = q->whole,
                                      .ahead = &t->ahead};
    t->tiles->product(&tile);
}

/* delta [rows] = sum(do o) of the rows of a head from `row` on */
static void find_deltas(const struct tv_attention_backward_args *a, int64_t row, int rows, int head,
                        float delta[TV_TILE])
{
    const int64_t col = (int64_t)head * a->head_dim;
    const tv_element_t *d_o = (const tv_element_t *)a->d_o + row * a->ld_do + col;
    const tv_element_t *o = (const tv_element_t *)a->o + row * a->ld_o + col;
    for (int i = 0; i < rows; i++)
        delta[i] = tv_stored_row_dot(d_o + i * a->ld_do, o + i * a->ld_o, a->head_dim);
}

/* Zeros for the keys that the query does not see. */
static void mask_row(float *p, float *ds, int lanes, struct tv_seen seen)
{
    for (int j = 0; j < tv_least(seen.begin, lanes); j++)
        p[j] = ds[j] = 0;
    for (int j = seen.end > 0 ? seen.end : 0; j < lanes; j++)
        p[j] = ds[j] = 0;
}

/* The factors of a row of the tile, or NULL without dropout. */
static const float *factors_of_row(const struct backward_tile *t, int64_t row, int head, int lanes,
                                   float factor[MAX_KEYS])
{
    if (t->a->dropout.threshold == 0)
        return NULL;
    for (int j = 0; j < lanes; j += TV_DROPOUT_COLUMNS)
        tv_dropout_factors(&t->a->dropout, row, head, t->from + j, factor + j);
    return factor;
}

/* p (after dropout: for the values) and ds of a tile of queries against the keys at hand */
static void weights_and_scores(struct backward_tile *t, const struct query_tile *q)
{
    const struct tv_attention_backward_args *a = t->a;
    const float scale = (float)(1 / sqrt((double)a->head_dim));
    const int64_t base = (int64_t)t->b * a->seq_length;
    const float *lse = a->lse + ((int64_t)t->b * a->num_heads + q->head) * a->seq_length + q->first;
    float factor[MAX_KEYS], delta[TV_TILE];
    find_deltas(a, base + q->first, q->rows, q->head, delta);
    pairs(t, q, q->q, t->k_turned, t->p);
    pairs(t, q, q->d_o, t->v_turned, t->ds);
    for (int i = 0; i < q->rows; i++) {
        const int lanes = lanes_of(t, q, i / TV_STRIP * TV_STRIP);
        const int64_t row = base + q->first + i;
        const struct tv_tile_row of_row = {.p = t->p + i * t->ld,
                                           .ds = t->ds + i * t->ld,
                                           .n = lanes,
                                           .lse2 = (float)((double)lse[i] * TV_LOG2_E),
                                           .delta = delta[i],
                                           .scale = scale,
                                           .factor =
                                               factors_of_row(t, row, q->head, lanes, factor)};
        t->tiles->weights(&of_row);
        /* and in the strip behind, which products may touch */
        mask_row(of_row.p, of_row.ds, lanes + TV_STRIP,
                 tv_seen_by(a->first_keys, base, q->first + i, t->from, t->cols));
    }
}

/* Where a head's dq is added up: fp32, in place or in the room for it. */
static struct tv_sums dq_sums(const struct tv_attention_backward_args *a, int64_t row, int head)
{
    const int64_t cols = (int64_t)a->num_heads * a->head_dim, col = (int64_t)head * a->head_dim;
    if (TV_STORAGE_DTYPE == TV_F32)
        return (struct tv_sums){(float *)a->dq + row * a->ld_dq + col, a->ld_dq};
    return (struct tv_sums){a->work + row * cols + col, cols};
}

/* The tile of keys that holds the first one which the queries from `first` see. */
static int first_tile(const struct backward_tile *t, int first)
{
    const int64_t row = (int64_t)t->b * t->a->seq_length + first;
    return tv_first_key(t->a->first_keys, row) / t->keys * t->keys;
}

/* The last tile of keys that the queries from `first` see. */
static int last_tile(const struct backward_tile *t, int first)
{
    return first / t->keys * t->keys;
}

static void add_to_queries(struct backward_tile *t, const struct query_tile *q)
{
    const struct tv_attention_backward_args *a = t->a;
    const int64_t row = (int64_t)t->b * a->seq_length + q->first;
    const int is_first = t->from == first_tile(t, q->first),
              is_last = t->from == last_tile(t, q->first), h = a->head_dim;
    const struct tv_sums dq = dq_sums(a, row, q->head);
    if (t->width == h) {
        add_keys(t, q, dq, !is_first);
    } else {
        const struct tv_sums more = {t->rooms[1], t->width}; /* queries are not read any more */
        add_keys(t, q, more, 0);
        for (int i = 0; i < q->rows; i++) {
#pragma omp simd
            for (int d = 0; d < h; d++)
                dq.data[i * dq.ld + d] =
                    (is_first ? 0 : dq.data[i * dq.ld + d]) + more.data[i * more.ld + d];
        }
    }
    if (is_last && TV_STORAGE_DTYPE != TV_F32)
        tv_store_part(dq.data, dq.ld, a->dq, a->ld_dq, row, q->rows, q->head, h);
}

enum { OF_KEYS = 1, OF_QUERIES = 2 };

static void add_pair(struct backward_tile *t, int head, int first, int gradients)
{
    const struct query_tile q = take_queries(t, head, first);
    weights_and_scores(t, &q);
    if (gradients & OF_KEYS) {
        add_to_keys(t, &q, t->p, q.d_o, t->dv);
        add_to_keys(t, &q, t->ds, q.q, t->dk);
    }
    if (gradients & OF_QUERIES)
        add_to_queries(t, &q);
}

/* Sums of the tile's keys from `row` on -> their gradient */
static void finish_keys(const struct backward_tile *t, struct tv_sums sums, void *gradient,
                        int64_t ld, int64_t row)
{
    const int h = t->a->head_dim;
    if (!tv_is_in_place(h))
        tv_store_part(sums.data, sums.ld, gradient, ld, row, t->cols, t->kv, h);
}

/* All queries that see the keys from `from`. A key's own query does, so that all sums have begun in the end. */
static void backward_keys(struct backward_tile *t, int from, int gradients)
{
    const struct tv_attention_backward_args *a = t->a;
    const int h = a->head_dim, group = a->num_heads / a->num_kv_heads;
    const int64_t first_row = (int64_t)t->b * a->seq_length + from;
    take_keys(t, from);
    t->dk = tv_sums_of(a->dk, a->ld_dk, first_row, t->kv, h, t->sum_rooms[0]);
    t->dv = tv_sums_of(a->dv, a->ld_dv, first_row, t->kv, h, t->sum_rooms[1]);
    for (int head = t->kv * group; head < (t->kv + 1) * group; head++) {
        for (int first = from; first < a->seq_length; first += TV_TILE) {
            if (first_tile(t, first) > from)
                break; /* nor do later queries see these keys */
            add_pair(t, head, first, gradients);
        }
    }
    finish_keys(t, t->dk, a->dk, a->ld_dk, first_row);
    finish_keys(t, t->dv, a->dv, a->ld_dv, first_row);
}

static void start(struct backward_tile *t, const struct tv_attention_backward_args *a)
{
    t->a = a;
    t->keys = keys_of_tile(a->head_dim);
    t->ld = t->keys + TV_STRIP;
    t->width = tv_padded(a->head_dim);
    t->tiles = tv_tiles_of(0);
    t->ahead.num = t->pairs_fetch = 0;
}

static int threads_of(struct tv_stream *stream, const struct tv_attention_backward_args *a)
{
    return tv_threads_for(stream,
                          (int64_t)a->batch * a->num_kv_heads * a->seq_length * a->seq_length);
}

/* The place of a key/value head among all of them. */
struct head_place {
    int b, kv;
};

/* Keys and values from `first` on, and where the gradients of all go. */
static void fetch_keys(struct backward_tile *t, struct head_place of, int first)
{
    const struct tv_attention_backward_args *a = t->a;
    const int rows = a->seq_length, h = a->head_dim;
    const int64_t base = (int64_t)of.b * rows;
    tv_add_ahead(&t->ahead, (struct tv_heads){a->v, a->ld_v, of.kv, 1, h}, base + first,
                 rows - first);
    tv_add_ahead(&t->ahead, (struct tv_heads){a->k, a->ld_k, of.kv, 1, h}, base + first,
                 rows - first);
    tv_add_ahead(&t->ahead, (struct tv_heads){a->dv, a->ld_dv, of.kv, 1, h}, base, rows);
    tv_add_ahead(&t->ahead, (struct tv_heads){a->dk, a->ld_dk, of.kv, 1, h}, base, rows);
}

/* Before them, keys and values before `last`, and all queries that read them. */
static void fetch_queries(struct backward_tile *t, struct head_place of, int last)
{
    const struct tv_attention_backward_args *a = t->a;
    const int rows = a->seq_length, h = a->head_dim, group = a->num_heads / a->num_kv_heads;
    const int64_t base = (int64_t)of.b * rows;
    const struct tv_heads queries[] = {{a->dq, a->ld_dq, of.kv * group, group, h},
                                       {a->o, a->ld_o, of.kv * group, group, h},
                                       {a->d_o, a->ld_do, of.kv * group, group, h},
                                       {a->q, a->ld_q, of.kv * group, group, h}};
    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++)
        tv_add_ahead(&t->ahead, queries[i], base, rows);
    tv_add_ahead(&t->ahead, (struct tv_heads){a->v, a->ld_v, of.kv, 1, h}, base, last);
    tv_add_ahead(&t->ahead, (struct tv_heads){a->k, a->ld_k, of.kv, 1, h}, base, last);
}

/* What products fetch while the tile of keys from `from` is at work, the thread's next key/value head being `next`: all
 * of that one, by the products with weights; or, by all products, first what is left of this one, then, behind its
 * first tile, what the next one's first tile reads. */
static void look_ahead(struct backward_tile *t, int from, int next)
{
    const struct tv_attention_backward_args *a = t->a;
    const int group = a->num_heads / a->num_kv_heads, rows = a->seq_length;
    const enum tv_room_ahead room = tv_room_for_head(rows, 4 * (group + 1) * a->head_dim);
    const struct head_place own = {t->b, t->kv},
                            after = {next / a->num_kv_heads, next % a->num_kv_heads};
    if (room == TV_AHEAD_NOTHING || from > (room == TV_AHEAD_ALL ? 0 : t->keys))
        return;
    t->ahead.num = 0;
    t->pairs_fetch = room == TV_AHEAD_HALF;
    if (room == TV_AHEAD_HALF && from == 0 && rows > t->keys) {
        fetch_keys(t, own, t->keys);
    } else if (after.b < a->batch) {
        if (room == TV_AHEAD_ALL)
            fetch_keys(t, after, rows);
        fetch_queries(t, after, room == TV_AHEAD_ALL ? rows : tv_least(rows, t->keys));
    }
}

/* A pass over (sequence, key/value head, tile of keys), or with one piece over all tiles at once */
static void pass_over_keys(struct tv_stream *stream, const struct tv_attention_backward_args *a,
                           int pieces, int gradients)
{
    const int total = a->batch * a->num_kv_heads, threads = threads_of(stream, a);
    const int keys = keys_of_tile(a->head_dim), step = pieces == 1 ? a->seq_length : keys;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct backward_tile t;
        start(&t, a);
#pragma omp for schedule(dynamic) nowait
        for (int i = 0; i < total * pieces; i++) {
            const int begin = i % pieces * step, end = tv_least(begin + step, a->seq_length);
            t.b = i / pieces / a->num_kv_heads;
            t.kv = i / pieces % a->num_kv_heads;
            for (int from = begin; from < end; from += keys) {
                if (pieces == 1)
                    look_ahead(&t, from, i + threads);
                backward_keys(&t, from, gradients);
            }
        }
    }
}

static void pass_over_queries(struct tv_stream *stream, const struct tv_attention_backward_args *a)
{
    const int tiles = (a->seq_length + TV_TILE - 1) / TV_TILE, total = a->batch * a->num_heads;
    const int group = a->num_heads / a->num_kv_heads, threads = threads_of(stream, a);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct backward_tile t;
        start(&t, a);
#pragma omp for schedule(dynamic) nowait
        for (int i = 0; i < total * tiles; i++) {
            const int head = i / tiles % a->num_heads, first = (tiles - 1 - i % tiles) * TV_TILE;
            t.b = i / tiles / a->num_heads;
            t.kv = head / group;
            for (int from = first_tile(&t, first); from <= last_tile(&t, first); from += t.keys) {
                take_keys(&t, from);
                add_pair(&t, head, first, OF_QUERIES);
            }
        }
    }
}

tv_status_t TV_CPU(attention_backward)(struct tv_stream *stream,
                                       const struct tv_attention_backward_args *a)
{
    if (a->head_dim > TV_MAX_HEAD)
        return TV_REF(attention_backward)(stream, a);
    const int total = a->batch * a->num_kv_heads, threads = threads_of(stream, a);
    const int keys = keys_of_tile(a->head_dim), tiles = (a->seq_length + keys - 1) / keys;
    /* 5 products of pairs where heads are spread evenly, 7 in two passes */
    if ((total + threads - 1) / threads * threads * 5 <= total * 7 || tiles == 1) {
        pass_over_keys(stream, a, 1, OF_KEYS | OF_QUERIES);
        return TV_OK;
    }
    pass_over_keys(stream, a, tiles, OF_KEYS);
    pass_over_queries(stream, a);
    return TV_OK;
}
