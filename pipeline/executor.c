/* pipeline/executor.c -- walks one stage's list and calls the stage functions.
 *
 * Buffers, so that a send never waits for anything but a message that its peer already has:
 *   y   one per slot: when a slot is used again its B is done, so the next stage has received its y
 *       long ago
 *   dx  as many as the previous stage has slots: a dx that is under way belongs to a micro-batch in
 *       flight there
 *   x   as many as are kept at once from receive to B, and TV_EARLY_RECEIVES more
 *   dy  the same, from its receive to B */
#include "base/clock.h"
#include "pipeline/executor_internal.h"
#include "pipeline/schedule_internal.h"
#include <inttypes.h>
#include <stdlib.h>

static int count_kind(const struct tv_schedule *schedule, int stage, tv_action_kind_t kind)
{
    int n = 0;
    for (int i = 0; i < schedule->stages[stage].num_actions; i++)
        n += schedule->stages[stage].actions[i].kind == kind;
    return n;
}

/* Most messages of `kind` that a stage keeps at once, from the receive to the end of B (or W). */
static int peak_kept(const struct tv_schedule *schedule, int stage, tv_action_kind_t kind)
{
    const int shift = kind == TV_ACT_RECV_FORWARD ? -1 : 1;
    int kept = 0, peak = 0;
    for (int i = 0; i < schedule->stages[stage].num_actions; i++) {
        const struct tv_action *a = &schedule->stages[stage].actions[i];
        const int peer = tv_schedule_neighbour(schedule, stage, a->chunk, shift);
        kept += a->kind == kind;
        peak = kept > peak ? kept : peak;
        if (a->kind == TV_ACT_BACKWARD || a->kind == TV_ACT_BACKWARD_WEIGHT)
            kept -= peer >= 0 && peer != stage;
    }
    return peak;
}

struct tv_message_plan tv_message_plan_of(const struct tv_schedule *schedule, int stage)
{
    const int previous = (stage + schedule->num_stages - 1) % schedule->num_stages;
    struct tv_message_plan plan = {0};
    if (count_kind(schedule, stage, TV_ACT_RECV_FORWARD) > 0)
        plan.x = peak_kept(schedule, stage, TV_ACT_RECV_FORWARD) + TV_EARLY_RECEIVES;
    if (count_kind(schedule, stage, TV_ACT_RECV_BACKWARD) > 0)
        plan.dy = peak_kept(schedule, stage, TV_ACT_RECV_BACKWARD) + TV_EARLY_RECEIVES;
    if (count_kind(schedule, stage, TV_ACT_SEND_FORWARD) > 0)
        plan.y = tv_schedule_peak_slots(schedule, stage);
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
    tv_comm_set_name(e->forward, "pipe forward");
    tv_comm_set_name(e->backward, "pipe backward");
    TV_TRY(tv_inbox_create(e, &e->x, TV_ACT_RECV_FORWARD, e->forward, plan.x));
    TV_TRY(tv_inbox_create(e, &e->dy, TV_ACT_RECV_BACKWARD, e->backward, plan.dy));
    TV_TRY(tv_outbox_create(e, &e->y, e->forward, plan.y));
    return tv_outbox_create(e, &e->dx, e->backward, plan.dx);
}

static tv_status_t check_arguments(const struct tv_comm *pipe, const struct tv_schedule *schedule,
                                   int64_t message_count)
{
    const int num_ranks = tv_comm_size(pipe);
    if (num_ranks != schedule->num_stages)
        return TV_ERR(TV_INVALID, "schedule %s has %d stages, the pipe axis %d ranks",
                      schedule->name, schedule->num_stages, num_ranks);
    if (message_count < 1)
        return TV_ERR(TV_INVALID, "messages of %" PRId64 " elements", message_count);
    TV_TRY(tv_schedule_check(schedule, 0));
    if (schedule->num_stages == 1 && schedule->num_chunks > 1)
        return TV_ERR(TV_UNSUPPORTED, "schedule %s: %d chunks on one stage", schedule->name,
                      schedule->num_chunks);
    for (int s = 0; s < schedule->num_stages; s++) {
        if (count_kind(schedule, s, TV_ACT_BACKWARD_INPUT) > 0)
            return TV_ERR(TV_UNSUPPORTED,
                          "schedule %s: stage functions have no I and W of their own",
                          schedule->name);
    }
    return TV_OK;
}

static tv_status_t create_tables(struct tv_executor *e)
{
    const struct tv_schedule *schedule = e->schedule;
    const size_t places = (size_t)schedule->num_chunks * (size_t)schedule->num_micro;
    e->num_slots = tv_schedule_peak_slots(schedule, e->stage);
    e->slot_of = calloc(places, sizeof(*e->slot_of));
    e->dx_of = calloc(places, sizeof(*e->dx_of));
    e->slot_is_used = calloc((size_t)e->num_slots, sizeof(*e->slot_is_used));
    e->backwards = calloc((size_t)schedule->num_chunks, sizeof(*e->backwards));
    if (!e->slot_of || !e->dx_of || !e->slot_is_used || !e->backwards)
        return TV_ERR(TV_NO_MEMORY, "executor of %d micro-batches", schedule->num_micro);
    return TV_OK;
}

tv_status_t tv_executor_create(struct tv_comm *pipe, struct tv_stream *stream,
                               const struct tv_schedule *schedule, int64_t message_count,
                               struct tv_executor **executor_out)
{
    TV_TRY(check_arguments(pipe, schedule, message_count));
    struct tv_executor *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return TV_ERR(TV_NO_MEMORY, "executor: %zu bytes", sizeof(*e));
    e->schedule = schedule;
    e->stage = tv_comm_rank(pipe);
    e->stream = stream;
    e->message_count = message_count;
    tv_status_t status = create_tables(e);
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
    free(e->dx_of);
    free(e->slot_is_used);
    free(e->backwards);
    free(e);
}

int tv_executor_num_slots(const struct tv_executor *e)
{
    return e->num_slots;
}

static int place_of(const struct tv_executor *e, const struct tv_action *a)
{
    return a->chunk * e->schedule->num_micro + a->micro;
}

static int has_neighbour(const struct tv_executor *e, const struct tv_action *a, int shift)
{
    return tv_schedule_neighbour(e->schedule, e->stage, a->chunk, shift) >= 0;
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

static tv_status_t call_stage(struct tv_executor *e, const struct tv_stage_functions *f,
                              tv_action_kind_t kind, const struct tv_stage_call *call)
{
    const double started = tv_clock_seconds();
    const tv_status_t status =
        kind == TV_ACT_FORWARD ? f->forward(f->context, call) : f->backward(f->context, call);
    e->busy_seconds += tv_clock_seconds() - started;
    return status;
}

static tv_status_t do_forward(struct tv_executor *e, const struct tv_action *a,
                              const struct tv_stage_functions *f)
{
    struct tv_stage_call call = {.chunk = a->chunk, .micro = a->micro, .slot = take_slot(e)};
    e->slot_of[place_of(e, a)] = call.slot;
    call.x = tv_inbox_data(e, &e->x, a->chunk, a->micro);
    if (has_neighbour(e, a, +1))
        TV_TRY(tv_outbox_reserve(e, &e->y, call.slot, &call.y));
    return call_stage(e, f, a->kind, &call);
}

static tv_status_t do_backward(struct tv_executor *e, const struct tv_action *a,
                               const struct tv_stage_functions *f)
{
    const int place = place_of(e, a);
    struct tv_stage_call call = {.chunk = a->chunk, .micro = a->micro, .slot = e->slot_of[place]};
    call.is_last_backward = ++e->backwards[a->chunk] == e->schedule->num_micro;
    call.x = tv_inbox_data(e, &e->x, a->chunk, a->micro);
    call.dy = tv_inbox_data(e, &e->dy, a->chunk, a->micro);
    if (has_neighbour(e, a, -1)) {
        e->dx_of[place] = e->dx.next;
        e->dx.next = (e->dx.next + 1) % e->dx.num_buffers;
        TV_TRY(tv_outbox_reserve(e, &e->dx, e->dx_of[place], &call.dx));
    }
    TV_TRY(call_stage(e, f, a->kind, &call));
    tv_inbox_release(&e->x, a->chunk, a->micro);
    tv_inbox_release(&e->dy, a->chunk, a->micro);
    e->slot_is_used[call.slot] = 0;
    return TV_OK;
}

static tv_status_t do_action(struct tv_executor *e, const struct tv_action *a,
                             const struct tv_stage_functions *f)
{
    say_what(e, a);
    switch (a->kind) {
    case TV_ACT_FORWARD:
        return do_forward(e, a, f);
    case TV_ACT_BACKWARD:
        return do_backward(e, a, f);
    case TV_ACT_SEND_FORWARD:
        return tv_outbox_send(e, &e->y, e->slot_of[place_of(e, a)], a->peer);
    case TV_ACT_SEND_BACKWARD:
        return tv_outbox_send(e, &e->dx, e->dx_of[place_of(e, a)], a->peer);
    case TV_ACT_RECV_FORWARD:
        return tv_inbox_take(e, &e->x);
    case TV_ACT_RECV_BACKWARD:
        return tv_inbox_take(e, &e->dy);
    default:
        return TV_ERR(TV_INTERNAL, "schedule %s: action %s", e->schedule->name,
                      tv_action_kind_name(a->kind));
    }
}

tv_status_t tv_executor_run(struct tv_executor *e, const struct tv_stage_functions *functions,
                            struct tv_executor_report *report_out)
{
    const struct tv_action_list *list = &e->schedule->stages[e->stage];
    const double started = tv_clock_seconds();
    e->busy_seconds = e->wait_seconds = 0;
    e->dx.next = 0;
    tv_inbox_reset(&e->x);
    tv_inbox_reset(&e->dy);
    for (int c = 0; c < e->schedule->num_chunks; c++)
        e->backwards[c] = 0;
    TV_TRY(tv_inbox_post(e, &e->x));
    TV_TRY(tv_inbox_post(e, &e->dy));
    for (int i = 0; i < list->num_actions; i++)
        TV_TRY(do_action(e, &list->actions[i], functions));
    TV_TRY(tv_outbox_finish(e, &e->y));
    TV_TRY(tv_outbox_finish(e, &e->dx));
    report_out->window_seconds = tv_clock_seconds() - started;
    report_out->busy_seconds = e->busy_seconds;
    report_out->wait_seconds = e->wait_seconds;
    return TV_OK;
}

/* Post receives of an evaluation up to TV_EARLY_RECEIVES beyond `micro`; they use the x buffers by
 * turns, of which there are more than that. */
static tv_status_t post_early(struct tv_executor *e, int micro, int num_micro, int *num_posted)
{
    for (; *num_posted < num_micro && *num_posted <= micro + TV_EARLY_RECEIVES; ++*num_posted) {
        const int b = *num_posted % e->x.num_buffers;
        TV_TRY(tv_comm_recv(e->forward, tv_message_data(e, &e->x.buffers, b), e->message_count,
                            TV_F32, e->stage - 1, e->stream, &e->x.requests[b]));
    }
    return TV_OK;
}

/* One evaluation micro-batch, whose receive is posted: slot 0, the y buffers by turns. */
static tv_status_t forward_only(struct tv_executor *e, int micro,
                                const struct tv_stage_functions *f)
{
    const struct tv_action a = {.kind = TV_ACT_FORWARD, .micro = micro};
    struct tv_stage_call call = {.micro = micro};
    say_what(e, &a);
    if (has_neighbour(e, &a, -1)) {
        const int b = micro % e->x.num_buffers;
        TV_TRY(tv_message_wait(e, &e->x.requests[b]));
        call.x = tv_message_data(e, &e->x.buffers, b);
    }
    if (!has_neighbour(e, &a, +1))
        return f->forward(f->context, &call);
    const int b = micro % e->y.num_buffers;
    TV_TRY(tv_outbox_reserve(e, &e->y, b, &call.y));
    TV_TRY(f->forward(f->context, &call));
    return tv_outbox_send(e, &e->y, b, e->stage + 1);
}

tv_status_t tv_executor_run_forward(struct tv_executor *e, int num_micro,
                                    const struct tv_stage_functions *functions)
{
    int num_posted = 0;
    if (e->schedule->num_chunks > 1)
        return TV_ERR(TV_UNSUPPORTED, "evaluation with %d chunks per stage",
                      e->schedule->num_chunks);
    for (int micro = 0; micro < num_micro; micro++) {
        if (e->stage > 0)
            TV_TRY(post_early(e, micro, num_micro, &num_posted));
        TV_TRY(forward_only(e, micro, functions));
    }
    return tv_outbox_finish(e, &e->y);
}
