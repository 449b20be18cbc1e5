/* train/step.c -- one optimizer step as one rank sees it; all ranks run this same code.
 *
 * This rank holds one stage of the layers, 1/T of each matrix, and reads 1/D of the batch. Tokens are [B, S] per
 * micro-batch; loss and gradients are sums over counted tokens until they are divided, once, by their number. */
#include "base/clock.h"
#include "base/log.h"
#include "base/span.h"
#include "train/trainer_internal.h"
#include <inttypes.h>
#include <math.h>

/* What the mesh adds up once per step, in one sum over all ranks. */
enum {
    SUM_LOSS,
    SUM_COUNTED,
    SUM_SQUARES,
    SUM_WINDOW,
    SUM_BUSY,
    SUM_WARMUP,
    SUM_WAIT,
    SUM_DRAIN,
    NUM_SUMS
};
_Static_assert((int)NUM_SUMS == (int)TV_STEP_SUMS, "account.h counts them");

/* Each number is contributed by exactly one of the ranks that hold it. */
static tv_status_t mesh_sums(struct tv_trainer *tr, const struct tv_rank_time *walk,
                             double sums[NUM_SUMS])
{
    const struct tv_mesh_coord here = tr->here;
    const int counts = here.at[TV_PIPE] == tr->head_stage && here.at[TV_TENSOR] == 0;
    double squares = 0;
    TV_TRY(tv_model_grad_square_sum(tr->model, tr->sharding.num_pieces, tr->grad_pieces, &squares));
    sums[SUM_LOSS] = counts ? tr->loss_sum : 0;
    sums[SUM_COUNTED] = counts ? (double)tr->counted : 0;
    /* The first replicas own it all together; what the others own are copies. */
    sums[SUM_SQUARES] = here.at[TV_DATA] < tr->run->zero_group ? squares : 0;
    sums[SUM_WINDOW] = walk->window;
    sums[SUM_BUSY] = walk->busy;
    sums[SUM_WARMUP] = walk->warmup;
    sums[SUM_WAIT] = walk->wait;
    sums[SUM_DRAIN] = walk->drain;
    return tv_comm_all_reduce_now(tv_mesh_world(tr->mesh), sums, NUM_SUMS, TV_F64, TV_SUM);
}

/* Weights that two stages or several tensor ranks hold get one gradient, each piece from those that own it. */
static tv_status_t sync_shared(struct tv_trainer *tr)
{
    const int num_pieces = tr->sharding.num_pieces;
    TV_TRY(tv_model_sync_replicated(tr->model, num_pieces, tr->grad_pieces));
    for (int i = 0; tr->tied != NULL && i < num_pieces; i++) {
        const struct tv_grad_piece *piece = &tr->grad_pieces[i];
        if (piece->local == tr->tied_local)
            TV_TRY(tv_comm_all_reduce_wait(tr->tied, piece->grad, piece->count, TV_F32, TV_SUM,
                                           tr->stream));
    }
    return TV_OK;
}

static tv_status_t sum_gradients(struct tv_trainer *tr)
{
    int span;
    TV_TRY(tv_span_begin(tr->stream, "sum of gradients", &span));
    TV_TRY(tr->store != NULL ? tv_store_finish(tr->store) : tv_buckets_finish(tr->buckets));
    TV_TRY(sync_shared(tr));
    return tv_span_end(tr->stream, span);
}

static tv_status_t look_at_memory(struct tv_trainer *tr)
{
    tr->peak_memory = (int64_t)tv_device_peak_bytes(tr->device);
    return tv_comm_all_reduce_now(tv_mesh_world(tr->mesh), &tr->peak_memory, 1, TV_I64, TV_MAX);
}

static void fill_report(struct tv_trainer *tr, int64_t step, const double sums[NUM_SUMS],
                        struct tv_step_report *report)
{
    const struct tv_run *run = tr->run;
    const double now = tv_clock_seconds();
    const double tokens = (double)(tr->global_batch * run->seq_length);
    report->step = step;
    report->global_batch = tr->global_batch;
    report->consumed_samples = tr->consumed;
    report->step_seconds = now - tr->step_started_at;
    report->tokens_per_second = tokens / report->step_seconds;
    report->model_flops_per_second = report->tokens_per_second * tr->flops_per_token;
    if (run->extent.at[TV_PIPE] > 1 && sums[SUM_WINDOW] > 0) {
        report->bubble_fraction = 1 - sums[SUM_BUSY] / sums[SUM_WINDOW];
        report->idle_warmup = sums[SUM_WARMUP] / sums[SUM_WINDOW];
        report->idle_wait = sums[SUM_WAIT] / sums[SUM_WINDOW];
        report->idle_drain = sums[SUM_DRAIN] / sums[SUM_WINDOW];
    }
    report->peak_memory_bytes = tr->peak_memory;
    tr->time.steps += report->step_seconds;
    tr->step_started_at = now;
}

static void end_phase(struct tv_trainer *tr, int phase, double started)
{
    tr->phases[phase] = (struct tv_action_time){started, tv_clock_seconds()};
}

/* A step that is not finite is skipped, or ends the run: every rank sees the same numbers. */
static tv_status_t judge(struct tv_trainer *tr, int64_t step, struct tv_step_report *report)
{
    const double loss = report->loss, norm = report->grad_norm;
    const tv_step_verdict_t verdict = tv_bad_steps_judge(&tr->bad_steps, loss, norm);
    if (verdict == TV_STEP_TAKE)
        return TV_OK;
    if (verdict == TV_STEP_STOP)
        return TV_ERR(TV_NUMERIC,
                      "step %" PRId64 ": loss %g, gradient norm %g; the weights were not changed",
                      step, loss, norm);
    report->is_skipped = 1;
    report->loss = report->grad_norm = NAN;
    if (tv_trainer_is_root(tr))
        tv_log(TV_LOG_WARN,
               "step %" PRId64 " skipped: loss %g, gradient norm %g (%" PRId64
               " in a row, --skip-bad-steps %" PRId64 ")",
               step, loss, norm, tr->bad_steps.in_a_row, tr->bad_steps.limit);
    return TV_OK;
}

/* The rate is that of the step; bias correction counts updates. */
static tv_status_t update_weights(struct tv_trainer *tr, int64_t step, double per_token,
                                  double grad_norm)
{
    const double scale = per_token * tv_clip_factor(grad_norm, tr->run->options.clip_grad);
    double lr[TV_NUM_LR_GROUPS];
    int span;
    TV_TRY(tv_span_begin(tr->stream, "optimizer", &span));
    for (int g = 0; g < TV_NUM_LR_GROUPS; g++)
        lr[g] = tv_lr_at(&tr->run->lr[g], step);
    void *rounded = tr->weights.dtype == TV_BF16 ? tr->weights.data : NULL;
    TV_TRY(tv_optimizer_step(tr->optimizer, tr->params.data, rounded, tr->grads.data, lr, scale,
                             ++tr->num_updates));
    TV_TRY(tv_trainer_gather_weights(tr));
    return tv_span_end(tr->stream, span);
}

tv_status_t tv_train_step(struct tv_trainer *tr, int64_t step, struct tv_step_report *report_out)
{
    struct tv_step_report report = {0};
    struct tv_executor_report walk;
    double window[2], sums[NUM_SUMS];
    const struct tv_stage_functions stage = tv_trainer_stage(tr);
    TV_TRY(tv_trainer_fit_batch(tr));
    tv_trainer_start_account(tr);
    tv_trainer_begin_pass(tr, step);
    tv_model_begin_step(tr->model);
    if (tr->store != NULL)
        tv_store_begin_step(tr->store);

    /* 1. Walk the pipeline: the schedule is a checked list of forwards, backwards and messages. The last backward of
     *    each unit starts the sum of its gradients over the replicas. */
    TV_TRY(tv_executor_run(tr->executor, &stage, &walk));
    tr->compute_seconds = walk.busy_seconds - tv_trainer_waited_in_actions(tr);

    /* 2. Replicas agree, then whoever else shares a weight: tied embeddings, replicated key/value heads. */
    tv_trainer_say_phase(tr, "sum of gradients");
    TV_TRY(sum_gradients(tr));
    end_phase(tr, TV_PHASE_GRADIENTS, walk.ended);

    /* 3. One decision, the same on every rank, before any weight is touched. */
    tv_trainer_say_phase(tr, "sums of the step");
    TV_TRY(tv_trainer_window(tr, &walk, window, &report.stop));
    tr->window_started = window[0];
    const struct tv_rank_time walk_time = tv_trainer_walk_time(tr, &walk, window);
    TV_TRY(mesh_sums(tr, &walk_time, sums));
    end_phase(tr, TV_PHASE_SUMS, tr->phases[TV_PHASE_GRADIENTS].end);
    const double per_token = sums[SUM_COUNTED] > 0 ? 1 / sums[SUM_COUNTED] : 0;
    report.counted_tokens = (int64_t)sums[SUM_COUNTED];
    report.loss = sums[SUM_LOSS] * per_token;
    report.grad_norm = sqrt(sums[SUM_SQUARES]) * per_token;
    report.lr = tv_lr_at(&tr->run->lr[TV_LR_BODY], step);
    TV_TRY(judge(tr, step, &report));
    if (step == 1 && tr->run->options.dump_grads != NULL && !report.is_skipped)
        TV_TRY(tv_trainer_write_tensors(tr, tr->run->options.dump_grads, &tr->grads, per_token));

    /* 4. Step. */
    tv_trainer_say_phase(tr, "optimizer");
    if (!report.is_skipped)
        TV_TRY(update_weights(tr, step, per_token, report.grad_norm));
    end_phase(tr, TV_PHASE_OPTIMIZER, tr->phases[TV_PHASE_SUMS].end);
    tr->consumed += tr->global_batch;
    tv_trainer_note_walk(tr, &walk_time);
    tv_trainer_end_account(tr);
    tv_trainer_say_phase(tr, "between this step and the next");

    if (tr->peak_memory == 0)
        TV_TRY(look_at_memory(tr));
    if (tr->run->options.metrics != NULL)
        TV_TRY(tv_trainer_sum_account(tr, &report.account));
    fill_report(tr, step, sums, &report);
    *report_out = report;
    return TV_OK;
}

/* Sum of losses and counted tokens of one validation file. */
static tv_status_t evaluate(struct tv_trainer *tr, int file, double sums[2])
{
    const struct tv_stage_functions stage = tv_trainer_stage(tr);
    tr->evaluated = tr->valid[file];
    tv_trainer_begin_pass(tr, 0);
    TV_TRY(tv_executor_run_forward(tr->executor, tv_batch_eval_micro(tr), &stage));
    const int counts = tr->here.at[TV_PIPE] == tr->head_stage && tr->here.at[TV_TENSOR] == 0;
    sums[0] = counts ? tr->loss_sum : 0;
    sums[1] = counts ? (double)tr->counted : 0;
    return tv_comm_all_reduce_now(tv_mesh_world(tr->mesh), sums, 2, TV_F64, TV_SUM);
}

static struct tv_eval_loss eval_loss(const double sums[2])
{
    return (struct tv_eval_loss){sums[1] > 0 ? sums[0] / sums[1] : 0, (int64_t)sums[1]};
}

tv_status_t tv_train_eval(struct tv_trainer *tr, struct tv_eval_report *report_out)
{
    struct tv_eval_report report = {.num_files = tr->num_valid};
    double all[2] = {0, 0};
    const double started = tv_clock_seconds();
    for (int i = 0; i < tr->num_valid; i++) {
        double sums[2];
        TV_TRY(evaluate(tr, i, sums));
        report.files[i] = eval_loss(sums);
        report.names[i] = tr->run->options.valid_data.words[i];
        all[0] += sums[0];
        all[1] += sums[1];
    }
    report.all = eval_loss(all);
    TV_TRY(look_at_memory(tr));
    *report_out = report;
    tr->step_started_at += tv_clock_seconds() - started; /* a step's time is without evaluation */
    return TV_OK;
}
