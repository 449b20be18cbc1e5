/* adamw_cpu.c -- one pass in float vector code; scalars are worked out in double. */
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include <math.h>

enum { BLOCK = 1024 };

struct constants {
    float scale, beta1, rest1, beta2, rest2, eps, root2, step, decay;
};

static inline void step_elements(const struct tv_adamw_weight *w, const struct constants *of,
                                 int64_t first, int64_t end)
{
    const struct constants c = *of;
    float *param = w->param, *m = w->m, *v = w->v;
    const float *grad = w->grad;
#pragma omp simd
    for (int64_t i = first; i < end; i++) {
        const float g = grad[i] * c.scale;
        const float m1 = c.beta1 * m[i] + c.rest1 * g;
        const float v1 = c.beta2 * v[i] + c.rest2 * g * g;
        m[i] = m1;
        v[i] = v1;
        param[i] -= c.step * (m1 / (sqrtf(v1) * c.root2 + c.eps)) + c.decay * param[i];
    }
}

/* Of what step_elements has left in the cache. */
static inline void round_elements(const struct tv_adamw_weight *w, int64_t first, int64_t end)
{
    const float *param = w->param;
    uint16_t *rounded = w->rounded;
#pragma omp simd
    for (int64_t i = first; i < end; i++)
        rounded[i] = tv_bf16_from_f32(param[i]);
}

static void step_weight(struct tv_stream *stream, const struct tv_adamw_args *a,
                        const struct tv_adamw_weight *w)
{
    const int threads = tv_threads_for(stream, w->count);
    const double c1 = 1 - pow(a->beta1, (double)a->step), c2 = 1 - pow(a->beta2, (double)a->step);
    const struct constants c = {.scale = (float)a->grad_scale,
                                .beta1 = (float)a->beta1,
                                .rest1 = (float)(1 - a->beta1),
                                .beta2 = (float)a->beta2,
                                .rest2 = (float)(1 - a->beta2),
                                .eps = (float)a->eps,
                                .root2 = (float)(1 / sqrt(c2)),
                                .step = (float)(w->lr / c1),
                                .decay = (float)(w->lr * w->weight_decay)};
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t first = 0; first < w->count; first += BLOCK) {
        const int64_t end = first + BLOCK < w->count ? first + BLOCK : w->count;
        step_elements(w, &c, first, end);
        if (w->rounded != NULL)
            round_elements(w, first, end);
    }
}

tv_status_t TV_CPU(adamw)(struct tv_stream *stream, const struct tv_adamw_args *a)
{
    for (int i = 0; i < a->num; i++)
        step_weight(stream, a, &a->of[i]);
    return TV_OK;
}
