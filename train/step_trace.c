/* train/step_trace.c -- the last steps of a run as a timeline of all ranks on rank 0's clock.
 *
 * Each rank sends the times of its actions and of what follows them to rank 0, which writes them. These are the
 * host's, who runs ahead of a GPU: what its streams did follows at the end, as threads of their own, so that no step
 * waits for it. */
#include "train/step_trace.h"
#include "base/span.h"
#include "train/schedule_trace.h"
#include "train/trainer_internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { TID_COMPUTE, TID_MESSAGES, TID_STREAMS = 10 };

static const char *const phase_names[TV_NUM_PHASES] = {"gradients", "sums", "optimizer"};

struct tv_step_trace {
    struct tv_trainer *trainer; /* borrowed */
    struct tv_trace *file;      /* root only */
    double origin;              /* start of the first traced step */
    double *times;              /* [2 (longest list + phases)], of the largest batch */
};

/* Pairs of start and end that a rank of this stage sends. */
static int num_times(const struct tv_schedule *schedule, int stage)
{
    return schedule->stages[stage].num_actions + TV_NUM_PHASES;
}

static void name_rank(struct tv_step_trace *trace, int rank)
{
    char name[64];
    const struct tv_mesh_coord at = tv_mesh_coord_of(trace->trainer->run->extent, rank);
    snprintf(name, sizeof(name), "rank %d: stage %d, replica %d, tensor %d", rank, at.at[TV_PIPE],
             at.at[TV_DATA], at.at[TV_TENSOR]);
    tv_trace_name_process(trace->file, rank, name);
    const int is_gpu = tv_device_kind(trace->trainer->device) == TV_DEVICE_CUDA;
    tv_trace_name_thread(trace->file, rank, TID_COMPUTE, is_gpu ? "host: compute" : "compute");
    tv_trace_name_thread(trace->file, rank, TID_MESSAGES, is_gpu ? "host: messages" : "messages");
}

tv_status_t tv_step_trace_open(struct tv_trainer *tr, const char *path,
                               struct tv_step_trace **trace_out)
{
    int longest = 0;
    for (int s = 0; s < tr->run->extent.at[TV_PIPE]; s++)
        longest =
            num_times(&tr->run->schedule, s) > longest ? num_times(&tr->run->schedule, s) : longest;
    struct tv_step_trace *trace = calloc(1, sizeof(*trace));
    if (trace == NULL)
        return TV_ERR(TV_NO_MEMORY, "--trace %s", path);
    trace->trainer = tr;
    trace->times = calloc(2 * (size_t)longest, sizeof(double));
    tv_status_t status = TV_OK;
    if (trace->times == NULL)
        status = TV_ERR(TV_NO_MEMORY, "--trace %s: %d times", path, longest);
    else if (tv_mesh_rank(tr->mesh) == 0)
        status = tv_trace_open(path, &trace->file);
    for (int r = 0; status == TV_OK && trace->file && r < tv_comm_size(tr->world); r++)
        name_rank(trace, r);
    if (status != TV_OK) {
        free(trace->times);
        free(trace);
        return status;
    }
    *trace_out = trace;
    return TV_OK;
}

/* This rank's times on rank 0's clock. */
static void fill_times(struct tv_step_trace *trace)
{
    const struct tv_trainer *tr = trace->trainer;
    const int n = tr->schedule->stages[tr->here.at[TV_PIPE]].num_actions;
    const struct tv_action_time *actions = tv_executor_times(tr->executor);
    for (int i = 0; i < n + TV_NUM_PHASES; i++) {
        const struct tv_action_time t = i < n ? actions[i] : tr->phases[i - n];
        trace->times[2 * i] = t.start + tr->clock_offset;
        trace->times[2 * i + 1] = t.end + tr->clock_offset;
    }
}

/* What one rank sent, as events. */
static void add_rank(struct tv_step_trace *trace, int rank, int64_t step)
{
    const struct tv_schedule *schedule = trace->trainer->schedule;
    const int stage = tv_mesh_coord_of(trace->trainer->run->extent, rank).at[TV_PIPE];
    const struct tv_action_list *list = &schedule->stages[stage];
    for (int i = 0; i < num_times(schedule, stage); i++) {
        const struct tv_action_time time = {trace->times[2 * i] - trace->origin,
                                            trace->times[2 * i + 1] - trace->origin};
        if (i < list->num_actions) {
            const struct tv_action *a = &list->actions[i];
            tv_trace_add_action(trace->file, schedule, stage, a, rank,
                                a->peer >= 0 ? TID_MESSAGES : TID_COMPUTE, time);
            continue;
        }
        char name[64];
        snprintf(name, sizeof(name), "%s of step %" PRId64, phase_names[i - list->num_actions],
                 step);
        const struct tv_trace_event event = {.name = name,
                                             .category = "step",
                                             .pid = rank,
                                             .tid = TID_COMPUTE,
                                             .start = time.start,
                                             .duration = time.end - time.start};
        tv_trace_add(trace->file, &event);
    }
}

tv_status_t tv_step_trace_add(struct tv_step_trace *trace, int64_t step)
{
    struct tv_trainer *tr = trace->trainer;
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    struct tv_request *request = NULL;
    fill_times(trace);
    if (tv_mesh_rank(tr->mesh) != 0) {
        TV_TRY(tv_comm_send(world, trace->times, 2 * num_times(tr->schedule, tr->here.at[TV_PIPE]),
                            TV_F64, 0, NULL, &request));
        return tv_request_wait(&request);
    }
    if (trace->origin == 0)
        trace->origin = tr->window_started;
    add_rank(trace, 0, step);
    for (int r = 1; r < tv_comm_size(world); r++) {
        const int stage = tv_mesh_coord_of(tr->run->extent, r).at[TV_PIPE];
        TV_TRY(tv_comm_recv(world, trace->times, 2 * num_times(tr->schedule, stage), TV_F64, r,
                            NULL, &request));
        TV_TRY(tv_request_wait(&request));
        add_rank(trace, r, step);
    }
    return TV_OK;
}

/* ---- GPUs ---- */

tv_status_t tv_step_trace_begin(struct tv_step_trace *trace)
{
    return tv_spans_start(trace->trainer->stream);
}

/* Of one rank; times on rank 0's clock. */
static void add_spans(struct tv_step_trace *trace, int rank, const struct tv_span *spans, int num)
{
    char name[TV_STREAM_NAME + 8];
    for (int i = 0; i < num; i++) {
        const struct tv_span *span = &spans[i];
        int is_named = 0;
        for (int k = 0; k < i && !is_named; k++)
            is_named = spans[k].stream == span->stream;
        snprintf(name, sizeof(name), "GPU: %s", span->stream_name);
        if (!is_named)
            tv_trace_name_thread(trace->file, rank, TID_STREAMS + span->stream, name);
        const struct tv_trace_event event = {.name = span->name,
                                             .category = "gpu",
                                             .pid = rank,
                                             .tid = TID_STREAMS + span->stream,
                                             .start = span->start - trace->origin,
                                             .duration = span->end - span->start};
        tv_trace_add(trace->file, &event);
    }
}

static tv_status_t take_spans(const struct tv_trainer *tr, struct tv_span **spans_out, int *num_out)
{
    TV_TRY(tv_stream_synchronize(tr->stream));
    TV_TRY(tv_spans_take(tr->device, spans_out, num_out));
    for (int i = 0; i < *num_out; i++) {
        (*spans_out)[i].start += tr->clock_offset;
        (*spans_out)[i].end += tr->clock_offset;
    }
    return TV_OK;
}

static tv_status_t send_spans(struct tv_comm *world, const struct tv_span *spans, int num)
{
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_send(world, &num, 1, TV_I32, 0, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    TV_TRY(tv_comm_send(world, spans, num * (int64_t)sizeof(*spans), TV_U8, 0, NULL, &request));
    return tv_request_wait(&request);
}

static tv_status_t receive_spans(struct tv_step_trace *trace, struct tv_comm *world, int rank)
{
    struct tv_request *request = NULL;
    int num = 0;
    TV_TRY(tv_comm_recv(world, &num, 1, TV_I32, rank, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    struct tv_span *spans = calloc((size_t)num + 1, sizeof(*spans));
    if (spans == NULL)
        return TV_ERR(TV_NO_MEMORY, "--trace: %d spans of rank %d", num, rank);
    tv_status_t status =
        tv_comm_recv(world, spans, num * (int64_t)sizeof(*spans), TV_U8, rank, NULL, &request);
    if (status == TV_OK)
        status = tv_request_wait(&request);
    if (status == TV_OK)
        add_spans(trace, rank, spans, num);
    free(spans);
    return status;
}

tv_status_t tv_step_trace_finish(struct tv_step_trace *trace)
{
    struct tv_trainer *tr = trace->trainer;
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    struct tv_span *spans = NULL;
    int num = 0, first_failed;
    if (tv_device_kind(tr->device) == TV_DEVICE_CPU)
        return TV_OK;
    tv_status_t status = tv_comm_agree(world, take_spans(tr, &spans, &num), &first_failed);
    if (status == TV_OK && tv_comm_rank(world) != 0)
        status = send_spans(world, spans, num);
    if (status == TV_OK && tv_comm_rank(world) == 0)
        add_spans(trace, 0, spans, num);
    for (int r = 1; status == TV_OK && tv_comm_rank(world) == 0 && r < tv_comm_size(world); r++)
        status = receive_spans(trace, world, r);
    free(spans);
    return status;
}

tv_status_t tv_step_trace_close(struct tv_step_trace *trace)
{
    if (trace == NULL)
        return TV_OK;
    const tv_status_t status = tv_trace_close(trace->file);
    free(trace->times);
    free(trace);
    return status;
}
