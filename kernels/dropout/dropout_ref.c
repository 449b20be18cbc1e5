/* dropout_ref.c -- dropout, one element at a time. */
#include "kernels/dropout/dropout_internal.h"
#include "kernels/kernels_internal.h"

tv_status_t tv_dropout_ref(struct tv_stream *stream, const struct tv_dropout_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t c = 0; c < a->cols; c++)
            a->y[r * a->cols + c] = a->x[r * a->cols + c] * tv_dropout_factor(&a->dropout, r, 0, c);
    return TV_OK;
}
