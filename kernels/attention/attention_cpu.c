/* attention_cpu.c -- causal attention in tiles of 64 x 64 scores with the online softmax (Dao et
 * al. 2022, arXiv:2205.14135): per thread a few tiles on the stack, whatever the sequence length.
 *
 * The tiles are fp32: parts of stored tensors are read into them, and what is added up over tiles of
 * keys is rounded when it is complete.
 *
 * Forward is parallel over (sequence, query head); backward over (sequence, key/value head), whose
 * thread also does the query heads of the group, so that no two threads add to one gradient. */
#include "kernels/dropout/dropout_internal.h"
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/reduce_internal.h"

enum { TILE = 64, MAX_HEAD = 256 };
_Static_assert((int)TILE == (int)TV_DROPOUT_COLUMNS, "a row of a tile in one call");

/* Rows [first, first + rows) of a head's columns, as floats with a stride. */
struct part {
    const float *data;
    int64_t ld;
};

/* head: number of the head in the tensor; room [rows, h], for elements that are not floats */
static struct part part_of(const void *tensor, int64_t ld, int64_t first, int rows, int head, int h,
                           float *room)
{
    const tv_element_t *from = (const tv_element_t *)tensor + first * ld + (int64_t)head * h;
    if (TV_STORAGE_DTYPE == TV_F32)
        return (struct part){(const float *)(const void *)from, ld};
    for (int i = 0; i < rows; i++) {
#pragma omp simd
        for (int d = 0; d < h; d++)
            room[i * h + d] = tv_load(from[i * ld + d]);
    }
    return (struct part){room, h};
}

/* from [rows, h], with stride ld_from -> a head's columns of a stored tensor */
static void store_part(const float *from, int64_t ld_from, void *tensor, int64_t ld, int64_t first,
                       int rows, int head, int h)
{
    tv_element_t *to = (tv_element_t *)tensor + first * ld + (int64_t)head * h;
    for (int i = 0; i < rows; i++) {
#pragma omp simd
        for (int d = 0; d < h; d++)
            to[i * ld + d] = tv_store(from[i * ld_from + d]);
    }
}

static int tile_rows(int first, int total)
{
    return total - first < TILE ? total - first : TILE;
}

/* x[num] times the factors of dropout */
static void drop(float *x, const float *factor, int num)
{
#pragma omp simd
    for (int j = 0; j < num; j++)
        x[j] *= factor[j];
}

/* Running softmax of one tile of queries. */
struct forward_tile {
    float acc[TILE * MAX_HEAD]; /* [rows, h]: sum of weights times values */
    float scores[TILE * TILE];
    float top[TILE];
    double sum[TILE];
    float q[TILE * MAX_HEAD], k[TILE * MAX_HEAD], v[TILE * MAX_HEAD]; /* rooms of parts */
};

/* The keys of a tile that a query sees, [begin, end) of its columns; none where begin >= end. */
struct seen {
    int begin, end;
};

/* Of query `query` of a sequence whose first row is `base`, in a tile of `cols` keys from `from`. */
static struct seen seen_by(const int32_t *first_keys, int64_t base, int query, int from, int cols)
{
    const int behind = tv_first_key(first_keys, base + query) - from, ahead = query - from + 1;
    return (struct seen){behind > 0 ? behind : 0, ahead < cols ? ahead : cols};
}

/* The tile of keys that holds the first one which the queries from `first` see. */
static int first_tile(const int32_t *first_keys, int64_t base, int first)
{
    return tv_first_key(first_keys, base + first) / TILE * TILE;
}

/* Turn row i of the scores into weights, rescaling what was accumulated under a smaller maximum. */
static void softmax_row(struct forward_tile *t, int i, struct seen seen, int cols, int h)
{
    float *s = t->scores + i * TILE;
    if (seen.begin >= seen.end) {
        memset(s, 0, (size_t)cols * sizeof(*s));
        return;
    }
    const float here = tv_row_max(s + seen.begin, seen.end - seen.begin);
    const float top = t->top[i] >= here ? t->top[i] : here;
    const float shrink = t->top[i] == -INFINITY ? 0.0f : expf(t->top[i] - top);
    for (int j = 0; j < seen.begin; j++)
        s[j] = 0;
#pragma omp simd
    for (int j = seen.begin; j < seen.end; j++)
        s[j] = tv_fast_exp(s[j] - top);
    for (int j = seen.end; j < cols; j++)
        s[j] = 0;
    t->sum[i] = t->sum[i] * (double)shrink + tv_row_sum(s, seen.end);
    t->top[i] = top;
    for (int d = 0; d < h; d++)
        t->acc[i * h + d] *= shrink;
}

static void forward_tile(const struct tv_attention_args *a, int b, int head, int first)
{
    struct forward_tile t;
    float factor[TILE];
    const int h = a->head_dim, kv = head / (a->num_heads / a->num_kv_heads),
              rows = tile_rows(first, a->seq_length);
    const float scale = (float)(1 / sqrt((double)h));
    const int64_t base = (int64_t)b * a->seq_length;
    const struct part q = part_of(a->q, a->ld_q, base + first, rows, head, h, t.q);
    memset(t.acc, 0, (size_t)rows * (size_t)h * sizeof(float));
    for (int i = 0; i < rows; i++) {
        t.top[i] = -INFINITY;
        t.sum[i] = 0;
    }
    for (int from = first_tile(a->first_keys, base, first); from < first + rows; from += TILE) {
        const int cols = tile_rows(from, first + rows);
        const struct part k = part_of(a->k, a->ld_k, base + from, cols, kv, h, t.k);
        const struct part v = part_of(a->v, a->ld_v, base + from, cols, kv, h, t.v);
        tv_sgemm(0, 1, rows, cols, h, scale, q.data, q.ld, k.data, k.ld, 0, t.scores, TILE);
        for (int i = 0; i < rows; i++) {
            softmax_row(&t, i, seen_by(a->first_keys, base, first + i, from, cols), cols, h);
            if (a->dropout.threshold == 0)
                continue;
            tv_dropout_factors(&a->dropout, base + first + i, head, from, factor);
            drop(t.scores + i * TILE, factor, cols);
        }
        tv_sgemm(0, 0, rows, h, cols, 1, t.scores, TILE, v.data, v.ld, 1, t.acc, h);
    }
    for (int i = 0; i < rows; i++) {
        for (int d = 0; d < h; d++)
            t.acc[i * h + d] = (float)((double)t.acc[i * h + d] / t.sum[i]);
        a->lse[((int64_t)b * a->num_heads + head) * a->seq_length + first + i] =
            (float)((double)t.top[i] + log(t.sum[i]));
    }
    store_part(t.acc, h, a->o, a->ld_o, base + first, rows, head, h);
}

tv_status_t TV_CPU(attention_forward)(struct tv_stream *stream, const struct tv_attention_args *a)
{
    if (a->head_dim > MAX_HEAD)
        return TV_REF(attention_forward)(stream, a);
    const int tiles = (a->seq_length + TILE - 1) / TILE, total = a->batch * a->num_heads * tiles;
    const int threads = tv_threads_for(stream, (int64_t)total * TILE * TILE);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int i = 0; i < total; i++)
        forward_tile(a, i / tiles / a->num_heads, i / tiles % a->num_heads, i % tiles * TILE);
    return TV_OK;
}

struct backward_tile {
    float p[TILE * TILE], ds[TILE * TILE];
    float dk[TILE * MAX_HEAD], dv[TILE * MAX_HEAD]; /* [cols, h] of the keys at hand */
    struct part q, d_o, k, v;                       /* of the queries and keys at hand */
    float rooms[4][TILE * MAX_HEAD];                /* of the parts */
};

/* p (after dropout: for the values) and ds of queries [first, first + rows) against keys
 * [from, from + cols): the parts of the tile */
static void weights_and_scores(const struct tv_attention_backward_args *a, struct backward_tile *t,
                               int b, int head, int first, int from, const float *delta)
{
    const int h = a->head_dim;
    const int rows = tile_rows(first, a->seq_length), cols = tile_rows(from, a->seq_length);
    const float scale = (float)(1 / sqrt((double)h));
    const int64_t base = (int64_t)b * a->seq_length;
    float factor[TILE];
    const float *lse = a->lse + ((int64_t)b * a->num_heads + head) * a->seq_length + first;
    tv_sgemm(0, 1, rows, cols, h, scale, t->q.data, t->q.ld, t->k.data, t->k.ld, 0, t->p, TILE);
    tv_sgemm(0, 1, rows, cols, h, 1, t->d_o.data, t->d_o.ld, t->v.data, t->v.ld, 0, t->ds, TILE);
    for (int i = 0; i < rows; i++) {
        float *p = t->p + i * TILE, *ds = t->ds + i * TILE;
        const struct seen seen = seen_by(a->first_keys, base, first + i, from, cols);
        const float row_lse = lse[i], row_delta_i = delta[i];
        if (a->dropout.threshold > 0) {
            tv_dropout_factors(&a->dropout, base + first + i, head, from, factor);
            drop(ds, factor, cols);
        }
#pragma omp simd
        for (int j = seen.begin; j < seen.end; j++) {
            p[j] = tv_fast_exp(p[j] - row_lse);
            ds[j] = p[j] * (ds[j] - row_delta_i) * scale;
        }
        if (a->dropout.threshold > 0)
            drop(p, factor, cols);
        for (int j = 0; j < seen.begin && j < cols; j++)
            p[j] = ds[j] = 0;
        for (int j = seen.end; j < cols; j++)
            p[j] = ds[j] = 0;
    }
}

/* delta = sum(do o) of one row of a head */
static float row_delta(const struct tv_attention_backward_args *a, int b, int head, int row)
{
    const int64_t r = (int64_t)b * a->seq_length + row, col = (int64_t)head * a->head_dim;
    const tv_element_t *d_o = a->d_o, *o = a->o;
    return (float)tv_stored_row_dot(d_o + r * a->ld_do + col, o + r * a->ld_o + col, a->head_dim);
}

/* Where a head's dq is added up: fp32, in place or in the room for it. */
static float *dq_sum(const struct tv_attention_backward_args *a, int64_t row, int head,
                     int64_t *ld_out)
{
    const int64_t cols = (int64_t)a->num_heads * a->head_dim;
    const int is_in_place = TV_STORAGE_DTYPE == TV_F32;
    *ld_out = is_in_place ? a->ld_dq : cols;
    return (is_in_place ? (float *)a->dq : a->work) + row * *ld_out + (int64_t)head * a->head_dim;
}

/* The sums of one sequence and key/value head are complete. */
static void store_dq(const struct tv_attention_backward_args *a, int b, int kv)
{
    const int group = a->num_heads / a->num_kv_heads;
    const int64_t base = (int64_t)b * a->seq_length;
    for (int head = kv * group; TV_STORAGE_DTYPE != TV_F32 && head < (kv + 1) * group; head++) {
        int64_t ld;
        const float *sum = dq_sum(a, base, head, &ld);
        store_part(sum, ld, a->dq, a->ld_dq, base, a->seq_length, head, a->head_dim);
    }
}

static void backward_keys(const struct tv_attention_backward_args *a, int b, int kv, int from,
                          float *delta)
{
    struct backward_tile t;
    const int h = a->head_dim, group = a->num_heads / a->num_kv_heads,
              cols = tile_rows(from, a->seq_length);
    const int64_t base = (int64_t)b * a->seq_length;
    t.k = part_of(a->k, a->ld_k, base + from, cols, kv, h, t.rooms[0]);
    t.v = part_of(a->v, a->ld_v, base + from, cols, kv, h, t.rooms[1]);
    memset(t.dk, 0, (size_t)cols * (size_t)h * sizeof(float));
    memset(t.dv, 0, (size_t)cols * (size_t)h * sizeof(float));
    for (int head = kv * group; head < (kv + 1) * group; head++) {
        for (int first = from; first < a->seq_length; first += TILE) {
            const int rows = tile_rows(first, a->seq_length);
            const int first_from = first_tile(a->first_keys, base, first);
            if (first_from > from)
                break; /* nor do later queries see these keys */
            int64_t ld_dq;
            float *dq = dq_sum(a, base + first, head, &ld_dq);
            t.q = part_of(a->q, a->ld_q, base + first, rows, head, h, t.rooms[2]);
            t.d_o = part_of(a->d_o, a->ld_do, base + first, rows, head, h, t.rooms[3]);
            for (int i = 0; i < rows; i++)
                delta[i] = row_delta(a, b, head, first + i);
            weights_and_scores(a, &t, b, head, first, from, delta);
            tv_sgemm(1, 0, cols, h, rows, 1, t.p, TILE, t.d_o.data, t.d_o.ld, 1, t.dv, h);
            tv_sgemm(1, 0, cols, h, rows, 1, t.ds, TILE, t.q.data, t.q.ld, 1, t.dk, h);
            tv_sgemm(0, 0, rows, h, cols, 1, t.ds, TILE, t.k.data, t.k.ld,
                     from == first_from ? 0.0f : 1.0f, dq, ld_dq);
        }
    }
    store_part(t.dk, h, a->dk, a->ld_dk, base + from, cols, kv, h);
    store_part(t.dv, h, a->dv, a->ld_dv, base + from, cols, kv, h);
}

tv_status_t TV_CPU(attention_backward)(struct tv_stream *stream,
                                       const struct tv_attention_backward_args *a)
{
    if (a->head_dim > MAX_HEAD)
        return TV_REF(attention_backward)(stream, a);
    const int total = a->batch * a->num_kv_heads;
    const int threads = tv_threads_for(stream, (int64_t)total * a->seq_length * a->seq_length);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int i = 0; i < total; i++) {
        float delta[TILE];
        for (int from = 0; from < a->seq_length; from += TILE)
            backward_keys(a, i / a->num_kv_heads, i % a->num_kv_heads, from, delta);
        store_dq(a, i / a->num_kv_heads, i % a->num_kv_heads);
    }
    return TV_OK;
}
