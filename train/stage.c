/* train/stage.c -- what this rank's stage does when the schedule says forward or backward. */
#include "train/file_faults.h"
#include "train/trainer_internal.h"
#include <inttypes.h>

/* For the sentence of a wait that has no end. The pipe axis says its own (pipeline/executor_messages.c). */
static void say_action(struct tv_trainer *tr, const struct tv_stage_call *call, const char *action)
{
    static const enum tv_mesh_axis axes[] = {TV_TENSOR, TV_DATA};
    for (size_t i = 0; i < sizeof(axes) / sizeof(axes[0]); i++) {
        struct tv_comm *comm = tv_mesh_comm(tr->mesh, axes[i]);
        if (tr->step == 0)
            tv_comm_set_context(comm, "evaluation, stage %d, chunk %d, micro-batch %d",
                                tr->here.at[TV_PIPE], call->chunk, call->micro);
        else
            tv_comm_set_context(comm, "step %" PRId64 ", stage %d, chunk %d, %s of micro-batch %d",
                                tr->step, tr->here.at[TV_PIPE], call->chunk, action, call->micro);
    }
}

void tv_trainer_say_phase(struct tv_trainer *tr, const char *phase)
{
    struct tv_comm *const comms[] = {tv_mesh_comm(tr->mesh, TV_TENSOR),
                                     tv_mesh_comm(tr->mesh, TV_DATA), tv_mesh_world(tr->mesh),
                                     tr->tied};
    for (size_t i = 0; i < sizeof(comms) / sizeof(comms[0]); i++) {
        if (comms[i] != NULL)
            tv_comm_set_context(comms[i], "step %" PRId64 ", stage %d, %s", tr->step,
                                tr->here.at[TV_PIPE], phase);
    }
}

static struct tv_model_call model_call(struct tv_trainer *tr, const struct tv_stage_call *call,
                                       const char *action)
{
    const struct tv_run *run = tr->run;
    say_action(tr, call, action);
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

/* Ids were checked when the file was opened; it may have been written to since. */
static tv_status_t check_ids(const struct tv_trainer *tr)
{
    const int64_t count = tr->run->micro_batch * tr->run->seq_length;
    int64_t largest = 0, vocab_size = tr->run->model.vocab_size;
    for (int64_t i = 0; i < count; i++) {
        largest = tr->ids[i] > largest ? tr->ids[i] : largest;
        largest = tr->targets[i] > largest ? tr->targets[i] : largest;
    }
    if (largest < vocab_size)
        return TV_OK;
    return TV_ERR(TV_BAD_FILE,
                  "--%s: token %" PRId64 " is beyond the vocabulary of %" PRId64
                  "; a file has changed since the run began",
                  tr->step == 0 ? "valid-data" : "data", largest, vocab_size);
}

struct load {
    struct tv_trainer *tr;
    int micro;
};

static tv_status_t load_batch(void *context)
{
    const struct load *load = context;
    TV_TRY(tv_batch_load(load->tr, load->micro));
    return check_ids(load->tr);
}

static tv_status_t stage_forward(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    struct tv_model_call forward = model_call(tr, call, "forward");
    double loss_sum = 0;
    if (tv_trainer_is_root(tr))
        tv_stop_announce();
    forward.loss_sum_out = &loss_sum; /* of an evaluation; else backward has it */
    const struct tv_train_options *o = &tr->run->options;
    const int is_end = call->x == NULL || call->y == NULL; /* what lies between needs no tokens */
    if (is_end || o->resets_position_ids || o->resets_attention_mask) {
        struct load load = {tr, call->micro};
        TV_TRY(tv_file_guard(load_batch, &load));
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
    struct tv_model_call backward = model_call(tr, call, "backward");
    double loss_sum = 0;
    backward.unit_done = call->is_last_backward && tr->store == NULL ? &done : NULL;
    backward.loss_sum_out = &loss_sum;
    TV_TRY(tv_model_backward(tr->model, &backward));
    tr->loss_sum += loss_sum;
    return TV_OK;
}

static tv_status_t stage_backward_input(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    struct tv_model_call input = model_call(tr, call, "backward (input)");
    double loss_sum = 0;
    input.loss_sum_out = &loss_sum;
    TV_TRY(tv_model_backward_input(tr->model, &input));
    tr->loss_sum += loss_sum;
    return TV_OK;
}

static tv_status_t stage_backward_weight(void *context, const struct tv_stage_call *call)
{
    struct tv_trainer *tr = context;
    const struct tv_unit_done done = {tr, unit_done};
    struct tv_model_call weight = model_call(tr, call, "backward (weight)");
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
