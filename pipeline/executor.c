/* pipeline/executor.c -- walks one stage's list and calls the stage functions.
 *
 * Every F takes a slot and an x, every B or W gives them back; executor_plan.c counts how many that
 * are, executor_messages.c keeps them. */
#include "base/clock.h"
#include "base/span.h"
#include "mesh/nccl.h"
#include "pipeline/executor_internal.h"
#include "pipeline/schedule_internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static tv_status_t check_arguments(const struct tv_comm *pipe, const struct tv_schedule *schedule,
                                   int64_t message_count)
{
    const int num_ranks = tv_comm_size(pipe);
    if (num_ranks != schedule->num_stages)
        return TV_ERR(TV_INVALID, "schedule %s has %d stages, the pipe axis %d ranks",
                      schedule->name, schedule->num_stages, num_ranks);
    if (message_count < 1)
        return TV_ERR(TV_INVALID, "messages of %" PRId64 " elements", message_count);
    return tv_schedule_check(schedule, 0);
}

static tv_status_t create_chunk(struct tv_executor *e, int c)
{
    const struct tv_schedule *schedule = e->schedule;
    const int position = tv_schedule_position(schedule, e->stage, c);
    struct tv_chunk *chunk = &e->chunks[c];
    chunk->previous_stage = tv_schedule_neighbour(schedule, e->stage, c, -1);
    chunk->next_stage = tv_schedule_neighbour(schedule, e->stage, c, +1);
    if (chunk->previous_stage >= 0)
        chunk->previous_chunk = tv_schedule_chunk_of(schedule, position - 1);
    if (chunk->next_stage >= 0)
        chunk->next_chunk = tv_schedule_chunk_of(schedule, position + 1);
    TV_TRY(tv_seats_create(tv_schedule_chunk_slots(schedule, e->stage, c), &chunk->slots));
    TV_TRY(tv_seats_create(tv_schedule_chunk_works(schedule, e->stage, c), &chunk->works));
    TV_TRY(tv_messages_create(e, tv_plan_y(schedule, e->stage, c), &chunk->y));
    return tv_messages_create(e, tv_plan_dx(schedule, e->stage, c), &chunk->dx);
}

static int has_split_backwards(const struct tv_schedule *schedule)
{
    for (int place = 0; place < schedule->num_stages * schedule->num_chunks; place++) {
        if (tv_schedule_splits_backward(schedule, place / schedule->num_chunks,
                                        place % schedule->num_chunks))
            return 1;
    }
    return 0;
}

/* What needs no peer. *executor_out is set on failure too, for the caller to destroy. */
static tv_status_t create_lists(struct tv_comm *pipe, struct tv_stream *stream,
                                const struct tv_schedule *schedule, int64_t message_count,
                                tv_dtype_t dtype, struct tv_executor **executor_out)
{
    TV_TRY(check_arguments(pipe, schedule, message_count));
    struct tv_executor *e = *executor_out = calloc(1, sizeof(*e));
    if (e == NULL)
        return TV_ERR(TV_NO_MEMORY, "stage %d: executor of %zu bytes", tv_comm_rank(pipe),
                      sizeof(*e));
    e->schedule = schedule;
    e->stage = tv_comm_rank(pipe);
    e->stream = stream;
    e->message_count = message_count;
    e->dtype = dtype;
    const size_t num_actions = (size_t)schedule->stages[e->stage].num_actions;
    e->has_split_backwards = has_split_backwards(schedule);
    e->evaluation_group = tv_plan_evaluation_group(schedule);
    e->times = calloc(num_actions, sizeof(*e->times));
    e->chunks = calloc((size_t)schedule->num_chunks, sizeof(*e->chunks));
    if (e->times == NULL || e->chunks == NULL)
        return TV_ERR(TV_NO_MEMORY, "stage %d: executor of %zu actions", e->stage, num_actions);
    return TV_OK;
}

/* Where the messages of a kind go in the ring of stages, on all of them. */
static int directions_of(const struct tv_schedule *schedule, tv_action_kind_t kind)
{
    const int P = schedule->num_stages;
    int directions = 0;
    for (int s = 0; s < P; s++) {
        const struct tv_action_list *list = &schedule->stages[s];
        for (int i = 0; i < list->num_actions; i++) {
            const struct tv_action *a = &list->actions[i];
            if (a->kind == kind && a->peer == (s + 1) % P)
                directions |= TV_TO_NEXT;
            else if (a->kind == kind && a->peer == (s + P - 1) % P)
                directions |= TV_TO_PREVIOUS;
        }
    }
    return directions;
}

static tv_status_t create_parts(struct tv_executor *e, struct tv_comm *pipe)
{
    const struct tv_schedule *schedule = e->schedule;
    TV_TRY(tv_comm_split(pipe, 0, e->stage, &e->forward));
    TV_TRY(tv_comm_split(pipe, 0, e->stage, &e->backward));
    TV_TRY(tv_comm_use_nccl_messages(e->forward, directions_of(schedule, TV_ACT_SEND_FORWARD)));
    TV_TRY(tv_comm_use_nccl_messages(e->backward, directions_of(schedule, TV_ACT_SEND_BACKWARD)));
    tv_comm_set_name(e->forward, "pipe forward");
    tv_comm_set_name(e->backward, "pipe backward");
    TV_TRY(tv_inbox_create(e, TV_ACT_RECV_FORWARD, e->forward, &e->x));
    TV_TRY(tv_inbox_create(e, TV_ACT_RECV_BACKWARD, e->backward, &e->dy));
    for (int c = 0; c < schedule->num_chunks; c++)
        TV_TRY(create_chunk(e, c));
    return TV_OK;
}

tv_status_t tv_executor_create(struct tv_comm *pipe, struct tv_stream *stream,
                               const struct tv_schedule *schedule, int64_t message_count,
                               tv_dtype_t dtype, struct tv_executor **executor_out)
{
    struct tv_executor *e = NULL;
    int first_failed; /* agreed on before anybody waits for another */
    tv_status_t status = create_lists(pipe, stream, schedule, message_count, dtype, &e);
    status = tv_comm_agree(pipe, status, &first_failed);
    if (status == TV_OK)
        status = create_parts(e, pipe);
    if (status != TV_OK) {
        tv_executor_destroy(e);
        return status;
    }
    *executor_out = e;
    return TV_OK;
}

void tv_executor_destroy(struct tv_executor *e)
{
    if (e == NULL)
        return;
    for (int c = 0; e->chunks != NULL && c < e->schedule->num_chunks; c++) {
        tv_seats_destroy(&e->chunks[c].slots);
        tv_seats_destroy(&e->chunks[c].works);
        tv_messages_destroy(&e->chunks[c].y);
        tv_messages_destroy(&e->chunks[c].dx);
    }
    tv_inbox_destroy(&e->x);
    tv_inbox_destroy(&e->dy);
    tv_comm_destroy(e->backward);
    tv_comm_destroy(e->forward);
    free(e->chunks);
    free(e->times);
    free(e);
}

const struct tv_action_time *tv_executor_times(const struct tv_executor *e)
{
    return e->times;
}

struct tv_comm_stats tv_executor_comm_stats(const struct tv_executor *e)
{
    struct tv_comm_stats sum = tv_comm_get_stats(e->forward);
    const struct tv_comm_stats backward = tv_comm_get_stats(e->backward);
    sum.wait_seconds += backward.wait_seconds;
    sum.sent_bytes += backward.sent_bytes;
    sum.num_operations += backward.num_operations;
    return sum;
}

/* ---- actions ---- */

static tv_status_t call_stage(const struct tv_executor *e, const struct tv_stage_functions *f,
                              tv_action_kind_t kind, const struct tv_stage_call *call,
                              struct tv_action_time *time)
{
    tv_status_t (*const functions[])(void *, const struct tv_stage_call *) = {
        [TV_ACT_FORWARD] = f->forward,
        [TV_ACT_BACKWARD] = f->backward,
        [TV_ACT_BACKWARD_INPUT] = f->backward_input,
        [TV_ACT_BACKWARD_WEIGHT] = f->backward_weight,
    };
    char name[TV_SPAN_NAME];
    int span;
    snprintf(name, sizeof(name), "%s%d, chunk %d", tv_action_kind_name(kind), call->micro,
             call->chunk);
    time->start = tv_clock_seconds();
    tv_status_t status = tv_span_begin(e->stream, name, &span);
    if (status == TV_OK)
        status = functions[kind](f->context, call);
    if (status == TV_OK)
        status = tv_span_end(e->stream, span);
    time->end = tv_clock_seconds();
    return status;
}

/* The call of a micro-batch that has its slot. */
static struct tv_stage_call call_of(const struct tv_executor *e, const struct tv_action *a)
{
    return (struct tv_stage_call){.chunk = a->chunk,
                                  .micro = a->micro,
                                  .slot = tv_seats_find(&e->chunks[a->chunk].slots, a->micro),
                                  .x = tv_inbox_data(e, &e->x, a->chunk, a->micro)};
}

static tv_status_t do_forward(struct tv_executor *e, const struct tv_action *a,
                              const struct tv_stage_functions *f, struct tv_action_time *time)
{
    struct tv_chunk *chunk = &e->chunks[a->chunk];
    tv_seats_take(&chunk->slots, a->micro);
    struct tv_stage_call call = call_of(e, a);
    call.work = tv_seats_take(&chunk->works, a->micro);
    if (chunk->next_stage == e->stage)
        call.y = tv_inbox_reserve(e, &e->x, chunk->next_chunk, a->micro);
    else if (chunk->next_stage >= 0)
        TV_TRY(tv_messages_reserve(e, &chunk->y, call.slot, &call.y));
    TV_TRY(call_stage(e, f, a->kind, &call, time));
    tv_seats_leave(&chunk->works, a->micro);
    return TV_OK;
}

/* After B or W: all that the micro-batch held. */
static void release(struct tv_executor *e, const struct tv_action *a)
{
    struct tv_chunk *chunk = &e->chunks[a->chunk];
    tv_seats_leave(&chunk->slots, a->micro);
    tv_seats_leave(&chunk->works, a->micro);
    tv_inbox_release(e, &e->x, a->chunk, a->micro);
    tv_inbox_release(e, &e->dy, a->chunk, a->micro);
}

/* B or I. */
static tv_status_t do_backward(struct tv_executor *e, const struct tv_action *a,
                               const struct tv_stage_functions *f, struct tv_action_time *time)
{
    struct tv_chunk *chunk = &e->chunks[a->chunk];
    struct tv_stage_call call = call_of(e, a);
    call.work = tv_seats_take(&chunk->works, a->micro);
    call.dy = tv_inbox_data(e, &e->dy, a->chunk, a->micro);
    if (a->kind == TV_ACT_BACKWARD)
        call.is_last_backward = ++chunk->num_weight_gradients == e->schedule->num_micro;
    if (chunk->previous_stage == e->stage)
        call.dx = tv_inbox_reserve(e, &e->dy, chunk->previous_chunk, a->micro);
    else if (chunk->previous_stage >= 0)
        TV_TRY(tv_messages_reserve(e, &chunk->dx, chunk->num_dx_made++ % chunk->dx.num, &call.dx));
    TV_TRY(call_stage(e, f, a->kind, &call, time));
    if (a->kind == TV_ACT_BACKWARD)
        release(e, a);
    return TV_OK;
}

static tv_status_t do_backward_weight(struct tv_executor *e, const struct tv_action *a,
                                      const struct tv_stage_functions *f,
                                      struct tv_action_time *time)
{
    struct tv_chunk *chunk = &e->chunks[a->chunk];
    struct tv_stage_call call = call_of(e, a);
    call.work = tv_seats_find(&chunk->works, a->micro);
    call.dy = tv_inbox_data(e, &e->dy, a->chunk, a->micro);
    call.is_last_backward = ++chunk->num_weight_gradients == e->schedule->num_micro;
    TV_TRY(call_stage(e, f, a->kind, &call, time));
    release(e, a);
    return TV_OK;
}

static tv_status_t do_send(struct tv_executor *e, const struct tv_action *a,
                           struct tv_action_time *time)
{
    struct tv_chunk *chunk = &e->chunks[a->chunk];
    time->start = tv_clock_seconds();
    if (a->kind == TV_ACT_SEND_FORWARD)
        TV_TRY(tv_messages_send(e, &chunk->y, tv_seats_find(&chunk->slots, a->micro), e->forward,
                                a->peer));
    else
        TV_TRY(tv_messages_send(e, &chunk->dx, chunk->num_dx_sent++ % chunk->dx.num, e->backward,
                                a->peer));
    time->end = tv_clock_seconds();
    return TV_OK;
}

static tv_status_t do_receive(struct tv_executor *e, const struct tv_action *a,
                              struct tv_action_time *time)
{
    struct tv_inbox *box = a->kind == TV_ACT_RECV_FORWARD ? &e->x : &e->dy;
    box->num_ahead--; /* list order: this one was posted first */
    TV_TRY(tv_inbox_post_ahead(e, box));
    time->start = tv_clock_seconds();
    TV_TRY(tv_inbox_wait(e, box, a->chunk, a->micro));
    time->end = tv_clock_seconds();
    return TV_OK;
}

static tv_status_t do_action(struct tv_executor *e, const struct tv_action *a,
                             const struct tv_stage_functions *f, struct tv_action_time *time)
{
    switch (a->kind) {
    case TV_ACT_FORWARD:
        return do_forward(e, a, f, time);
    case TV_ACT_BACKWARD:
    case TV_ACT_BACKWARD_INPUT:
        return do_backward(e, a, f, time);
    case TV_ACT_BACKWARD_WEIGHT:
        return do_backward_weight(e, a, f, time);
    case TV_ACT_SEND_FORWARD:
    case TV_ACT_SEND_BACKWARD:
        return do_send(e, a, time);
    case TV_ACT_RECV_FORWARD:
    case TV_ACT_RECV_BACKWARD:
        return do_receive(e, a, time);
    default:
        return TV_ERR(TV_INTERNAL, "schedule %s: action %d", e->schedule->name, (int)a->kind);
    }
}

/* ---- the walk ---- */

static tv_status_t check_functions(const struct tv_executor *e,
                                   const struct tv_stage_functions *functions)
{
    if (e->has_split_backwards &&
        (functions->backward_input == NULL || functions->backward_weight == NULL))
        return TV_ERR(TV_INVALID, "schedule %s has I and W, the stage functions have not",
                      e->schedule->name);
    return TV_OK;
}

static tv_status_t start_walk(struct tv_executor *e)
{
    for (int c = 0; c < e->schedule->num_chunks; c++) {
        struct tv_chunk *chunk = &e->chunks[c];
        chunk->num_dx_made = chunk->num_dx_sent = chunk->num_weight_gradients = 0;
    }
    e->x.next = e->x.num_ahead = e->dy.next = e->dy.num_ahead = 0;
    TV_TRY(tv_inbox_post_ahead(e, &e->x));
    return tv_inbox_post_ahead(e, &e->dy);
}

/* Adds up what the actions took; started, ended and drain_seconds are the caller's. */
static void add_times(const struct tv_executor *e, struct tv_executor_report *report)
{
    const struct tv_action_list *list = &e->schedule->stages[e->stage];
    int has_begun = 0;
    for (int i = 0; i < list->num_actions; i++) {
        const double seconds = e->times[i].end - e->times[i].start;
        if (tv_action_is_compute(list->actions[i].kind)) {
            has_begun = 1;
            report->busy_seconds += seconds;
        } else if (tv_action_is_recv(list->actions[i].kind)) {
            *(has_begun ? &report->wait_seconds : &report->warmup_seconds) += seconds;
        }
    }
}

tv_status_t tv_executor_run(struct tv_executor *e, const struct tv_stage_functions *functions,
                            struct tv_executor_report *report_out)
{
    const struct tv_action_list *list = &e->schedule->stages[e->stage];
    struct tv_executor_report report = {.started = tv_clock_seconds()};
    TV_TRY(check_functions(e, functions));
    TV_TRY(start_walk(e));
    for (int i = 0; i < list->num_actions; i++) {
        e->current = list->actions[i];
        TV_TRY(do_action(e, &list->actions[i], functions, &e->times[i]));
    }
    const double done = tv_clock_seconds();
    TV_TRY(tv_executor_finish_sends(e));
    report.ended = tv_clock_seconds();
    report.drain_seconds = report.ended - done;
    add_times(e, &report);
    *report_out = report;
    return TV_OK;
}
