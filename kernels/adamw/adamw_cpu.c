/* adamw_cpu.c -- one pass in float vector code; scalars are worked out in double. */
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include <math.h>

tv_status_t TV_CPU(adamw)(struct tv_stream *stream, const struct tv_adamw_args *a)
{
    const int threads = tv_threads_for(stream, a->count);
    const double c1 = 1 - pow(a->beta1, (double)a->step), c2 = 1 - pow(a->beta2, (double)a->step);
    const float beta1 = (float)a->beta1, rest1 = (float)(1 - a->beta1);
    const float beta2 = (float)a->beta2, rest2 = (float)(1 - a->beta2);
    const float scale = (float)a->grad_scale, eps = (float)a->eps, root2 = (float)(1 / sqrt(c2));
    const float step = (float)(a->lr / c1), decay = (float)(a->lr * a->weight_decay);
    float *param = a->param, *m = a->m, *v = a->v;
    const float *grad = a->grad;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : threads > 1)
    for (int64_t i = 0; i < a->count; i++) {
        const float g = grad[i] * scale;
        const float m1 = beta1 * m[i] + rest1 * g;
        const float v1 = beta2 * v[i] + rest2 * g * g;
        m[i] = m1;
        v[i] = v1;
        param[i] -= step * (m1 / (sqrtf(v1) * root2 + eps)) + decay * param[i];
    }
    return TV_OK;
}
