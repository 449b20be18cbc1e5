/* rotary_ref.c -- rotary embedding (arXiv:2104.09864), half-split layout: element i of a head turns
 * with i + h/2. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include <math.h>

tv_status_t TV_REF(rotary)(struct tv_stream *stream, const struct tv_rotary_args *a)
{
    (void)stream;
    const int half = a->head_dim / 2;
    for (int64_t r = 0; r < a->rows; r++) {
        for (int i = 0; i < half; i++) {
            const double place =
                (double)(a->positions != NULL ? a->positions[r] : r % a->seq_length);
            const double angle = place * pow(a->theta, -2.0 * i / a->head_dim);
            const double cosine = cos(angle), sine = a->inverse ? -sin(angle) : sin(angle);
            for (int head = 0; head < a->num_heads; head++) {
                tv_element_t *x = (tv_element_t *)a->x + r * a->ld_x + (int64_t)head * a->head_dim;
                const double low = (double)tv_load(x[i]), high = (double)tv_load(x[i + half]);
                x[i] = tv_store((float)(low * cosine - high * sine));
                x[i + half] = tv_store((float)(high * cosine + low * sine));
            }
        }
    }
    return TV_OK;
}
