/* data/optimizer.c -- learning rates, clipping, and AdamW over ranges of a rank's flat arrays. */
#include "data/optimizer.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct tv_optimizer {
    struct tv_stream *stream;         /* borrowed */
    const struct tv_kernels *kernels; /* borrowed */
    struct tv_adamw_config config;
    struct tv_buffer m, v; /* moments, fp32 [count] */
    int num_ranges;
    struct tv_optimizer_range *ranges; /* [num_ranges] */
};

tv_status_t tv_lr_style_parse(const char *word, tv_lr_style_t *style_out)
{
    static const char *const names[] = {
        [TV_LR_COSINE] = "cosine", [TV_LR_LINEAR] = "linear", [TV_LR_CONSTANT] = "constant"};
    for (int i = TV_LR_COSINE; i <= TV_LR_CONSTANT; i++) {
        if (strcmp(word, names[i]) == 0) {
            *style_out = (tv_lr_style_t)i;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "learning rate style '%s' is not one of cosine, linear, constant",
                  word);
}

double tv_lr_at(const struct tv_lr_schedule *schedule, int64_t step)
{
    const double pi = 3.14159265358979323846;
    const double lr = schedule->lr, min_lr = schedule->min_lr;
    const int64_t w = schedule->warmup_steps;
    if (step <= w)
        return lr * ((double)step / (double)w); /* exactly lr at the end of the warm-up */
    if (schedule->style == TV_LR_CONSTANT)
        return lr;
    const int64_t decay = schedule->decay_steps - w > 1 ? schedule->decay_steps - w : 1;
    const double t = fmin(1, (double)(step - w) / (double)decay);
    const double rate = schedule->style == TV_LR_COSINE
                            ? min_lr + (lr - min_lr) * (1 + cos(pi * t)) / 2
                            : lr - t * (lr - min_lr);
    return fmax(min_lr, fmin(lr, rate)); /* rounding must not leave the interval */
}

double tv_clip_factor(double norm, double max_norm)
{
    if (max_norm == 0)
        return 1;
    const double factor = max_norm / (norm + 1e-6);
    return factor < 1 ? factor : 1;
}

static tv_status_t check_ranges(int64_t count, int num_ranges,
                                const struct tv_optimizer_range *ranges)
{
    int64_t end = 0;
    for (int i = 0; i < num_ranges; i++) {
        if (ranges[i].first < end || ranges[i].count < 0 ||
            ranges[i].count > count - ranges[i].first)
            return TV_ERR(TV_INTERNAL,
                          "optimizer range %d: [%" PRId64 ", +%" PRId64
                          ") overlaps its predecessor or leaves [0, %" PRId64 ")",
                          i, ranges[i].first, ranges[i].count, count);
        end = ranges[i].first + ranges[i].count;
    }
    return TV_OK;
}

tv_status_t tv_optimizer_create(struct tv_stream *stream, const struct tv_kernels *kernels,
                                struct tv_adamw_config config, int64_t count, int num_ranges,
                                const struct tv_optimizer_range *ranges,
                                struct tv_optimizer **optimizer_out)
{
    TV_TRY(check_ranges(count, num_ranges, ranges));
    struct tv_device *device = tv_stream_device(stream);
    const size_t bytes = (size_t)count * sizeof(float);
    tv_status_t status = TV_OK;
    struct tv_optimizer *optimizer = calloc(1, sizeof(*optimizer));
    if (optimizer == NULL)
        return TV_ERR(TV_NO_MEMORY, "optimizer: %zu bytes", sizeof(*optimizer));
    optimizer->stream = stream;
    optimizer->kernels = kernels;
    optimizer->config = config;
    optimizer->num_ranges = num_ranges;
    optimizer->ranges = calloc((size_t)num_ranges + 1, sizeof(*ranges));
    if (optimizer->ranges == NULL) {
        status = TV_ERR(TV_NO_MEMORY, "optimizer: %d ranges", num_ranges);
        goto fail;
    }
    for (int i = 0; i < num_ranges; i++)
        optimizer->ranges[i] = ranges[i];
    status = tv_buffer_create(device, bytes, TV_MEM_OPTIMIZER, &optimizer->m);
    if (status == TV_OK)
        status = tv_buffer_create(device, bytes, TV_MEM_OPTIMIZER, &optimizer->v);
    if (status != TV_OK)
        goto fail;
    *optimizer_out = optimizer;
    return TV_OK;

fail:
    tv_optimizer_destroy(optimizer);
    return status;
}

void tv_optimizer_destroy(struct tv_optimizer *optimizer)
{
    if (optimizer == NULL)
        return;
    tv_buffer_destroy(&optimizer->m);
    tv_buffer_destroy(&optimizer->v);
    free(optimizer->ranges);
    free(optimizer);
}

tv_status_t tv_optimizer_step(struct tv_optimizer *optimizer, float *params, const float *grads,
                              double lr, double grad_scale, int64_t step)
{
    const struct tv_adamw_config *config = &optimizer->config;
    if (step < 1)
        return TV_ERR(TV_INTERNAL, "optimizer step %" PRId64 ": steps count from 1", step);
    for (int i = 0; i < optimizer->num_ranges; i++) {
        const struct tv_optimizer_range *range = &optimizer->ranges[i];
        const struct tv_adamw_args args = {
            .count = range->count,
            .param = params + range->first,
            .m = (float *)optimizer->m.data + range->first,
            .v = (float *)optimizer->v.data + range->first,
            .grad = grads + range->first,
            .lr = lr,
            .beta1 = config->beta1,
            .beta2 = config->beta2,
            .eps = config->eps,
            .weight_decay = range->has_decay ? config->weight_decay : 0,
            .grad_scale = grad_scale,
            .step = step,
        };
        TV_TRY(optimizer->kernels->adamw(optimizer->stream, &args));
    }
    return TV_OK;
}
