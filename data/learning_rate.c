/* data/learning_rate.c -- warm-up, and how the rate falls afterwards. */
#include "data/learning_rate.h"
#include <math.h>
#include <string.h>

static int find_word(const char *const *words, int num, const char *word)
{
    for (int i = 0; i < num; i++) {
        if (strcmp(word, words[i]) == 0)
            return i;
    }
    return -1;
}

tv_status_t tv_lr_style_parse(const char *word, tv_lr_style_t *style_out)
{
    static const char *const names[] = {[TV_LR_COSINE] = "cosine",
                                        [TV_LR_LINEAR] = "linear",
                                        [TV_LR_CONSTANT] = "constant",
                                        [TV_LR_INVERSE_SQUARE_ROOT] = "inverse-square-root",
                                        [TV_LR_WSD] = "WSD"};
    const int i = find_word(names, TV_LR_WSD + 1, word);
    if (i < 0)
        return TV_ERR(TV_INVALID,
                      "learning rate style '%s' is not one of cosine, linear, constant, "
                      "inverse-square-root, WSD",
                      word);
    *style_out = (tv_lr_style_t)i;
    return TV_OK;
}

tv_status_t tv_wsd_style_parse(const char *word, tv_wsd_style_t *style_out)
{
    static const char *const names[] = {[TV_WSD_EXPONENTIAL] = "exponential",
                                        [TV_WSD_LINEAR] = "linear",
                                        [TV_WSD_COSINE] = "cosine",
                                        [TV_WSD_MINUS_SQRT] = "minus_sqrt"};
    const int i = find_word(names, TV_WSD_MINUS_SQRT + 1, word);
    if (i < 0)
        return TV_ERR(TV_INVALID,
                      "WSD decay style '%s' is not one of exponential, linear, cosine, minus_sqrt",
                      word);
    *style_out = (tv_wsd_style_t)i;
    return TV_OK;
}

static double cosine(double t)
{
    const double pi = 3.14159265358979323846;
    return (1 + cos(pi * t)) / 2;
}

/* How much of lr - min_lr is left at `step`, 0..1. */
static double wsd_factor(const struct tv_lr_schedule *schedule, int64_t step)
{
    const int64_t first = schedule->decay_steps - schedule->wsd_decay_steps;
    if (step <= first)
        return 1;
    const int64_t num = schedule->wsd_decay_steps > 1 ? schedule->wsd_decay_steps : 1;
    const double t = fmin(1, (double)(step - first) / (double)num);
    switch (schedule->wsd_style) {
    case TV_WSD_EXPONENTIAL:
        return 2 * pow(0.5, t) - 1;
    case TV_WSD_LINEAR:
        return 1 - t;
    case TV_WSD_COSINE:
        return cosine(t);
    case TV_WSD_MINUS_SQRT:
        return 1 - sqrt(t);
    }
    return 1;
}

/* The rate behind the warm-up, but for rounding. */
static double decayed(const struct tv_lr_schedule *schedule, int64_t step)
{
    const double lr = schedule->lr, min_lr = schedule->min_lr;
    const int64_t w = schedule->warmup_steps;
    const int64_t decay = schedule->decay_steps - w > 1 ? schedule->decay_steps - w : 1;
    const double t = fmin(1, (double)(step - w) / (double)decay);
    switch (schedule->style) {
    case TV_LR_COSINE:
        return min_lr + (lr - min_lr) * cosine(t);
    case TV_LR_LINEAR:
        return lr - t * (lr - min_lr);
    case TV_LR_CONSTANT:
        return lr;
    case TV_LR_INVERSE_SQUARE_ROOT:
        return lr * sqrt((double)(w > 1 ? w : 1) / (double)step);
    case TV_LR_WSD:
        return min_lr + (lr - min_lr) * wsd_factor(schedule, step);
    }
    return lr;
}

double tv_lr_at(const struct tv_lr_schedule *schedule, int64_t step)
{
    if (step <= schedule->warmup_steps) {
        const double part = (double)step / (double)schedule->warmup_steps;
        return schedule->warmup_init * (1 - part) + schedule->lr * part; /* at the end exactly lr */
    }
    if (schedule->style == TV_LR_CONSTANT)
        return schedule->lr; /* whatever min_lr says */
    return fmax(schedule->min_lr, fmin(schedule->lr, decayed(schedule, step)));
}
