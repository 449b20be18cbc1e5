/* activation_cpu.c -- gelu and SwiGLU in float vector code. */
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"

#define ROOT_2_OVER_PI 0.797884561f
#define CUBIC          0.044715f

tv_status_t tv_gelu_forward_cpu(struct tv_stream *stream, const struct tv_gelu_args *a)
{
    const int threads = tv_threads_for(stream, a->count);
    const float *in = a->x;
    float *out = a->y;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t i = 0; i < a->count; i++) {
        const float x = in[i];
        out[i] = 0.5f * x * (1.0f + tv_fast_tanh(ROOT_2_OVER_PI * (x + CUBIC * x * x * x)));
    }
    return TV_OK;
}

tv_status_t tv_gelu_backward_cpu(struct tv_stream *stream, const struct tv_gelu_backward_args *a)
{
    const int threads = tv_threads_for(stream, a->count);
    const float *in = a->x, *dy = a->dy;
    float *dx = a->dx;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t i = 0; i < a->count; i++) {
        const float x = in[i];
        const float t = tv_fast_tanh(ROOT_2_OVER_PI * (x + CUBIC * x * x * x));
        const float inner = ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * x * x);
        dx[i] = dy[i] * (0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner);
    }
    return TV_OK;
}

tv_status_t tv_swiglu_forward_cpu(struct tv_stream *stream, const struct tv_swiglu_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *gate = a->gate + r * a->ld_gate, *up = a->up + r * a->ld_up;
        float *y = a->y + r * a->ld_y;
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++)
            y[c] = gate[c] / (1.0f + tv_fast_exp(-gate[c])) * up[c];
    }
    return TV_OK;
}

tv_status_t tv_swiglu_backward_cpu(struct tv_stream *stream,
                                   const struct tv_swiglu_backward_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *gate = a->gate + r * a->ld_gate, *up = a->up + r * a->ld_up,
                    *dy = a->dy + r * a->ld_dy;
        float *d_gate = a->d_gate + r * a->ld_dgate, *d_up = a->d_up + r * a->ld_dup;
#pragma omp simd
        for (int64_t c = 0; c < a->cols; c++) {
            const float g = gate[c], u = up[c], s = 1.0f / (1.0f + tv_fast_exp(-g));
            d_gate[c] = dy[c] * u * s * (1.0f + g * (1.0f - s));
            d_up[c] = dy[c] * g * s;
        }
    }
    return TV_OK;
}
