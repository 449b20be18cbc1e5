/* activation_cpu.c -- gelu and SwiGLU in float vector code.
 *
 * (1 + tanh u) / 2 is the sigmoid of 2u, which keeps its relative precision where tanh u is near
 * -1: gelu y = x s(2u), y' = s + 2 x s (1 - s) u'. 1 - s = e s with e = exp(-2u) does not
 * cancel. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"

/* -2u = x (MINUS_CUBIC x^2 - LINEAR) */
#define LINEAR      1.595769122f /* 2 sqrt(2 / pi) */
#define MINUS_CUBIC (-LINEAR * 0.044715f)

tv_status_t TV_CPU(gelu_forward)(struct tv_stream *stream, const struct tv_gelu_args *a)
{
    const int threads = tv_threads_for(stream, a->count);
    const tv_element_t *in = a->x;
    tv_element_t *out = a->y;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : threads > 1)
    for (int64_t i = 0; i < a->count; i++) {
        const float x = tv_load(in[i]);
        const float cubic = MINUS_CUBIC * x * x;
        out[i] = tv_store(x / (1.0f + tv_fast_exp(x * (cubic - LINEAR))));
    }
    return TV_OK;
}

tv_status_t TV_CPU(gelu_backward)(struct tv_stream *stream, const struct tv_gelu_backward_args *a)
{
    const int threads = tv_threads_for(stream, a->count);
    const tv_element_t *in = a->x, *dy = a->dy;
    tv_element_t *dx = a->dx;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : threads > 1)
    for (int64_t i = 0; i < a->count; i++) {
        const float x = tv_load(in[i]);
        const float cubic = MINUS_CUBIC * x * x, slope = LINEAR - 3.0f * cubic;
        const float e = tv_fast_exp(x * (cubic - LINEAR)), s = 1.0f / (1.0f + e);
        dx[i] = tv_store(tv_load(dy[i]) * (s + x * s * (e * s) * slope));
    }
    if (a->dbias == NULL)
        return TV_OK;
    const struct tv_bias_backward_args bias = {.rows = a->count / a->cols,
                                               .cols = a->cols,
                                               .ld_dy = a->cols,
                                               .dy = dx,
                                               .accumulate = a->accumulate,
                                               .dbias = a->dbias};
    return TV_CPU(bias_backward)(stream, &bias);
}

tv_status_t TV_CPU(swiglu_forward)(struct tv_stream *stream, const struct tv_swiglu_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *gate = (const tv_element_t *)a->gate + r * a->ld_gate,
                           *up = (const tv_element_t *)a->up + r * a->ld_up;
        tv_element_t *y = (tv_element_t *)a->y + r * a->ld_y;
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++) {
            const float g = tv_load(gate[c]);
            y[c] = tv_store(g / (1.0f + tv_fast_exp(-g)) * tv_load(up[c]));
        }
    }
    return TV_OK;
}

tv_status_t TV_CPU(swiglu_backward)(struct tv_stream *stream,
                                    const struct tv_swiglu_backward_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *gate = (const tv_element_t *)a->gate + r * a->ld_gate,
                           *up = (const tv_element_t *)a->up + r * a->ld_up,
                           *dy = (const tv_element_t *)a->dy + r * a->ld_dy;
        tv_element_t *d_gate = (tv_element_t *)a->d_gate + r * a->ld_dgate,
                     *d_up = (tv_element_t *)a->d_up + r * a->ld_dup;
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++) {
            const float g = tv_load(gate[c]), u = tv_load(up[c]), d = tv_load(dy[c]);
            const float e = tv_fast_exp(-g), s = 1.0f / (1.0f + e);
            d_gate[c] = tv_store(d * u * s * (1.0f + g * (e * s)));
            d_up[c] = tv_store(d * g * s);
        }
    }
    return TV_OK;
}
