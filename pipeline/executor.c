/* pipeline/executor.c -- walks one stage's list and calls the stage functions.
 *
 * Buffers, so that a send never waits for anything but a message that its peer already has:
 *   y   one per slot: when a slot is used again its B is done, so the next stage has received its y long ago
 *   dx  as many as the previous stage has slots: a dx that is under way belongs to a micro-batch in flight there
 *   x   one per slot, kept until the B, and TV_EARLY_RECEIVES more
 *   dy  one, and TV_EARLY_RECEIVES more */
#include "pipeline/executor_internal.h"
#include "pipeline/schedule_internal.h"
#include <stdlib.h>

/* Messages of a kind in a stage's list; 0 at an end of the pipeline. */
static int count_kind(const struct tv_schedule *schedule, int stage, tv_action_kind_t kind)
{
    int n = 0;
    for (int i = 0; i < schedule->stages[stage].num_actions; i++)
        n += schedule->stages[stage].actions[i].kind == kind;
    return n;
}

struct tv_message_plan tv_message_plan_of(const struct tv_schedule *schedule, int stage)
{
    const int slots = tv_schedule_peak_slots(schedule, stage);
    const int previous = (stage + schedule->num_stages - 1) % schedule->num_stages;
    struct tv_message_plan plan = {0};
    if (count_kind(schedule, stage, TV_ACT_RECV_FORWARD) > 0)
        plan.x = slots + TV_EARLY_RECEIVES;
    if (count_kind(schedule, stage, TV_ACT_RECV_BACKWARD) > 0)
        plan.dy = 1 + TV_EARLY_RECEIVES;
    if (count_kind(schedule, stage, TV_ACT_SEND_FORWARD) > 0)
        plan.y = slots;
    if (count_kind(schedule, stage, TV_ACT_SEND_BACKWARD) > 0)
        plan.dx = tv_schedule_peak_slots(schedule, previous);
    return plan;
}

int64_t tv_executor_buffer_bytes(const struct tv_schedule *schedule, int stage,
                                 int64_t message_count)
{
    const struct tv_message_plan plan = tv_message_plan_of(schedule, stage);
    return (int64_t)(plan.x + plan.dy + plan.y + plan.dx) * message_count * (int64_t)sizeof(float);
}

static tv_status_t create_messages(struct tv_executor *e, struct tv_comm *pipe)
{
    const struct tv_message_plan plan = tv_message_plan_of(e->schedule, e->stage);
    TV_TRY(tv_comm_split(pipe, 0, e->stage, &e->forward));
    TV_TRY(tv_comm_split(pipe, 0, e->stage, &e->backward));
    tv_comm_set_name(e->forward, "pipe (activations)");
    tv_comm_set_name(e->backward, "pipe (gradients)");
    TV_TRY(tv_inbox_create(e, &e->x, TV_ACT_RECV_FORWARD, e->forward, plan.x, TV_MEM_BUFFERS));
    TV_TRY(tv_inbox_create(e, &e->dy, TV_ACT_RECV_BACKWARD, e->backward, plan.dy, TV_MEM_BUFFERS));
    TV_TRY(tv_outbox_create(e, &e->y, e->forward, plan.y));
    return tv_outbox_create(e, &e->dx, e->backward, plan.dx);
}

tv_status_t tv_executor_create(struct tv_comm *pipe, struct tv_stream *stream,
                               const struct tv_schedule *schedule, int64_t message_count,
                               struct tv_executor **executor_out)
{
    if (tv_comm_size(pipe) != schedule->num_stages)
        return TV_ERR(TV_INVALID, "schedule %s has %d stages, the pipe axis %d ranks",
                      schedule->name, schedule->num_stages, tv_comm_size(pipe));
    TV_TRY(tv_schedule_check(schedule, 0));
    struct tv_executor *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return TV_ERR(TV_NO_MEMORY, "executor: %zu bytes", sizeof(*e));
    e->schedule = schedule;
    e->stage = tv_comm_rank(pipe);
    e->stream = stream;
    e->message_count = message_count;
    e->num_slots = tv_schedule_peak_slots(schedule, e->stage);
    e->slot_of =
        calloc((size_t)schedule->num_chunks * (size_t)schedule->num_micro, sizeof(*e->slot_of));
    e->slot_is_used = calloc((size_t)e->num_slots, sizeof(*e->slot_is_used));
    e->backwards = calloc((size_t)schedule->num_chunks, sizeof(*e->backwards));
    tv_status_t status = TV_OK;
    if (!e->slot_of || !e->slot_is_used || !e->backwards)
        status = TV_ERR(TV_NO_MEMORY, "executor of %d micro-batches", schedule->num_micro);
    if (status == TV_OK)
        status = create_messages(e, pipe);
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
    tv_inbox_destroy(&e->x);
    tv_inbox_destroy(&e->dy);
    tv_outbox_destroy(&e->y);
    tv_outbox_destroy(&e->dx);
    tv_comm_destroy(e->backward);
    tv_comm_destroy(e->forward);
    free(e->slot_of);
    free(e->slot_is_used);
    free(e->backwards);
    free(e);
}

int tv_executor_num_slots(const struct tv_executor *e)
{
    return e->num_slots;
}

static int *slot_place(struct tv_executor *e, const struct tv_action *a)
{
    return &e->slot_of[a->chunk * e->schedule->num_micro + a->micro];
}

static int take_slot(struct tv_executor *e)
{
    int slot = 0;
    while (e->slot_is_used[slot])
        slot++; /* the checker's peak says that one is free */
    e->slot_is_used[slot] = 1;
    return slot;
}

/* Whoever waits from here on says what it was doing. */
static void say_what(struct tv_executor *e, const struct tv_action *a)
{
    const char *what = a->kind == TV_ACT_FORWARD || a->kind == TV_ACT_RECV_FORWARD ||
                               a->kind == TV_ACT_SEND_FORWARD
                           ? "forward"
                           : "backward";
    tv_comm_set_context(e->forward, "stage %d, %s of micro-batch %d", e->stage, what, a->micro);
    tv_comm_set_context(e->backward, "stage %d, %s of micro-batch %d", e->stage, what, a->micro);
}

static tv_status_t do_forward(struct tv_executor *e, const struct tv_action *a,
                              const struct tv_stage_functions *f)
{
    struct tv_stage_call call = {.chunk = a->chunk, .micro = a->micro, .slot = take_slot(e)};
    *slot_place(e, a) = call.slot;
    call.x = tv_inbox_data(e, &e->x, a->chunk, a->micro);
    if (e->y.num_buffers > 0)
        TV_TRY(tv_outbox_reserve(e, &e->y, call.slot, &call.y));
    return f->forward(f->context, &call);
}

static tv_status_t do_backward(struct tv_executor *e, const struct tv_action *a,
                               const struct tv_stage_functions *f)
{
    struct tv_stage_call call = {.chunk = a->chunk, .micro = a->micro, .slot = *slot_place(e, a)};
    call.is_last_backward = ++e->backwards[a->chunk] == e->schedule->num_micro;
    call.x = tv_inbox_data(e, &e->x, a->chunk, a->micro);
    call.dy = tv_inbox_data(e, &e->dy, a->chunk, a->micro);
    if (e->dx.num_buffers > 0)
        TV_TRY(tv_outbox_reserve(e, &e->dx, e->dx.next, &call.dx));
    TV_TRY(f->backward(f->context, &call));
    tv_inbox_release(&e->x, a->chunk, a->micro);
    tv_inbox_release(&e->dy, a->chunk, a->micro);
    e->slot_is_used[call.slot] = 0;
    return TV_OK;
}

static tv_status_t do_send_backward(struct tv_executor *e, const struct tv_action *a)
{
    const int index = e->dx.next;
    e->dx.next = (index + 1) % e->dx.num_buffers;
    return tv_outbox_send(e, &e->dx, index, a->peer);
}

static tv_status_t do_compute(struct tv_executor *e, const struct tv_action *a,
                              const struct tv_stage_functions *f, double *busy_seconds)
{
    const double waited = e->wait_seconds, started = tv_pipe_now();
    if (a->kind == TV_ACT_FORWARD)
        TV_TRY(do_forward(e, a, f));
    else
        TV_TRY(do_backward(e, a, f));
    *busy_seconds += tv_pipe_now() - started - (e->wait_seconds - waited);
    return TV_OK;
}

static tv_status_t do_action(struct tv_executor *e, const struct tv_action *a,
                             const struct tv_stage_functions *f, double *busy_seconds)
{
    say_what(e, a);
    switch (a->kind) {
    case TV_ACT_FORWARD:
    case TV_ACT_BACKWARD:
        return do_compute(e, a, f, busy_seconds);
    case TV_ACT_SEND_FORWARD:
        return tv_outbox_send(e, &e->y, *slot_place(e, a), a->peer);
    case TV_ACT_SEND_BACKWARD:
        return do_send_backward(e, a);
    case TV_ACT_RECV_FORWARD:
        return tv_inbox_take(e, &e->x);
    case TV_ACT_RECV_BACKWARD:
        return tv_inbox_take(e, &e->dy);
    default:
        return TV_ERR(TV_UNSUPPORTED, "schedule %s: this executor has no %s", e->schedule->name,
                      tv_action_kind_name(a->kind));
    }
}

tv_status_t tv_executor_run(struct tv_executor *e, const struct tv_stage_functions *functions,
                            struct tv_executor_report *report_out)
{
    const struct tv_action_list *list = &e->schedule->stages[e->stage];
    const double started = tv_pipe_now();
    double busy_seconds = 0;
    e->wait_seconds = 0;
    tv_inbox_reset(&e->x);
    tv_inbox_reset(&e->dy);
    for (int c = 0; c < e->schedule->num_chunks; c++)
        e->backwards[c] = 0;
    TV_TRY(tv_inbox_post(e, &e->x));
    TV_TRY(tv_inbox_post(e, &e->dy));
    for (int i = 0; i < list->num_actions; i++)
        TV_TRY(do_action(e, &list->actions[i], functions, &busy_seconds));
    TV_TRY(tv_outbox_finish(e, &e->y));
    TV_TRY(tv_outbox_finish(e, &e->dx));
    report_out->window_seconds = tv_pipe_now() - started;
    report_out->busy_seconds = busy_seconds;
    report_out->wait_seconds = e->wait_seconds;
    return TV_OK;
}

/* One evaluation micro-batch: buffers by turns, slot 0. */
static tv_status_t forward_only(struct tv_executor *e, int micro,
                                const struct tv_stage_functions *f)
{
    const struct tv_action a = {TV_ACT_FORWARD, 0, micro, -1};
    struct tv_stage_call call = {.micro = micro};
    struct tv_request *recv = NULL;
    const int is_last = e->stage == e->schedule->num_stages - 1;
    say_what(e, &a);
    if (e->stage > 0) {
        float *x = e->x.buffers.data;
        TV_TRY(
            tv_comm_recv(e->forward, x, e->message_count, TV_F32, e->stage - 1, e->stream, &recv));
        TV_TRY(tv_request_wait(&recv));
        call.x = x;
    }
    const int index = is_last ? 0 : micro % e->y.num_buffers;
    if (!is_last)
        TV_TRY(tv_outbox_reserve(e, &e->y, index, &call.y));
    TV_TRY(f->forward(f->context, &call));
    return is_last ? TV_OK : tv_outbox_send(e, &e->y, index, e->stage + 1);
}

tv_status_t tv_executor_run_forward(struct tv_executor *e, int num_micro,
                                    const struct tv_stage_functions *functions)
{
    if (e->schedule->num_chunks > 1)
        return TV_ERR(TV_UNSUPPORTED, "evaluation with %d chunks per stage",
                      e->schedule->num_chunks);
    for (int micro = 0; micro < num_micro; micro++)
        TV_TRY(forward_only(e, micro, functions));
    return tv_outbox_finish(e, &e->y);
}
