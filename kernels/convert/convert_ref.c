/* convert_ref.c -- bf16 of floats and back, one element at a time. In place it goes through the array
 * in the direction in which no element is written before it is read. */
#include "kernels/kernels_internal.h"

tv_status_t TV_REF(to_bf16)(struct tv_stream *stream, const struct tv_to_bf16_args *a)
{
    (void)stream;
    for (int64_t i = 0; i < a->count; i++) {
        const uint16_t y = tv_bf16_from_f32(a->x[i]);
        memcpy(tv_at(a->y, i, TV_BF16), &y, sizeof(y));
    }
    return TV_OK;
}

tv_status_t TV_REF(from_bf16)(struct tv_stream *stream, const struct tv_from_bf16_args *a)
{
    (void)stream;
    for (int64_t i = a->count - 1; i >= 0; i--) {
        uint16_t x;
        memcpy(&x, tv_const_at(a->x, i, TV_BF16), sizeof(x));
        a->y[i] = tv_bf16_to_f32(x);
    }
    return TV_OK;
}
