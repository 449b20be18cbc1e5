/* pipeline/schedule_check.c -- proves a schedule before anybody runs it.
 *
 * First each stage by itself: kinds, ranges, F before B (or I before W), each exactly once, B or I
 * and W ascending where the schedule promises it, gradients sent in the order in which they were
 * made, slots. Then all stages together, each walking its list: a receive waits until its message
 * was sent, and messages of one kind from one stage to another are taken in the order in which they
 * were sent. A send waits for nothing: the executor has a buffer for each (executor.c). So posting
 * receives early changes nothing but the time, and the walk need not know of it. */
#include "pipeline/schedule_internal.h"
#include <stdio.h>
#include <stdlib.h>

/* What a stage has done so far. */
struct marks {
    unsigned char *done; /* [v * m] bit per action kind */
    int *last_backward;  /* [v] micro-batch of the last B or I */
    int *last_weight;    /* [v] micro-batch of the last B or W */
    int *gradients; /* [v * m] places (chunk * m + micro-batch) whose gradient has to be sent */
    int num_gradients, num_gradients_sent;
};

static tv_status_t refuse(const struct tv_schedule *schedule, int stage, int i, const char *why)
{
    const struct tv_action *a = &schedule->stages[stage].actions[i];
    return TV_ERR(TV_INVALID,
                  "schedule %s: stage %d, action %d: %s of micro-batch %d, chunk %d: %s",
                  schedule->name, stage, i, tv_action_kind_name(a->kind), a->micro, a->chunk, why);
}

/* The stage at the other end that a message must name, or -1 where there is none. */
static int expected_peer(const struct tv_schedule *schedule, int stage, const struct tv_action *a)
{
    const int towards_head = a->kind == TV_ACT_SEND_FORWARD || a->kind == TV_ACT_RECV_BACKWARD;
    const int peer = tv_schedule_neighbour(schedule, stage, a->chunk, towards_head ? 1 : -1);
    return peer == stage ? -1 : peer;
}

static int place_of(const struct tv_schedule *schedule, const struct tv_action *a)
{
    return a->chunk * schedule->num_micro + a->micro;
}

static int has(unsigned char done, tv_action_kind_t kind)
{
    return done >> kind & 1;
}

static int has_dx(unsigned char done)
{
    return has(done, TV_ACT_BACKWARD) || has(done, TV_ACT_BACKWARD_INPUT);
}

/* Why there is not yet what a compute action takes from the position before it (shift -1: its
 * input) or behind it (shift +1: its gradient), or NULL. It comes by message, unless that position
 * is on this stage. */
static const char *input_fault(const struct tv_schedule *schedule, int stage,
                               const struct tv_action *a, const struct marks *marks, int shift)
{
    const int peer = tv_schedule_neighbour(schedule, stage, a->chunk, shift);
    if (peer < 0)
        return NULL;
    if (peer != stage) {
        const unsigned char done = marks->done[place_of(schedule, a)];
        if (shift < 0)
            return has(done, TV_ACT_RECV_FORWARD) ? NULL : "before its input was received";
        return has(done, TV_ACT_RECV_BACKWARD) ? NULL : "before its gradient was received";
    }
    struct tv_action other = *a;
    other.chunk =
        tv_schedule_chunk_of(schedule, tv_schedule_position(schedule, stage, a->chunk) + shift);
    const unsigned char done = marks->done[place_of(schedule, &other)];
    if (shift < 0)
        return has(done, TV_ACT_FORWARD) ? NULL : "before its input was made";
    return has_dx(done) ? NULL : "before its gradient was made";
}

/* Why this compute action may not stand here, or NULL. */
static const char *compute_fault(const struct tv_schedule *schedule, int stage,
                                 const struct tv_action *a, const struct marks *marks)
{
    const unsigned char done = marks->done[place_of(schedule, a)];
    if (a->kind == TV_ACT_FORWARD)
        return input_fault(schedule, stage, a, marks, -1);
    if (a->kind == TV_ACT_BACKWARD_WEIGHT && !has(done, TV_ACT_BACKWARD_INPUT))
        return "before its I";
    if (tv_action_makes_dx(a->kind)) {
        if (!has(done, TV_ACT_FORWARD))
            return "before its F";
        if (has_dx(done))
            return "a second time";
        if (schedule->is_ordered && a->micro < marks->last_backward[a->chunk])
            return "backwards of a chunk must ascend";
    }
    if (schedule->is_ordered && tv_action_makes_dw(a->kind) &&
        a->micro < marks->last_weight[a->chunk])
        return "weight gradients of a chunk must ascend";
    return tv_action_makes_dx(a->kind) ? input_fault(schedule, stage, a, marks, +1) : NULL;
}

/* Why this message may not stand here, or NULL. */
static const char *message_fault(const struct tv_schedule *schedule, int stage,
                                 const struct tv_action *a, const struct marks *marks)
{
    const int place = place_of(schedule, a);
    const int peer = expected_peer(schedule, stage, a);
    if (peer < 0 || a->peer != peer)
        return "a message with the wrong stage";
    if (a->kind == TV_ACT_SEND_FORWARD)
        return has(marks->done[place], TV_ACT_FORWARD) ? NULL : "before its F";
    if (a->kind != TV_ACT_SEND_BACKWARD)
        return NULL;
    if (!has_dx(marks->done[place]))
        return "before its B or I";
    return marks->gradients[marks->num_gradients_sent] == place
               ? NULL
               : "gradients are sent in the order in which they are made";
}

static void mark(const struct tv_schedule *schedule, int stage, const struct tv_action *a,
                 struct marks *marks)
{
    const struct tv_action send = {.kind = TV_ACT_SEND_BACKWARD, .chunk = a->chunk};
    marks->done[place_of(schedule, a)] |= (unsigned char)(1 << a->kind);
    marks->num_gradients_sent += a->kind == TV_ACT_SEND_BACKWARD;
    if (tv_action_makes_dw(a->kind))
        marks->last_weight[a->chunk] = a->micro;
    if (!tv_action_makes_dx(a->kind))
        return;
    marks->last_backward[a->chunk] = a->micro;
    if (expected_peer(schedule, stage, &send) >= 0)
        marks->gradients[marks->num_gradients++] = place_of(schedule, a);
}

static tv_status_t check_action(const struct tv_schedule *schedule, int stage, int i,
                                struct marks *marks)
{
    const struct tv_action *a = &schedule->stages[stage].actions[i];
    if ((unsigned)a->kind >= TV_NUM_ACTION_KINDS)
        return TV_ERR(TV_INVALID, "schedule %s: stage %d, action %d: unknown kind %d",
                      schedule->name, stage, i, a->kind);
    if (a->chunk < 0 || a->chunk >= schedule->num_chunks || a->micro < 0 ||
        a->micro >= schedule->num_micro)
        return refuse(schedule, stage, i, "no such micro-batch or chunk");
    if (has(marks->done[place_of(schedule, a)], a->kind))
        return refuse(schedule, stage, i, "a second time");
    const char *fault = tv_action_is_compute(a->kind) ? compute_fault(schedule, stage, a, marks)
                                                      : message_fault(schedule, stage, a, marks);
    if (fault != NULL)
        return refuse(schedule, stage, i, fault);
    mark(schedule, stage, a, marks);
    return TV_OK;
}

/* The first thing that should have been done for this place and has not, or TV_NUM_ACTION_KINDS. */
static tv_action_kind_t missing_kind(const struct tv_schedule *schedule, int stage, int chunk,
                                     unsigned char done)
{
    if (!has(done, TV_ACT_FORWARD))
        return TV_ACT_FORWARD;
    if (!has_dx(done))
        return TV_ACT_BACKWARD;
    if (has(done, TV_ACT_BACKWARD_INPUT) && !has(done, TV_ACT_BACKWARD_WEIGHT))
        return TV_ACT_BACKWARD_WEIGHT;
    for (tv_action_kind_t kind = TV_ACT_SEND_FORWARD; kind < TV_NUM_ACTION_KINDS; kind++) {
        const struct tv_action message = {.kind = kind, .chunk = chunk};
        if (expected_peer(schedule, stage, &message) >= 0 && !has(done, kind))
            return kind;
    }
    return TV_NUM_ACTION_KINDS;
}

static tv_status_t check_complete(const struct tv_schedule *schedule, int stage,
                                  const struct marks *marks)
{
    for (int place = 0; place < schedule->num_chunks * schedule->num_micro; place++) {
        const int chunk = place / schedule->num_micro, micro = place % schedule->num_micro;
        const tv_action_kind_t missing = missing_kind(schedule, stage, chunk, marks->done[place]);
        if (missing != TV_NUM_ACTION_KINDS)
            return TV_ERR(TV_INVALID,
                          "schedule %s: stage %d: %s of micro-batch %d, chunk %d is missing",
                          schedule->name, stage, tv_action_kind_name(missing), micro, chunk);
    }
    return TV_OK;
}

static tv_status_t check_stage(const struct tv_schedule *schedule, int stage, int slot_limit)
{
    const size_t places = (size_t)schedule->num_chunks * (size_t)schedule->num_micro;
    const size_t chunks = (size_t)schedule->num_chunks;
    struct marks marks = {.done = calloc(places, 1),
                          .last_backward = calloc(chunks, sizeof(int)),
                          .last_weight = calloc(chunks, sizeof(int)),
                          .gradients = calloc(places, sizeof(int))};
    tv_status_t status = TV_OK;
    if (!marks.done || !marks.last_backward || !marks.last_weight || !marks.gradients)
        status = TV_ERR(TV_NO_MEMORY, "check of schedule %s", schedule->name);
    int held = 0;
    for (int i = 0; i < schedule->stages[stage].num_actions && status == TV_OK; i++) {
        const tv_action_kind_t kind = schedule->stages[stage].actions[i].kind;
        status = check_action(schedule, stage, i, &marks);
        held += kind == TV_ACT_FORWARD;
        if (status == TV_OK && slot_limit > 0 && held > slot_limit)
            status = refuse(schedule, stage, i, "more slots than the limit");
        held -= kind == TV_ACT_BACKWARD || kind == TV_ACT_BACKWARD_WEIGHT;
    }
    if (status == TV_OK)
        status = check_complete(schedule, stage, &marks);
    free(marks.done);
    free(marks.last_backward);
    free(marks.last_weight);
    free(marks.gradients);
    return status;
}

/* ---- all stages together ---- */

struct walk {
    const struct tv_schedule *schedule;
    int *next;     /* [P] the action that a stage stands at */
    int *num_sent; /* [P, P, kinds] messages sent and not yet taken */
    int *resume;   /* [P, P, kinds] where in the sender's list the next of them is looked for */
};

static size_t pair(const struct walk *walk, int from, int to, tv_action_kind_t send_kind)
{
    const size_t place = (size_t)from * (size_t)walk->schedule->num_stages + (size_t)to;
    return place * TV_NUM_ACTION_KINDS + (size_t)send_kind;
}

/* The next message of this kind from `from` to `to`. */
static const struct tv_action *next_send(struct walk *walk, int from, int to, tv_action_kind_t kind)
{
    const struct tv_action_list *list = &walk->schedule->stages[from];
    int *i = &walk->resume[pair(walk, from, to, kind)];
    while (*i < list->num_actions) {
        const struct tv_action *a = &list->actions[(*i)++];
        if (a->kind == kind && a->peer == to)
            return a;
    }
    return NULL;
}

static tv_action_kind_t send_kind_of(tv_action_kind_t recv_kind)
{
    return recv_kind == TV_ACT_RECV_FORWARD ? TV_ACT_SEND_FORWARD : TV_ACT_SEND_BACKWARD;
}

static tv_status_t check_matched(struct walk *walk, int stage, int i)
{
    const struct tv_schedule *schedule = walk->schedule;
    const struct tv_action *a = &schedule->stages[stage].actions[i];
    const struct tv_action *sent = next_send(walk, a->peer, stage, send_kind_of(a->kind));
    const int shift = a->kind == TV_ACT_RECV_FORWARD ? 1 : -1;
    if (sent == NULL || sent->micro != a->micro ||
        tv_schedule_position(schedule, a->peer, sent->chunk) + shift !=
            tv_schedule_position(schedule, stage, a->chunk))
        return refuse(schedule, stage, i, "does not match the order in which its peer sends");
    return TV_OK;
}

/* Advance one stage as far as it goes. */
static tv_status_t advance(struct walk *walk, int stage, int *did_out)
{
    const struct tv_action_list *list = &walk->schedule->stages[stage];
    *did_out = 0;
    while (walk->next[stage] < list->num_actions) {
        const struct tv_action *a = &list->actions[walk->next[stage]];
        if (tv_action_is_send(a->kind)) {
            walk->num_sent[pair(walk, stage, a->peer, a->kind)]++;
        } else if (tv_action_is_recv(a->kind)) {
            int *sent = &walk->num_sent[pair(walk, a->peer, stage, send_kind_of(a->kind))];
            if (*sent == 0)
                return TV_OK; /* waits */
            TV_TRY(check_matched(walk, stage, walk->next[stage]));
            --*sent;
        }
        walk->next[stage]++;
        ++*did_out;
    }
    return TV_OK;
}

static tv_status_t walk_all(struct walk *walk)
{
    const struct tv_schedule *schedule = walk->schedule;
    for (;;) {
        int did = 0, is_done = 1;
        for (int s = 0; s < schedule->num_stages; s++) {
            int here;
            TV_TRY(advance(walk, s, &here));
            did += here;
            is_done &= walk->next[s] == schedule->stages[s].num_actions;
        }
        if (is_done)
            return TV_OK;
        for (int s = 0; s < schedule->num_stages && did == 0; s++) {
            if (walk->next[s] < schedule->stages[s].num_actions)
                return refuse(schedule, s, walk->next[s],
                              "waits for ever: the stages wait for each other");
        }
    }
}

static tv_status_t check_together(const struct tv_schedule *schedule)
{
    const size_t P = (size_t)schedule->num_stages;
    struct walk walk = {schedule, calloc(P, sizeof(int)),
                        calloc(P * P * TV_NUM_ACTION_KINDS, sizeof(int)),
                        calloc(P * P * TV_NUM_ACTION_KINDS, sizeof(int))};
    tv_status_t status = TV_OK;
    if (walk.next == NULL || walk.num_sent == NULL || walk.resume == NULL)
        status = TV_ERR(TV_NO_MEMORY, "check of schedule %s", schedule->name);
    else
        status = walk_all(&walk);
    free(walk.next);
    free(walk.num_sent);
    free(walk.resume);
    return status;
}

tv_status_t tv_schedule_check(const struct tv_schedule *schedule, int slot_limit)
{
    if (schedule->num_stages < 1 || schedule->num_chunks < 1 || schedule->num_micro < 1)
        return TV_ERR(TV_INVALID, "schedule %s: %d stages, %d chunks, %d micro-batches",
                      schedule->name, schedule->num_stages, schedule->num_chunks,
                      schedule->num_micro);
    for (int s = 0; s < schedule->num_stages; s++)
        TV_TRY(check_stage(schedule, s, slot_limit));
    return check_together(schedule);
}
