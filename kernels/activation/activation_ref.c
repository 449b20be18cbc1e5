/* activation_ref.c -- gelu in its tanh form (arXiv:1606.08415) and SwiGLU (arXiv:2002.05202).
 *
 * gelu: u = sqrt(2/pi)(x + 0.044715 x^3), y = x/2 (1 + tanh u), y' = (1 + tanh u)/2 + x/2 (1 -
 * tanh^2 u) u'. SwiGLU: y = g s(g) u with s the sigmoid; dy/dg = u s(g) (1 + g (1 - s(g))), dy/du =
 * g s(g). */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include <math.h>

static const double root_2_over_pi = 0.79788456080286535588;
static const double cubic = 0.044715;

tv_status_t TV_REF(gelu_forward)(struct tv_stream *stream, const struct tv_gelu_args *a)
{
    (void)stream;
    const tv_element_t *in = a->x;
    tv_element_t *y = a->y;
    for (int64_t i = 0; i < a->count; i++) {
        const double x = (double)tv_load(in[i]);
        y[i] = tv_store((float)(0.5 * x * (1 + tanh(root_2_over_pi * (x + cubic * x * x * x)))));
    }
    return TV_OK;
}

tv_status_t TV_REF(gelu_backward)(struct tv_stream *stream, const struct tv_gelu_backward_args *a)
{
    const tv_element_t *in = a->x, *dy = a->dy;
    tv_element_t *dx = a->dx;
    for (int64_t i = 0; i < a->count; i++) {
        const double x = (double)tv_load(in[i]);
        const double t = tanh(root_2_over_pi * (x + cubic * x * x * x));
        const double slope =
            0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root_2_over_pi * (1 + 3 * cubic * x * x);
        dx[i] = tv_store((float)((double)tv_load(dy[i]) * slope));
    }
    if (a->dbias == NULL)
        return TV_OK;
    const struct tv_bias_backward_args bias = {.rows = a->count / a->cols,
                                               .cols = a->cols,
                                               .ld_dy = a->cols,
                                               .dy = dx,
                                               .accumulate = a->accumulate,
                                               .dbias = a->dbias};
    return TV_REF(bias_backward)(stream, &bias);
}

tv_status_t TV_REF(swiglu_forward)(struct tv_stream *stream, const struct tv_swiglu_args *a)
{
    (void)stream;
    const tv_element_t *gates = a->gate, *ups = a->up;
    tv_element_t *y = a->y;
    for (int64_t r = 0; r < a->rows; r++) {
        for (int64_t c = 0; c < a->cols; c++) {
            const double gate = (double)tv_load(gates[r * a->ld_gate + c]),
                         up = (double)tv_load(ups[r * a->ld_up + c]);
            y[r * a->ld_y + c] = tv_store((float)(gate / (1 + exp(-gate)) * up));
        }
    }
    return TV_OK;
}

tv_status_t TV_REF(swiglu_backward)(struct tv_stream *stream,
                                    const struct tv_swiglu_backward_args *a)
{
    (void)stream;
    const tv_element_t *gates = a->gate, *ups = a->up, *dys = a->dy;
    tv_element_t *d_gate = a->d_gate, *d_up = a->d_up;
    for (int64_t r = 0; r < a->rows; r++) {
        for (int64_t c = 0; c < a->cols; c++) {
            const double gate = (double)tv_load(gates[r * a->ld_gate + c]),
                         up = (double)tv_load(ups[r * a->ld_up + c]);
            const double dy = (double)tv_load(dys[r * a->ld_dy + c]), s = 1 / (1 + exp(-gate));
            d_gate[r * a->ld_dgate + c] = tv_store((float)(dy * up * s * (1 + gate * (1 - s))));
            d_up[r * a->ld_dup + c] = tv_store((float)(dy * gate * s));
        }
    }
    return TV_OK;
}
