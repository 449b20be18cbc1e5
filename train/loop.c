/* train/loop.c -- steps, evaluations, metrics and the export, in the order in which they happen. */
#include "train/loop.h"
#include "base/log.h"
#include "train/checkpoint_internal.h"
#include "train/console.h"
#include "train/metrics.h"
#include "train/place.h"
#include "train/split.h"
#include "train/step_trace.h"
#include "train/stragglers.h"
#include "train/trainer_internal.h"
#include "train/zero.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct loop {
    struct tv_trainer *trainer;
    const struct tv_run *run;
    int is_root;
    struct tv_console console;   /* root */
    struct tv_metrics *metrics;  /* root, or NULL */
    struct tv_step_trace *trace; /* or NULL */
    struct tv_stragglers *stragglers;
    int has_save_failed; /* on every rank alike */
};

/* The sample numbers of a step in the order of the global batch: a JSON line. */
static tv_status_t log_samples(struct tv_trainer *tr, int64_t step)
{
    const struct tv_run *run = tr->run;
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    const int D = run->extent.at[TV_DATA];
    const int64_t count = tr->global_batch / D;
    struct tv_request *send = NULL, *recv = NULL;
    if (tr->here.at[TV_PIPE] == tr->embedding_stage && tr->here.at[TV_TENSOR] == 0)
        TV_TRY(tv_comm_send(world, tr->sample_ids, count, TV_I64, 0, NULL, &send));
    if (tv_mesh_rank(tr->mesh) == 0) {
        int64_t *ids = calloc((size_t)count, sizeof(*ids));
        if (ids == NULL)
            return TV_ERR(TV_NO_MEMORY, "--log-sample-ids: %" PRId64 " numbers", count);
        fprintf(tr->sample_log, "{\"step\":%" PRId64 ",\"samples\":[", step);
        tv_status_t status = TV_OK;
        for (int d = 0; d < D && status == TV_OK; d++) {
            const struct tv_mesh_coord reader = {{tr->embedding_stage, d, 0}};
            const int from = tv_mesh_rank_of(run->extent, reader);
            status = tv_comm_recv(world, ids, count, TV_I64, from, NULL, &recv);
            if (status == TV_OK)
                status = tv_request_wait(&recv);
            for (int64_t i = 0; i < count && status == TV_OK; i++)
                fprintf(tr->sample_log, "%s%" PRId64, d + i == 0 ? "" : ",", ids[i]);
        }
        free(ids);
        TV_TRY(status);
        if (fputs("]}\n", tr->sample_log) < 0 || fflush(tr->sample_log) != 0)
            return TV_ERR(TV_IO, "--log-sample-ids %s: %s", run->options.log_sample_ids,
                          strerror(errno));
    }
    return tv_request_wait(&send);
}

static tv_status_t evaluate(struct loop *loop, int64_t step)
{
    struct tv_eval_report report;
    TV_TRY(tv_train_eval(loop->trainer, &report));
    if (!loop->is_root)
        return TV_OK;
    tv_console_eval(&loop->console, step, &report);
    return loop->metrics ? tv_metrics_eval(loop->metrics, step, &report) : TV_OK;
}

static int evaluates_after(const struct tv_run *run, int64_t step)
{
    if (run->options.valid_data.num == 0)
        return 0;
    return step == run->train_iters ||
           (run->options.eval_interval > 0 && step % run->options.eval_interval == 0);
}

/* What people and metrics learn of a save that has ended. */
static tv_status_t note_save(struct loop *loop, tv_status_t status, int64_t step)
{
    char path[4096];
    loop->has_save_failed |= status != TV_OK && status != TV_PEER;
    if (status != TV_OK || step == 0 || !loop->is_root)
        return status;
    tv_checkpoint_path(loop->run->options.save, step, path, sizeof(path));
    tv_console_save(&loop->console, step, path);
    return loop->metrics ? tv_metrics_save(loop->metrics, step, path) : TV_OK;
}

/* A checkpoint of what training has reached after `step`, on disk when it returns. */
static tv_status_t save_now(struct loop *loop, int64_t step)
{
    int64_t saved = 0;
    for (int i = 0; i < 2; i++) { /* an earlier one may be on its way */
        tv_status_t status = i == 0 ? TV_OK : tv_checkpoint_save(loop->trainer, step);
        if (status == TV_OK)
            status = tv_checkpoint_finish(loop->trainer, &saved);
        TV_TRY(note_save(loop, status, saved));
    }
    return TV_OK;
}

/* Save when it is time, and look after a save that is on its way. */
static tv_status_t save_after(struct loop *loop, int64_t step)
{
    const int64_t interval = loop->run->options.save_interval;
    int64_t saved = 0;
    tv_status_t status = TV_OK;
    if (interval > 0 && step % interval == 0 && step < loop->run->train_iters)
        status = tv_checkpoint_save(loop->trainer, step);
    if (status == TV_OK)
        status = tv_checkpoint_poll(loop->trainer, &saved);
    return note_save(loop, status, saved);
}

/* The same on every rank. What was told in the last step changes nothing. */
static int is_stopped(const struct loop *loop, const struct tv_step_report *report)
{
    return report->stop != TV_STOP_NONE && report->step < loop->run->train_iters;
}

static tv_status_t one_step(struct loop *loop, int64_t step, struct tv_step_report *report)
{
    const int64_t first_traced = loop->run->train_iters - loop->run->options.trace_steps + 1;
    const int is_traced = loop->trace != NULL && step >= first_traced;
    if (is_traced)
        TV_TRY(tv_step_trace_begin(loop->trace));
    TV_TRY(tv_train_step(loop->trainer, step, report));
    if (loop->run->options.log_sample_ids != NULL)
        TV_TRY(log_samples(loop->trainer, step));
    if (is_traced)
        TV_TRY(tv_step_trace_add(loop->trace, step));
    if (loop->is_root) {
        if (loop->metrics)
            TV_TRY(tv_metrics_step(loop->metrics, report));
        tv_console_step(&loop->console, report);
    }
    TV_TRY(tv_stragglers_add(loop->stragglers, tv_mesh_world(loop->trainer->mesh), step,
                             loop->trainer->compute_seconds, loop->metrics));
    if (is_stopped(loop, report)) /* at once: who sends signals does not wait for an evaluation */
        TV_TRY(save_now(loop, step));
    if (evaluates_after(loop->run, step))
        TV_TRY(evaluate(loop, step));
    return save_after(loop, step);
}

/* What the profile says of each stage. */
static tv_status_t print_profile(const struct tv_run *run)
{
    const size_t P = (size_t)run->extent.at[TV_PIPE];
    double *seconds = calloc(2 * P, sizeof(*seconds));
    int64_t *bytes = calloc(P, sizeof(*bytes));
    const int has_uniform = run->model.num_layers >= run->extent.at[TV_PIPE] * run->num_chunks;
    tv_status_t status = seconds != NULL && bytes != NULL
                             ? tv_split_costs(run, &run->profile, 0, seconds + P, bytes)
                             : TV_ERR(TV_NO_MEMORY, "times of %zu stages", P);
    if (status == TV_OK && has_uniform)
        status = tv_split_costs(run, &run->profile, 1, seconds, bytes);
    if (status == TV_OK)
        tv_console_profile(stdout, run, has_uniform ? seconds : NULL, seconds + P);
    free(seconds);
    free(bytes);
    return status;
}

static tv_status_t start(struct loop *loop)
{
    if (!loop->is_root)
        return TV_OK;
    tv_console_start(&loop->console, loop->run, loop->trainer);
    return loop->run->has_profile ? print_profile(loop->run) : TV_OK;
}

static tv_status_t tell_stop(const struct loop *loop, const struct tv_step_report *report)
{
    const char *folder = loop->run->options.save;
    const char *by = tv_stop_name(report->stop);
    const int64_t of = loop->run->train_iters;
    char path[4096];
    if (folder == NULL)
        return TV_ERR(TV_STOPPED,
                      "stopped by %s after step %" PRId64 " of %" PRId64
                      "; nothing is saved without --save",
                      by, report->step, of);
    tv_checkpoint_path(folder, report->step, path, sizeof(path));
    return TV_ERR(TV_STOPPED,
                  "stopped by %s after step %" PRId64 " of %" PRId64
                  ", saved in %s; --load auto continues from there",
                  by, report->step, of, path);
}

static tv_status_t run_steps(struct loop *loop)
{
    const struct tv_run *run = loop->run;
    struct tv_step_report report = {0};
    int64_t last = tv_checkpoint_first_step(run);
    TV_TRY(start(loop));
    for (; last < run->train_iters; last++) {
        TV_TRY(one_step(loop, last + 1, &report));
        if (is_stopped(loop, &report))
            return tell_stop(loop, &report);
    }
    if (loop->trace != NULL)
        TV_TRY(tv_step_trace_finish(loop->trace));
    TV_TRY(save_now(loop, last));
    if (run->options.export_hf != NULL)
        TV_TRY(tv_trainer_export(loop->trainer, run->options.export_hf));
    struct tv_pipeline_report pipeline;
    TV_TRY(tv_trainer_pipeline_report(loop->trainer, &pipeline));
    tv_status_t status = TV_OK;
    if (loop->is_root) {
        tv_console_finish(&loop->console, run, &report, &pipeline);
        if (loop->metrics)
            status = tv_metrics_pipeline(loop->metrics, &pipeline);
    }
    tv_pipeline_report_free(&pipeline);
    return status;
}

/* The verdict on the root's files is shared before the first step. */
static tv_status_t open_outputs(struct loop *loop)
{
    TV_TRY(tv_stragglers_create(loop->run, &loop->stragglers));
    if (loop->run->options.trace != NULL)
        TV_TRY(tv_step_trace_open(loop->trainer, loop->run->options.trace, &loop->trace));
    if (!loop->is_root)
        return TV_OK;
    tv_console_open(&loop->console, loop->run, stdout);
    if (loop->run->options.metrics == NULL)
        return TV_OK;
    TV_TRY(tv_metrics_open(loop->run->options.metrics, tv_checkpoint_first_step(loop->run),
                           &loop->metrics));
    return tv_metrics_start(loop->metrics, loop->run);
}

/* Times the units on these ranks and splits the model by it. */
static tv_status_t split_by_profile(struct tv_comm *world, struct tv_run *run)
{
    const char *path = run->options.save_profile;
    struct tv_profile profile;
    int first_failed;
    TV_TRY(tv_profile_measure(world, run, &profile));
    tv_status_t status = tv_run_split(run, TV_PARTITION_PROFILE, &profile);
    if (status == TV_OK && tv_comm_rank(world) == 0 && path != NULL)
        status = tv_profile_save(path, run, &profile);
    return tv_comm_agree(world, status, &first_failed);
}

/* A run that ends by a verdict of its own still ends the save that is on its way; the verdict's sentence stays. */
static void finish_save(struct loop *loop)
{
    char why[1024];
    int64_t saved = 0;
    snprintf(why, sizeof(why), "%s", tv_error_message());
    const tv_status_t status = tv_checkpoint_finish(loop->trainer, &saved);
    if (note_save(loop, status, saved) != TV_OK)
        tv_log(TV_LOG_WARN, "a save was not ended: %s", tv_error_message());
    (void)TV_ERR(TV_NUMERIC, "%s", why);
}

/* Ends the files; their first failure becomes that of a run that had none. */
static tv_status_t close_outputs(struct loop *loop, tv_status_t status)
{
    const tv_status_t traced = tv_step_trace_close(loop->trace);
    status = status == TV_OK ? traced : status;
    if (loop->metrics != NULL) {
        const tv_status_t ended = tv_metrics_end(loop->metrics, status);
        status = status == TV_OK ? ended : status;
    }
    tv_metrics_close(loop->metrics);
    return status;
}

tv_status_t tv_train_prepare(struct tv_comm *world, struct tv_run *run,
                             struct tv_trainer **trainer_out)
{
    int first_failed;
    tv_comm_set_timeout(world, run->options.timeout_seconds);
    TV_TRY(tv_run_find_place(world, run));
    TV_TRY(tv_comm_agree(world, tv_run_fit_zero_group(run), &first_failed));
    if (!run->has_split)
        TV_TRY(split_by_profile(world, run));
    return tv_trainer_create(world, run, trainer_out);
}

tv_status_t tv_train_loop(struct tv_comm *world, struct tv_run *run, int *is_common_out)
{
    struct loop loop = {.run = run};
    int first_failed;
    tv_status_t status = tv_train_prepare(world, run, &loop.trainer);
    *is_common_out = status != TV_PEER; /* nobody is left to agree on that with */
    TV_TRY(status);
    loop.is_root = tv_trainer_is_root(loop.trainer);
    status = tv_comm_agree(world, open_outputs(&loop), &first_failed);
    *is_common_out = status != TV_PEER;
    if (status == TV_OK) {
        status = tv_trainer_own(loop.trainer, run_steps(&loop));
        if (status == TV_NUMERIC)
            finish_save(&loop);
        /* decided from sums that every rank has, or agreed on */
        *is_common_out = status == TV_NUMERIC || status == TV_STOPPED ||
                         (status != TV_OK && loop.has_save_failed);
    }
    const tv_status_t closed = close_outputs(&loop, status);
    *is_common_out &= closed == status; /* only the root has files */
    tv_stragglers_destroy(loop.stragglers);
    tv_trainer_destroy(loop.trainer);
    return closed;
}
