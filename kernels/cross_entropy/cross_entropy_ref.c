/* cross_entropy_ref.c -- the three steps of softmax cross-entropy over this rank's columns of the
 * vocabulary. */
#include "kernels/kernels_internal.h"
#include <math.h>

tv_status_t tv_cross_entropy_max_ref(struct tv_stream *stream,
                                     const struct tv_cross_entropy_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        float top = -INFINITY;
        for (int64_t c = 0; c < a->cols; c++) {
            const float logit = a->logits[r * a->ld + c];
            top = logit > top || logit != logit ? logit : top; /* a NaN must reach the loss */
        }
        a->row_max[r] = top;
    }
    return TV_OK;
}

tv_status_t tv_cross_entropy_sum_ref(struct tv_stream *stream,
                                     const struct tv_cross_entropy_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        const float *logits = a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        double sum = 0, rest = 0;
        for (int64_t c = 0; c < a->cols; c++) {
            sum += exp((double)logits[c] - (double)a->row_max[r]);
            rest += (double)logits[c] - (double)a->row_max[r];
        }
        a->row_sum[r] = (float)sum;
        if (a->row_rest != NULL)
            a->row_rest[r] = (float)rest;
        a->row_target[r] =
            a->targets[r] >= 0 && target >= 0 && target < a->cols ? logits[target] : 0;
    }
    return TV_OK;
}

tv_status_t tv_cross_entropy_backward_ref(struct tv_stream *stream,
                                          const struct tv_cross_entropy_args *a)
{
    (void)stream;
    for (int64_t r = 0; r < a->rows; r++) {
        float *logits = a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        for (int64_t c = 0; c < a->cols; c++) {
            const double p = exp((double)logits[c] - (double)a->row_lse[r]);
            const double label = (c == target ? 1 - a->smoothing : 0) + a->smoothing_per_column;
            logits[c] = a->targets[r] < 0 ? 0 : (float)(p - label);
        }
    }
    return TV_OK;
}
