/* lion_cpu.c -- one pass; in double like the reference, since a sign near zero hangs on the last bit. */
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"

tv_status_t TV_CPU(lion)(struct tv_stream *stream, const struct tv_lion_args *a)
{
    const int threads = tv_threads_for(stream, a->count);
    const double lr = a->lr, beta1 = a->beta1, beta2 = a->beta2;
    const double decay = a->weight_decay, scale = a->grad_scale;
    float *param = a->param, *m = a->m;
    const float *grad = a->grad;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : threads > 1)
    for (int64_t i = 0; i < a->count; i++) {
        const double g = (double)grad[i] * scale, m0 = (double)m[i], p = (double)param[i];
        const double c = beta1 * m0 + (1 - beta1) * g;
        const double sign = c > 0 ? 1 : c < 0 ? -1 : 0;
        param[i] = (float)(p - lr * (sign + decay * p));
        m[i] = (float)(beta2 * m0 + (1 - beta2) * g);
    }
    return TV_OK;
}
