/* train/stage.c -- what this rank's stage does when the schedule says forward or backward. */
#include "train/trainer_internal.h"

static tv_status_t stage_forward(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    double loss_sum = 0;
    if (call->micro == 0) {
        tr->loss_sum = 0;
        tr->counted = 0;
        tr->next_bucket = 0;
    }
    const int is_end = call->x == NULL || call->y == NULL; /* stages between need no tokens */
    if (is_end)
        TV_TRY(tv_batch_load(tr, call->micro));
    TV_TRY(tv_model_forward(tr->model, call->slot, is_end ? tr->ids : NULL,
                            is_end ? tr->targets : NULL, call->x, call->y, &loss_sum));
    tr->loss_sum += loss_sum;
    return TV_OK;
}

/* The last backward of a unit completes its gradients: start the buckets that end there, move those in flight. */
static tv_status_t unit_done(void *context, int unit)
{
    struct tv_trainer *tr = context;
    while (tr->next_bucket < tr->num_buckets && tr->bucket_last_unit[tr->next_bucket] >= unit)
        TV_TRY(tv_buckets_start(tr->buckets, tr->next_bucket++));
    return tv_buckets_poll(tr->buckets);
}

static tv_status_t stage_backward(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    const struct tv_unit_done done = {tr, unit_done};
    return tv_model_backward(tr->model, call->slot, call->x, call->dy, call->dx,
                             call->is_last_backward ? &done : NULL);
}

struct tv_stage_functions tv_trainer_stage(struct tv_trainer *tr)
{
    return (struct tv_stage_functions){
        .context = tr, .forward = stage_forward, .backward = stage_backward};
}
