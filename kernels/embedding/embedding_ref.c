/* embedding_ref.c -- rows of a table by id; ids outside the held range give zeros and get no
 * gradient. */
#include "kernels/kernels_internal.h"

static int is_held(int64_t id, int64_t first, int64_t num)
{
    return id >= first && id < first + num;
}

tv_status_t tv_embedding_forward_ref(struct tv_stream *stream, const struct tv_embedding_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const float *row = is_held(a->ids[r], a->first, a->num)
                               ? a->table + (a->ids[r] - a->first) * a->cols
                               : NULL;
        for (int64_t c = 0; c < a->cols; c++) {
            const float value = row != NULL ? row[c] : 0;
            a->y[r * a->cols + c] = a->accumulate ? a->y[r * a->cols + c] + value : value;
        }
    }
    return TV_OK;
}

tv_status_t tv_embedding_backward_ref(struct tv_stream *stream,
                                      const struct tv_embedding_backward_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        if (!is_held(a->ids[r], a->first, a->num))
            continue;
        float *row = a->dtable + (a->ids[r] - a->first) * a->cols;
        for (int64_t c = 0; c < a->cols; c++)
            row[c] += a->dy[r * a->cols + c];
    }
    return TV_OK;
}
