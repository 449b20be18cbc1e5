/* train/stage.c -- what this rank's stage does when the schedule says forward or backward. */
#include "train/trainer_internal.h"

static struct tv_model_call model_call(const struct tv_trainer *tr,
                                       const struct tv_stage_call *call)
{
    const struct tv_run *run = tr->run;
    return (struct tv_model_call){.chunk = call->chunk,
                                  .slot = call->slot,
                                  .work = call->work,
                                  .step = tr->step,
                                  .first_sequence = tv_sample_position(
                                      0, tr->global_batch, run->extent.at[TV_DATA],
                                      tr->here.at[TV_DATA], run->micro_batch, call->micro, 0),
                                  .x = call->x,
                                  .y = call->y,
                                  .dy = call->dy,
                                  .dx = call->dx};
}

static tv_status_t stage_forward(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    struct tv_model_call forward = model_call(tr, call);
    double loss_sum = 0;
    forward.loss_sum_out = &loss_sum;
    const struct tv_train_options *o = &tr->run->options;
    const int is_end = call->x == NULL || call->y == NULL; /* what lies between needs no tokens */
    if (is_end || o->resets_position_ids || o->resets_attention_mask) {
        TV_TRY(tv_batch_load(tr, call->micro));
        forward.ids = tr->ids;
        forward.targets = tr->targets;
        forward.positions = tr->positions;
        forward.first_keys = tr->first_keys;
        if (call->y == NULL)
            tr->counted += tv_batch_counted(tr);
    }
    TV_TRY(tv_model_forward(tr->model, &forward));
    tr->loss_sum += loss_sum;
    return TV_OK;
}

static int is_complete(const struct tv_trainer *tr, const struct tv_bucket_units *bucket)
{
    if (bucket->needs_head && !tr->unit_is_done[tr->run->model.num_layers + 1])
        return 0;
    for (int unit = bucket->low; unit <= bucket->high; unit++) {
        const int is_here = tv_run_stage_of_unit(tr->run, unit) == tr->here.at[TV_PIPE];
        if (is_here && !tr->unit_is_done[unit])
            return 0;
    }
    return 1;
}

/* The last backward of a unit completes its gradients: start the buckets that were waiting for it, move those in
 * flight. Replicas walk the same list, so they start buckets in the same order. */
static tv_status_t unit_done(void *context, int unit)
{
    struct tv_trainer *tr = context;
    tr->unit_is_done[unit] = 1;
    if (tr->run->options.is_grad_reduce_late)
        return TV_OK; /* tv_buckets_finish starts them all */
    for (int b = 0; b < tr->sharding.shards.num_buckets; b++) {
        struct tv_bucket_units *bucket = &tr->sharding.bucket_units[b];
        if (bucket->is_started || !is_complete(tr, bucket))
            continue;
        bucket->is_started = 1;
        TV_TRY(tv_buckets_start(tr->buckets, b));
    }
    return tv_buckets_poll(tr->buckets);
}

static tv_status_t stage_backward(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    const struct tv_unit_done done = {tr, unit_done};
    struct tv_model_call backward = model_call(tr, call);
    backward.unit_done = call->is_last_backward && tr->store == NULL ? &done : NULL;
    return tv_model_backward(tr->model, &backward);
}

static tv_status_t stage_backward_input(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    const struct tv_model_call input = model_call(tr, call);
    return tv_model_backward_input(tr->model, &input);
}

static tv_status_t stage_backward_weight(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    const struct tv_unit_done done = {tr, unit_done};
    struct tv_model_call weight = model_call(tr, call);
    weight.unit_done = call->is_last_backward && tr->store == NULL ? &done : NULL;
    return tv_model_backward_weight(tr->model, &weight);
}

struct tv_stage_functions tv_trainer_stage(struct tv_trainer *tr)
{
    return (struct tv_stage_functions){.context = tr,
                                       .forward = stage_forward,
                                       .backward = stage_backward,
                                       .backward_input = stage_backward_input,
                                       .backward_weight = stage_backward_weight};
}

void tv_trainer_begin_pass(struct tv_trainer *tr, int64_t step)
{
    tr->step = step;
    tr->loss_sum = 0;
    tr->counted = 0;
    for (int unit = 0; unit < tr->run->model.num_layers + 2; unit++)
        tr->unit_is_done[unit] = 0;
    for (int b = 0; b < tr->sharding.shards.num_buckets; b++)
        tr->sharding.bucket_units[b].is_started = 0;
}
