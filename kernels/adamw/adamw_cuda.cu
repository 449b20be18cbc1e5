/* adamw_cuda.cu -- AdamW (arXiv:1711.05101), in place: one pass, 16 bytes of each array at a time; arithmetic in fp32,
 * the step's constants in double, rounded once. 28 bytes of memory for each weight, 30 where a bf16 copy is written.
 * Many weights in one launch. */
#include "kernels/cuda_internal.h"
#include <cmath>

namespace
{
constexpr int threads = 256, packs = 4, most_weights = 56;
constexpr int64_t block_count = threads * packs * 4; /* elements of a block */

struct weight {
    float *param, *m, *v;
    const float *grad;
    __nv_bfloat16 *rounded; /* or NULL */
    int64_t count;
    float lr, decay;
    bool is_aligned;
};
typedef tv_batch<weight, most_weights> weight_batch;

struct constants {
    float grad_scale, beta1, rest1, beta2, rest2; /* rest: 1 - beta */
    float eps, unbias1, unbias2;                  /* 1 / (1 - beta^step) */
};
static_assert(sizeof(weight_batch) + sizeof(constants) <= 4096, "arguments of a kernel");

template <int N> __device__ void step_elements(const weight &w, const constants &c, int64_t i)
{
    float p[N], first[N], second[N], g[N];
    tv_load_floats<N>(w.param + i, p);
    tv_load_floats<N>(w.m + i, first);
    tv_load_floats<N>(w.v + i, second);
    tv_load_floats<N>(w.grad + i, g);
#pragma unroll
    for (int k = 0; k < N; k++) {
        g[k] *= c.grad_scale;
        first[k] = c.beta1 * first[k] + c.rest1 * g[k];
        second[k] = c.beta2 * second[k] + c.rest2 * g[k] * g[k];
        const float size = sqrtf(second[k] * c.unbias2) + c.eps;
        p[k] -= w.lr * (first[k] * c.unbias1 / size + w.decay * p[k]);
    }
    tv_store_floats<N>(w.param + i, p);
    tv_store_floats<N>(w.m + i, first);
    tv_store_floats<N>(w.v + i, second);
    if (w.rounded != nullptr)
        tv_store_floats<N>(w.rounded + i, p);
}

__global__ void __launch_bounds__(threads)
    adamw_kernel(const __grid_constant__ weight_batch batch, constants c)
{
    const int which = tv_batch_find(batch);
    const weight w = batch.of[which];
    const int64_t first = (int64_t)(blockIdx.x - batch.first_block[which]) * block_count;
#pragma unroll 1
    for (int pack = 0; pack < packs; pack++) {
        const int64_t i = first + ((int64_t)pack * threads + threadIdx.x) * 4;
        if (w.is_aligned && i + 4 <= w.count)
            step_elements<4>(w, c, i);
        else
            for (int64_t k = i; k < i + 4 && k < w.count; k++)
                step_elements<1>(w, c, k);
    }
}

weight weight_of(const tv_adamw_weight &w)
{
    __nv_bfloat16 *const rounded = static_cast<__nv_bfloat16 *>(w.rounded);
    return {w.param,
            w.m,
            w.v,
            w.grad,
            rounded,
            w.count,
            (float)w.lr,
            (float)w.weight_decay,
            tv_is_aligned<4>(w.param) && tv_is_aligned<4>(w.m) && tv_is_aligned<4>(w.v) &&
                tv_is_aligned<4>(w.grad) && tv_is_aligned<4>(rounded)};
}

tv_status_t adamw(tv_stream *stream, const tv_adamw_args *a)
{
    const double c1 = 1 - std::pow(a->beta1, (double)a->step),
                 c2 = 1 - std::pow(a->beta2, (double)a->step);
    const constants c = {(float)a->grad_scale, (float)a->beta1,       (float)(1 - a->beta1),
                         (float)a->beta2,      (float)(1 - a->beta2), (float)a->eps,
                         (float)(1 / c1),      (float)(1 / c2)};
    for (int first = 0; first < a->num; first += most_weights) {
        weight_batch batch = {};
        for (int i = first; i < a->num && batch.num < most_weights; i++)
            tv_batch_add(batch, weight_of(a->of[i]), tv_ceil_div(a->of[i].count, block_count));
        TV_TRY(tv_launch(adamw_kernel, batch.first_block[batch.num], threads, 0, stream, batch, c));
    }
    return TV_OK;
}
} // namespace

TV_CUDA_ENTRIES_OF_FLOATS(adamw, tv_adamw_args, adamw)
