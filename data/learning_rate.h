/* data/learning_rate.h -- the learning rate of each step: a function of the step's number alone. */
#ifndef TV_DATA_LEARNING_RATE_H
#define TV_DATA_LEARNING_RATE_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
typedef enum {
    TV_LR_COSINE,
    TV_LR_LINEAR,
    TV_LR_CONSTANT,
    TV_LR_INVERSE_SQUARE_ROOT,
    TV_LR_WSD
} tv_lr_style_t;
/* The last part of warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395). */
typedef enum { TV_WSD_EXPONENTIAL, TV_WSD_LINEAR, TV_WSD_COSINE, TV_WSD_MINUS_SQRT } tv_wsd_style_t;

/* Megatron-LM's words: "cosine", "linear", "constant", "inverse-square-root", "WSD"; "exponential",
 * "linear", "cosine", "minus_sqrt". Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_lr_style_parse(const char *word, tv_lr_style_t *style_out);
TV_MUST_CHECK tv_status_t tv_wsd_style_parse(const char *word, tv_wsd_style_t *style_out);

struct tv_lr_schedule {
    tv_lr_style_t style;
    double lr, min_lr, warmup_init; /* 0 <= warmup_init <= lr, min_lr <= lr */
    int64_t warmup_steps, decay_steps;
    tv_wsd_style_t wsd_style;
    int64_t wsd_decay_steps;
};
/* step counts from 1; w = warmup_steps, d = decay_steps, n = wsd_decay_steps.
 *   step <= w            warmup_init (1 - step/w) + lr step/w
 *   constant             lr
 *   inverse-square-root  max(min_lr, lr sqrt(max(w, 1) / step)), for ever: d is not read
 * else min_lr + f (lr - min_lr), with t = min(1, (step - w) / max(1, d - w)) in
 *   cosine               f = (1 + cos(pi t)) / 2
 *   linear               f = 1 - t
 * and for WSD f = 1 up to step d - n, then with t = min(1, (step - (d - n)) / n) the f of its style:
 * linear and cosine as above, exponential 2 * 0.5^t - 1, minus_sqrt 1 - sqrt(t).
 * Never outside [min_lr, lr] after the warm-up. */
double tv_lr_at(const struct tv_lr_schedule *schedule, int64_t step);
TV_END_C
#endif
