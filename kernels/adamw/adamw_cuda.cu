/* adamw_cuda.cu -- AdamW (arXiv:1711.05101), in place: one pass, 16 bytes of each array at a time; arithmetic in fp32,
 * the step's constants in double, rounded once. 28 bytes of memory for each weight. */
#include "kernels/cuda_internal.h"
#include <cmath>

namespace
{
struct adamw_work {
    float *param, *m, *v;
    const float *grad;
    float grad_scale, beta1, rest1, beta2, rest2; /* rest: 1 - beta */
    float lr, decay, eps, unbias1, unbias2;       /* 1 / (1 - beta^step) */
    template <int N> __device__ void run(int64_t, int64_t i) const
    {
        float p[N], first[N], second[N], g[N];
        tv_load_floats<N>(param + i, p);
        tv_load_floats<N>(m + i, first);
        tv_load_floats<N>(v + i, second);
        tv_load_floats<N>(grad + i, g);
#pragma unroll
        for (int k = 0; k < N; k++) {
            g[k] *= grad_scale;
            first[k] = beta1 * first[k] + rest1 * g[k];
            second[k] = beta2 * second[k] + rest2 * g[k] * g[k];
            const float size = sqrtf(second[k] * unbias2) + eps;
            p[k] -= lr * (first[k] * unbias1 / size + decay * p[k]);
        }
        tv_store_floats<N>(param + i, p);
        tv_store_floats<N>(m + i, first);
        tv_store_floats<N>(v + i, second);
    }
};

tv_status_t adamw(tv_stream *stream, const tv_adamw_args *a)
{
    const double c1 = 1 - std::pow(a->beta1, (double)a->step),
                 c2 = 1 - std::pow(a->beta2, (double)a->step);
    const adamw_work work = {a->param,
                             a->m,
                             a->v,
                             a->grad,
                             (float)a->grad_scale,
                             (float)a->beta1,
                             (float)(1 - a->beta1),
                             (float)a->beta2,
                             (float)(1 - a->beta2),
                             (float)a->lr,
                             (float)a->weight_decay,
                             (float)a->eps,
                             (float)(1 / c1),
                             (float)(1 / c2)};
    const bool is_aligned = tv_is_aligned<4>(a->param) && tv_is_aligned<4>(a->m) &&
                            tv_is_aligned<4>(a->v) && tv_is_aligned<4>(a->grad);
    return tv_map<4>(stream, is_aligned, 1, a->count, work);
}
} // namespace

TV_CUDA_ENTRIES_OF_FLOATS(adamw, tv_adamw_args, adamw)
