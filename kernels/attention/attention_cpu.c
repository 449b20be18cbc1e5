/* attention_cpu.c -- causal attention in tiles of 64 x 64 scores with the online softmax (Dao et
 * al. 2022, arXiv:2205.14135): per thread a few tiles on the stack, whatever the sequence length.
 *
 * Forward is parallel over (sequence, query head); backward over (sequence, key/value head), whose
 * thread also does the query heads of the group, so that no two threads add to one gradient. */
#include "kernels/dropout/dropout_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/reduce_internal.h"

enum { TILE = 64, MAX_HEAD = 256 };
_Static_assert((int)TILE == (int)TV_DROPOUT_COLUMNS, "a row of a tile in one call");

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
    const float *q = a->q + (base + first) * a->ld_q + (int64_t)head * h;
    memset(t.acc, 0, (size_t)rows * (size_t)h * sizeof(float));
    for (int i = 0; i < rows; i++) {
        t.top[i] = -INFINITY;
        t.sum[i] = 0;
    }
    for (int from = first_tile(a->first_keys, base, first); from < first + rows; from += TILE) {
        const int cols = tile_rows(from, first + rows);
        const float *k = a->k + (base + from) * a->ld_k + (int64_t)kv * h;
        const float *v = a->v + (base + from) * a->ld_v + (int64_t)kv * h;
        tv_sgemm(0, 1, rows, cols, h, scale, q, a->ld_q, k, a->ld_k, 0, t.scores, TILE);
        for (int i = 0; i < rows; i++) {
            softmax_row(&t, i, seen_by(a->first_keys, base, first + i, from, cols), cols, h);
            if (a->dropout.threshold == 0)
                continue;
            tv_dropout_factors(&a->dropout, base + first + i, head, from, factor);
            drop(t.scores + i * TILE, factor, cols);
        }
        tv_sgemm(0, 0, rows, h, cols, 1, t.scores, TILE, v, a->ld_v, 1, t.acc, h);
    }
    for (int i = 0; i < rows; i++) {
        float *o = a->o + (base + first + i) * a->ld_o + (int64_t)head * h;
        for (int d = 0; d < h; d++)
            o[d] = (float)((double)t.acc[i * h + d] / t.sum[i]);
        a->lse[((int64_t)b * a->num_heads + head) * a->seq_length + first + i] =
            (float)((double)t.top[i] + log(t.sum[i]));
    }
}

tv_status_t TV_CPU(attention_forward)(struct tv_stream *stream, const struct tv_attention_args *a)
{
    if (a->head_dim > MAX_HEAD)
        return tv_attention_forward_ref(stream, a);
    const int tiles = (a->seq_length + TILE - 1) / TILE, total = a->batch * a->num_heads * tiles;
    const int threads = tv_threads_for(stream, (int64_t)total * TILE * TILE);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int i = 0; i < total; i++)
        forward_tile(a, i / tiles / a->num_heads, i / tiles % a->num_heads, i % tiles * TILE);
    return tv_sgemm_status();
}

struct backward_tile {
    float p[TILE * TILE], ds[TILE * TILE];
    float dk[TILE * MAX_HEAD], dv[TILE * MAX_HEAD]; /* [cols, h] of the keys at hand */
};

/* p (after dropout: for the values) and ds of queries [first, first + rows) against keys
 * [from, from + cols) */
static void weights_and_scores(const struct tv_attention_backward_args *a, struct backward_tile *t,
                               int b, int head, int first, int from, const float *delta)
{
    const int h = a->head_dim, kv = head / (a->num_heads / a->num_kv_heads);
    const int rows = tile_rows(first, a->seq_length), cols = tile_rows(from, a->seq_length);
    const float scale = (float)(1 / sqrt((double)h));
    const int64_t base = (int64_t)b * a->seq_length;
    float factor[TILE];
    const float *lse = a->lse + ((int64_t)b * a->num_heads + head) * a->seq_length + first;
    tv_sgemm(0, 1, rows, cols, h, scale, a->q + (base + first) * a->ld_q + (int64_t)head * h,
             a->ld_q, a->k + (base + from) * a->ld_k + (int64_t)kv * h, a->ld_k, 0, t->p, TILE);
    tv_sgemm(0, 1, rows, cols, h, 1, a->d_o + (base + first) * a->ld_do + (int64_t)head * h,
             a->ld_do, a->v + (base + from) * a->ld_v + (int64_t)kv * h, a->ld_v, 0, t->ds, TILE);
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
    return (float)tv_row_dot(a->d_o + r * a->ld_do + col, a->o + r * a->ld_o + col, a->head_dim);
}

static void backward_keys(const struct tv_attention_backward_args *a, int b, int kv, int from,
                          float *delta)
{
    struct backward_tile t;
    const int h = a->head_dim, group = a->num_heads / a->num_kv_heads,
              cols = tile_rows(from, a->seq_length);
    const int64_t base = (int64_t)b * a->seq_length;
    memset(t.dk, 0, (size_t)cols * (size_t)h * sizeof(float));
    memset(t.dv, 0, (size_t)cols * (size_t)h * sizeof(float));
    for (int head = kv * group; head < (kv + 1) * group; head++) {
        for (int first = from; first < a->seq_length; first += TILE) {
            const int rows = tile_rows(first, a->seq_length);
            const int first_from = first_tile(a->first_keys, base, first);
            if (first_from > from)
                break; /* nor do later queries see these keys */
            const float *q = a->q + (base + first) * a->ld_q + (int64_t)head * h;
            const float *d_o = a->d_o + (base + first) * a->ld_do + (int64_t)head * h;
            float *dq = a->dq + (base + first) * a->ld_dq + (int64_t)head * h;
            for (int i = 0; i < rows; i++)
                delta[i] = row_delta(a, b, head, first + i);
            weights_and_scores(a, &t, b, head, first, from, delta);
            tv_sgemm(1, 0, cols, h, rows, 1, t.p, TILE, d_o, a->ld_do, 1, t.dv, h);
            tv_sgemm(1, 0, cols, h, rows, 1, t.ds, TILE, q, a->ld_q, 1, t.dk, h);
            tv_sgemm(0, 0, rows, h, cols, 1, t.ds, TILE,
                     a->k + (base + from) * a->ld_k + (int64_t)kv * h, a->ld_k,
                     from == first_from ? 0.0f : 1.0f, dq, a->ld_dq);
        }
    }
    for (int j = 0; j < cols; j++) {
        const int64_t r = base + from + j, col = (int64_t)kv * h;
        memcpy(a->dk + r * a->ld_dk + col, t.dk + j * h, (size_t)h * sizeof(float));
        memcpy(a->dv + r * a->ld_dv + col, t.dv + j * h, (size_t)h * sizeof(float));
    }
}

tv_status_t TV_CPU(attention_backward)(struct tv_stream *stream,
                                       const struct tv_attention_backward_args *a)
{
    if (a->head_dim > MAX_HEAD)
        return tv_attention_backward_ref(stream, a);
    const int total = a->batch * a->num_kv_heads;
    const int threads = tv_threads_for(stream, (int64_t)total * a->seq_length * a->seq_length);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int i = 0; i < total; i++) {
        float delta[TILE];
        for (int from = 0; from < a->seq_length; from += TILE)
            backward_keys(a, i / a->num_kv_heads, i % a->num_kv_heads, from, delta);
    }
    return tv_sgemm_status();
}
