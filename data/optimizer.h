/* data/optimizer.h -- the rate of each step, the norm of the whole mesh, and AdamW over a rank's
 * own weights. */
#ifndef TV_DATA_OPTIMIZER_H
#define TV_DATA_OPTIMIZER_H
#include "base/device.h"
#include "kernels/kernels.h"
#include <stdint.h>

TV_BEGIN_C
typedef enum { TV_LR_COSINE, TV_LR_LINEAR, TV_LR_CONSTANT } tv_lr_style_t;
/* Errors: TV_INVALID. "cosine", "linear", "constant". */
TV_MUST_CHECK tv_status_t tv_lr_style_parse(const char *word, tv_lr_style_t *style_out);

struct tv_lr_schedule {
    tv_lr_style_t style;
    double lr, min_lr;
    int64_t warmup_steps, decay_steps;
};
/* DESIGN: step k <= w: lr k/w; else t = min(1, (k-w)/max(1, d-w)), cosine min + (lr-min)(1+cos(pi
 * t))/2, linear lr - t(lr-min), constant lr. step counts from 1. */
double tv_lr_at(const struct tv_lr_schedule *schedule, int64_t step);

struct tv_adamw_config {
    double beta1, beta2, eps, weight_decay;
};
/* A range of the flat arrays with one decay rule. */
struct tv_optimizer_range {
    int64_t first, count;
    int has_decay;
};
struct tv_optimizer; /* opaque: owns both moments, [count] each, zero at the start */
TV_MUST_CHECK tv_status_t tv_optimizer_create(struct tv_stream *stream,
                                              const struct tv_kernels *kernels,
                                              struct tv_adamw_config config, int64_t count,
                                              int num_ranges,
                                              const struct tv_optimizer_range *ranges,
                                              struct tv_optimizer **optimizer_out);
void tv_optimizer_destroy(struct tv_optimizer *optimizer);
/* One AdamW step over params [count] given grads [count], scaled by grad_scale. step counts from 1.
 */
TV_MUST_CHECK tv_status_t tv_optimizer_step(struct tv_optimizer *optimizer, float *params,
                                            const float *grads, double lr, double grad_scale,
                                            int64_t step);
/* The factor that clipping multiplies gradients with: max_norm / (norm + 1e-6) when below 1, else
 * 1; max_norm 0: 1. */
double tv_clip_factor(double norm, double max_norm);
TV_END_C
#endif
