/* embedding_ref.c -- rows of a table by id; ids outside the held range give zeros and get no
 * gradient. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"

static int is_held(int64_t id, int64_t first, int64_t num)
{
    return id >= first && id < first + num;
}

tv_status_t TV_REF(embedding_forward)(struct tv_stream *stream, const struct tv_embedding_args *a)
{
    (void)stream;
    const tv_element_t *table = a->table;
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *row =
            is_held(a->ids[r], a->first, a->num) ? table + (a->ids[r] - a->first) * a->cols : NULL;
        tv_element_t *y = (tv_element_t *)a->y + r * a->cols;
        for (int64_t c = 0; c < a->cols; c++) {
            const float value = row != NULL ? tv_load(row[c]) : 0;
            y[c] = tv_store(a->accumulate ? tv_load(y[c]) + value : value);
        }
    }
    return TV_OK;
}

tv_status_t TV_REF(embedding_backward)(struct tv_stream *stream,
                                       const struct tv_embedding_backward_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        if (!is_held(a->ids[r], a->first, a->num))
            continue;
        const tv_element_t *dy = (const tv_element_t *)a->dy + r * a->cols;
        float *row = a->dtable + (a->ids[r] - a->first) * a->cols;
        for (int64_t c = 0; c < a->cols; c++)
            row[c] += tv_load(dy[c]);
    }
    return TV_OK;
}
