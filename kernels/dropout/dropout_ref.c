/* dropout_ref.c -- dropout, one element at a time. */
#include "kernels/dropout/dropout_internal.h"
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"

tv_status_t TV_REF(dropout)(struct tv_stream *stream, const struct tv_dropout_args *a)
{
    (void)stream;
    const tv_element_t *x = a->x;
    tv_element_t *y = a->y;
    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t c = 0; c < a->cols; c++)
            y[r * a->cols + c] =
                tv_store(tv_load(x[r * a->cols + c]) * tv_dropout_factor(&a->dropout, r, 0, c));
    return TV_OK;
}
