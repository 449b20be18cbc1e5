/* activation_ref.c -- gelu in its tanh form (arXiv:1606.08415) and SwiGLU (arXiv:2002.05202).
 *
 * gelu: u = sqrt(2/pi)(x + 0.044715 x^3), y = x/2 (1 + tanh u), y' = (1 + tanh u)/2 + x/2 (1 -
 * tanh^2 u) u'. SwiGLU: y = g s(g) u with s the sigmoid; dy/dg = u s(g) (1 + g (1 - s(g))), dy/du =
 * g s(g). */
#include "kernels/kernels_internal.h"
#include <math.h>

static const double root_2_over_pi = 0.79788456080286535588;
static const double cubic = 0.044715;

tv_status_t tv_gelu_forward_ref(struct tv_stream *stream, const struct tv_gelu_args *a)
{
    (void)stream;
    for (int64_t i = 0; i < a->count; i++) {
        const double x = (double)a->x[i];
        a->y[i] = (float)(0.5 * x * (1 + tanh(root_2_over_pi * (x + cubic * x * x * x))));
    }
    return TV_OK;
}

tv_status_t tv_gelu_backward_ref(struct tv_stream *stream, const struct tv_gelu_backward_args *a)
{
    (void)stream;
    for (int64_t i = 0; i < a->count; i++) {
        const double x = (double)a->x[i];
        const double t = tanh(root_2_over_pi * (x + cubic * x * x * x));
        const double slope =
            0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root_2_over_pi * (1 + 3 * cubic * x * x);
        a->dx[i] = (float)((double)a->dy[i] * slope);
    }
    return TV_OK;
}

tv_status_t tv_swiglu_forward_ref(struct tv_stream *stream, const struct tv_swiglu_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        for (int64_t c = 0; c < a->cols; c++) {
            const double gate = (double)a->gate[r * a->ld_gate + c],
                         up = (double)a->up[r * a->ld_up + c];
            a->y[r * a->ld_y + c] = (float)(gate / (1 + exp(-gate)) * up);
        }
    }
    return TV_OK;
}

tv_status_t tv_swiglu_backward_ref(struct tv_stream *stream,
                                   const struct tv_swiglu_backward_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        for (int64_t c = 0; c < a->cols; c++) {
            const double gate = (double)a->gate[r * a->ld_gate + c],
                         up = (double)a->up[r * a->ld_up + c];
            const double dy = (double)a->dy[r * a->ld_dy + c], s = 1 / (1 + exp(-gate));
            a->d_gate[r * a->ld_dgate + c] = (float)(dy * up * s * (1 + gate * (1 - s)));
            a->d_up[r * a->ld_dup + c] = (float)(dy * gate * s);
        }
    }
    return TV_OK;
}
