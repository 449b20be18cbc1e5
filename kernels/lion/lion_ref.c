/* lion_ref.c -- Lion (arXiv:2302.06675), in place; arithmetic in double, state in float. */
#include "kernels/kernels_internal.h"

tv_status_t TV_REF(lion)(struct tv_stream *stream, const struct tv_lion_args *a)
{
    (void)stream;
    for (int64_t i = 0; i < a->count; i++) {
        const double g = (double)a->grad[i] * a->grad_scale;
        const double m = (double)a->m[i], p = (double)a->param[i];
        const double c = a->beta1 * m + (1 - a->beta1) * g;
        const double sign = c > 0 ? 1 : c < 0 ? -1 : 0;
        a->param[i] = (float)(p - a->lr * (sign + a->weight_decay * p));
        a->m[i] = (float)(a->beta2 * m + (1 - a->beta2) * g);
    }
    return TV_OK;
}
