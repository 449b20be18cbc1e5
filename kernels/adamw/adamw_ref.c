/* adamw_ref.c -- AdamW (arXiv:1711.05101), in place; arithmetic in double, state in float. */
#include "kernels/kernels_internal.h"
#include <math.h>

tv_status_t TV_REF(adamw)(struct tv_stream *stream, const struct tv_adamw_args *a)
{
    (void)stream;
    const double c1 = 1 - pow(a->beta1, (double)a->step), c2 = 1 - pow(a->beta2, (double)a->step);
    for (int64_t i = 0; i < a->count; i++) {
        const double g = (double)a->grad[i] * a->grad_scale, p = (double)a->param[i];
        const double m = a->beta1 * (double)a->m[i] + (1 - a->beta1) * g;
        const double v = a->beta2 * (double)a->v[i] + (1 - a->beta2) * g * g;
        a->m[i] = (float)m;
        a->v[i] = (float)v;
        a->param[i] = (float)(p - a->lr * (m / c1 / (sqrt(v / c2) + a->eps) + a->weight_decay * p));
    }
    return TV_OK;
}
