/* attention_ref.c -- causal attention with grouped queries: the definition, one query row at a
 * time.
 *
 * Scores are computed twice (for the row's log sum exp, then for the weights), so nothing of size S
 * is kept. Backward with p = exp(score - lse), D = sum(do o) per row (Dao et al. 2022,
 * arXiv:2205.14135): ds = p (do.v - D) scale; dq += ds k, dk += ds q, dv += p do. Dropout
 * multiplies p (and so do.v, not D) by its factor. */
#include "kernels/dropout/dropout_internal.h"
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include <math.h>

enum { COLUMNS = 64 }; /* of a head whose sums are worked out together */

static int columns_from(int first, int h)
{
    return h - first < COLUMNS ? h - first : COLUMNS;
}

/* Column `column` of a row of a tensor. */
static const tv_element_t *element_at(const void *tensor, int64_t row, int64_t ld, int column)
{
    return (const tv_element_t *)tensor + row * ld + column;
}

static double dot(const tv_element_t *x, const tv_element_t *y, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)tv_load(x[i]) * (double)tv_load(y[i]);
    return sum;
}

/* What dropout multiplies a softmax's output by. */
static double kept(const struct tv_dropout *d, int64_t row, int head, int key)
{
    return d->threshold > 0 ? (double)tv_dropout_factor(d, row, head, key) : 1;
}

static void forward_row(const struct tv_attention_args *a, int b, int head, int row)
{
    const int h = a->head_dim, kv = head / (a->num_heads / a->num_kv_heads);
    const double scale = 1 / sqrt((double)h);
    const int64_t base = (int64_t)b * a->seq_length;
    const tv_element_t *q = element_at(a->q, base + row, a->ld_q, head * h);
    const tv_element_t *k = element_at(a->k, base, a->ld_k, kv * h),
                       *v = element_at(a->v, base, a->ld_v, kv * h);
    tv_element_t *o = (tv_element_t *)a->o + (base + row) * a->ld_o + (int64_t)head * h;
    const int from = tv_first_key(a->first_keys, base + row);
    double top = -INFINITY, sum = 0;
    for (int j = from; j <= row; j++)
        top = fmax(top, scale * dot(q, k + j * a->ld_k, h));
    for (int j = from; j <= row; j++)
        sum += exp(scale * dot(q, k + j * a->ld_k, h) - top);
    for (int first = 0; first < h; first += COLUMNS) {
        const int cols = columns_from(first, h);
        double value[COLUMNS] = {0};
        for (int j = from; j <= row; j++) {
            const double p = exp(scale * dot(q, k + j * a->ld_k, h) - top) / sum;
            const double keep = kept(&a->dropout, base + row, head, j);
            for (int i = 0; i < cols; i++)
                value[i] += p * keep * (double)tv_load(v[j * a->ld_v + first + i]);
        }
        for (int i = 0; i < cols; i++)
            o[first + i] = tv_store((float)value[i]);
    }
    a->lse[((int64_t)b * a->num_heads + head) * a->seq_length + row] = (float)(top + log(sum));
}

tv_status_t TV_REF(attention_forward)(struct tv_stream *stream, const struct tv_attention_args *a)
{
    (void)stream;
    for (int b = 0; b < a->batch; b++)
        for (int head = 0; head < a->num_heads; head++)
            for (int row = 0; row < a->seq_length; row++)
                forward_row(a, b, head, row);
    return TV_OK;
}

struct row_terms {
    const tv_element_t *q, *o, *d_o;
    double lse, delta; /* delta = sum(do o) */
};

static struct row_terms terms_of(const struct tv_attention_backward_args *a, int b, int head,
                                 int row)
{
    const int64_t r = (int64_t)b * a->seq_length + row;
    const int col = head * a->head_dim;
    struct row_terms t = {element_at(a->q, r, a->ld_q, col), element_at(a->o, r, a->ld_o, col),
                          element_at(a->d_o, r, a->ld_do, col), 0, 0};
    t.lse = (double)a->lse[((int64_t)b * a->num_heads + head) * a->seq_length + row];
    t.delta = dot(t.d_o, t.o, a->head_dim);
    return t;
}

static void query_gradient(const struct tv_attention_backward_args *a, int b, int head, int row)
{
    const int h = a->head_dim, kv = head / (a->num_heads / a->num_kv_heads);
    const double scale = 1 / sqrt((double)h);
    const int64_t base = (int64_t)b * a->seq_length;
    const struct row_terms t = terms_of(a, b, head, row);
    tv_element_t *dq = (tv_element_t *)a->dq + (base + row) * a->ld_dq + (int64_t)head * h;
    for (int first = 0; first < h; first += COLUMNS) {
        const int cols = columns_from(first, h);
        double sum[COLUMNS] = {0};
        for (int j = tv_first_key(a->first_keys, base + row); j <= row; j++) {
            const tv_element_t *k = element_at(a->k, base + j, a->ld_k, kv * h);
            const tv_element_t *v = element_at(a->v, base + j, a->ld_v, kv * h);
            const double p = exp(scale * dot(t.q, k, h) - t.lse);
            const double keep = kept(&a->dropout, base + row, head, j);
            const double ds = p * (keep * dot(t.d_o, v, h) - t.delta) * scale;
            for (int i = 0; i < cols; i++)
                sum[i] += ds * (double)tv_load(k[first + i]);
        }
        for (int i = 0; i < cols; i++)
            dq[first + i] = tv_store((float)sum[i]);
    }
}

/* Sums over the queries at or after position j that see it, of all heads in the group: heads outside,
 * rows inside. */
static void key_value_gradient(const struct tv_attention_backward_args *a, int b, int kv, int j)
{
    const int h = a->head_dim, group = a->num_heads / a->num_kv_heads;
    const double scale = 1 / sqrt((double)h);
    const int64_t r = (int64_t)b * a->seq_length + j, col = (int64_t)kv * h;
    const tv_element_t *k = element_at(a->k, r, a->ld_k, kv * h),
                       *v = element_at(a->v, r, a->ld_v, kv * h);
    tv_element_t *dks = (tv_element_t *)a->dk + r * a->ld_dk + col,
                 *dvs = (tv_element_t *)a->dv + r * a->ld_dv + col;
    for (int first = 0; first < h; first += COLUMNS) {
        const int cols = columns_from(first, h);
        double dk[COLUMNS] = {0}, dv[COLUMNS] = {0};
        for (int head = kv * group; head < (kv + 1) * group; head++) {
            for (int row = j; row < a->seq_length; row++) {
                if (tv_first_key(a->first_keys, r - j + row) > j)
                    break;
                const struct row_terms t = terms_of(a, b, head, row);
                const double p = exp(scale * dot(t.q, k, h) - t.lse);
                const double keep = kept(&a->dropout, r - j + row, head, j);
                const double ds = p * (keep * dot(t.d_o, v, h) - t.delta) * scale;
                for (int i = 0; i < cols; i++) {
                    dk[i] += ds * (double)tv_load(t.q[first + i]);
                    dv[i] += keep * p * (double)tv_load(t.d_o[first + i]);
                }
            }
        }
        for (int i = 0; i < cols; i++) {
            dks[first + i] = tv_store((float)dk[i]);
            dvs[first + i] = tv_store((float)dv[i]);
        }
    }
}

tv_status_t TV_REF(attention_backward)(struct tv_stream *stream,
                                       const struct tv_attention_backward_args *a)
{
    (void)stream;
    for (int b = 0; b < a->batch; b++) {
        for (int head = 0; head < a->num_heads; head++)
            for (int row = 0; row < a->seq_length; row++)
                query_gradient(a, b, head, row);
        for (int kv = 0; kv < a->num_kv_heads; kv++)
            for (int j = 0; j < a->seq_length; j++)
                key_value_gradient(a, b, kv, j);
    }
    return TV_OK;
}
