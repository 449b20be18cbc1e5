/* adamw_ref.c -- AdamW (arXiv:1711.05101), in place; arithmetic in double, state in float. */
#include "kernels/kernels_internal.h"
#include <math.h>

static void step_weight(const struct tv_adamw_args *a, const struct tv_adamw_weight *w)
{
    const double c1 = 1 - pow(a->beta1, (double)a->step), c2 = 1 - pow(a->beta2, (double)a->step);
    uint16_t *rounded = w->rounded;
    for (int64_t i = 0; i < w->count; i++) {
        const double g = (double)w->grad[i] * a->grad_scale, p = (double)w->param[i];
        const double m = a->beta1 * (double)w->m[i] + (1 - a->beta1) * g;
        const double v = a->beta2 * (double)w->v[i] + (1 - a->beta2) * g * g;
        w->m[i] = (float)m;
        w->v[i] = (float)v;
        w->param[i] = (float)(p - w->lr * (m / c1 / (sqrt(v / c2) + a->eps) + w->weight_decay * p));
        if (rounded != NULL)
            rounded[i] = tv_bf16_from_f32(w->param[i]);
    }
}

tv_status_t TV_REF(adamw)(struct tv_stream *stream, const struct tv_adamw_args *a)
{
    (void)stream;
    for (int i = 0; i < a->num; i++)
        step_weight(a, &a->of[i]);
    return TV_OK;
}
