/* cross_entropy_ref.c -- softmax cross-entropy over this rank's columns of the
 * vocabulary. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include <math.h>

static float row_max(const tv_element_t *logits, int64_t cols)
{
    float top = -INFINITY;
    for (int64_t c = 0; c < cols; c++) {
        const float logit = tv_load(logits[c]);
        top = logit > top || logit != logit ? logit : top; /* a NaN must reach the loss */
    }
    return top;
}

tv_status_t TV_REF(cross_entropy_forward)(struct tv_stream *stream,
                                          const struct tv_cross_entropy_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *logits = (const tv_element_t *)a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        const float top = row_max(logits, a->cols);
        double sum = 0, rest = 0;
        for (int64_t c = 0; c < a->cols; c++) {
            sum += exp((double)tv_load(logits[c]) - (double)top);
            rest += (double)tv_load(logits[c]) - (double)top;
        }
        a->row_max[r] = a->row_base[r] = top;
        a->row_sum[r] = (float)sum;
        if (a->row_rest != NULL)
            a->row_rest[r] = (float)rest;
        a->row_target[r] =
            a->targets[r] >= 0 && target >= 0 && target < a->cols ? tv_load(logits[target]) : 0;
    }
    return TV_OK;
}

tv_status_t TV_REF(cross_entropy_rebase)(struct tv_stream *stream,
                                         const struct tv_cross_entropy_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows && a->cols > 0; r++) {
        const double below = (double)a->row_base[r] - (double)a->row_max[r];
        a->row_sum[r] = (float)((double)a->row_sum[r] * exp(below));
        if (a->row_rest != NULL)
            a->row_rest[r] = (float)((double)a->row_rest[r] + (double)a->cols * below);
    }
    return TV_OK;
}

tv_status_t TV_REF(cross_entropy_loss)(struct tv_stream *stream,
                                       const struct tv_cross_entropy_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const double max = (double)a->row_max[r], target = (double)a->row_target[r];
        const double lse = max + log((double)a->row_sum[r]);
        double loss = lse - target;
        if (a->row_rest != NULL) /* both logits relative to the maximum */
            loss +=
                a->smoothing * (target - max) - a->smoothing_per_column * (double)a->row_rest[r];
        a->row_lse[r] = (float)lse;
        a->row_loss[r] = a->targets[r] < 0 ? 0 : loss;
    }
    return TV_OK;
}

tv_status_t TV_REF(cross_entropy_backward)(struct tv_stream *stream,
                                           const struct tv_cross_entropy_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        tv_element_t *logits = (tv_element_t *)a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        for (int64_t c = 0; c < a->cols; c++) {
            const double p = exp((double)tv_load(logits[c]) - (double)a->row_lse[r]);
            const double label = (c == target ? 1 - a->smoothing : 0) + a->smoothing_per_column;
            logits[c] = tv_store(a->targets[r] < 0 ? 0 : (float)(p - label));
        }
        for (int64_t c = a->cols; c < a->padded; c++)
            logits[c] = tv_store(0);
    }
    return TV_OK;
}

tv_status_t TV_REF(cross_entropy)(struct tv_stream *stream, const struct tv_cross_entropy_args *a)
{
    TV_TRY(TV_REF(cross_entropy_forward)(stream, a));
    TV_TRY(TV_REF(cross_entropy_rebase)(stream, a));
    TV_TRY(TV_REF(cross_entropy_loss)(stream, a));
    return TV_REF(cross_entropy_backward)(stream, a);
}
