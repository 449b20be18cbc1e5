/* train/run_optimizer.c -- from flags to an update rule and to the learning rate of each group of weights. */
#include "train/run_internal.h"
#include <math.h>

static tv_status_t resolve_rule(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    struct tv_optimizer_config config = {
        .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->adam_eps, .weight_decay = o->weight_decay};
    if (tv_optimizer_kind_parse(o->optimizer, &config.kind) != TV_OK)
        return TV_ERR(TV_INVALID, "--optimizer: %s", tv_error_message());
    if (config.kind == TV_OPTIMIZER_LION) {
        config.beta1 = o->lion_beta1;
        config.beta2 = o->lion_beta2;
    }
    if (config.kind == TV_OPTIMIZER_SGD)
        config.momentum = o->sgd_momentum;
    if (config.kind == TV_OPTIMIZER_MUON)
        config.momentum = o->muon_momentum;
    run->optimizer = config;
    return TV_OK;
}

static tv_status_t resolve_warmup(const struct tv_run *run, struct tv_lr_schedule *lr)
{
    const struct tv_train_options *o = &run->options;
    const int has_fraction = tv_train_options_has(o, "lr-warmup-fraction");
    if (has_fraction && tv_train_options_has(o, "lr-warmup-iters"))
        return TV_ERR(TV_INVALID,
                      "--lr-warmup-iters and --lr-warmup-fraction both say how long the "
                      "warm-up is; give one");
    lr->warmup_steps =
        has_fraction ? llround(o->warmup_fraction * (double)run->decay_iters) : o->warmup_iters;
    lr->warmup_init = o->warmup_init;
    return TV_OK;
}

static tv_status_t resolve_style(const struct tv_run *run, struct tv_lr_schedule *lr)
{
    const struct tv_train_options *o = &run->options;
    if (tv_lr_style_parse(o->lr_decay_style, &lr->style) != TV_OK)
        return TV_ERR(TV_INVALID, "--lr-decay-style: %s", tv_error_message());
    if (tv_wsd_style_parse(o->wsd_decay_style, &lr->wsd_style) != TV_OK)
        return TV_ERR(TV_INVALID, "--lr-wsd-decay-style: %s", tv_error_message());
    if (lr->style == TV_LR_WSD && o->wsd_decay_iters == 0)
        return TV_ERR(TV_INVALID, "--lr-decay-style WSD needs --lr-wsd-decay-iters");
    if (lr->style != TV_LR_WSD &&
        (o->wsd_decay_iters != 0 || tv_train_options_has(o, "lr-wsd-decay-style")))
        return TV_ERR(TV_INVALID, "--lr-wsd-decay-iters and --lr-wsd-decay-style belong to "
                                  "--lr-decay-style WSD");
    lr->wsd_decay_steps = o->wsd_decay_iters;
    lr->decay_steps = run->decay_iters;
    return TV_OK;
}

static tv_status_t check_rates(const struct tv_lr_schedule *lr, const char *prefix)
{
    if (lr->min_lr > lr->lr)
        return TV_ERR(TV_INVALID, "--%smin-lr %g is above --%slr %g", prefix, lr->min_lr, prefix,
                      lr->lr);
    if (lr->warmup_init > lr->lr)
        return TV_ERR(TV_INVALID, "--lr-warmup-init %g is above --%slr %g", lr->warmup_init, prefix,
                      lr->lr);
    return TV_OK;
}

tv_status_t tv_run_resolve_optimizer(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    struct tv_lr_schedule lr = {.lr = o->lr, .min_lr = o->min_lr};
    TV_TRY(resolve_rule(run));
    TV_TRY(resolve_warmup(run, &lr));
    TV_TRY(resolve_style(run, &lr));
    TV_TRY(check_rates(&lr, ""));
    run->lr[TV_LR_BODY] = run->lr[TV_LR_VOCABULARY] = lr;
    if (tv_train_options_has(o, "decoupled-lr"))
        lr.lr = o->decoupled_lr;
    else if (tv_train_options_has(o, "decoupled-min-lr"))
        return TV_ERR(TV_INVALID, "--decoupled-min-lr needs --decoupled-lr");
    if (tv_train_options_has(o, "decoupled-min-lr"))
        lr.min_lr = o->decoupled_min_lr;
    TV_TRY(check_rates(&lr, "decoupled-"));
    run->lr[TV_LR_VOCABULARY] = lr;
    return TV_OK;
}

int tv_run_is_matrix(const struct tv_run *run, const struct tv_param *param)
{
    return run->optimizer.kind == TV_OPTIMIZER_MUON && param->num_dims == 2 && param->unit >= 1 &&
           param->unit <= run->model.num_layers;
}
