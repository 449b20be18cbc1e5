/* pipeline/schedule_check.c -- proves a schedule before anybody runs it.
 *
 * First each stage by itself: kinds, ranges, F before B (or I before W), each exactly once, backwards ascending, slots.
 * Then all stages together, each walking its list: a send never waits (the executor has a buffer for each, see
 * executor.c), a receive waits until its message was sent, and messages of one kind from one stage to another are taken
 * in the order in which they were sent. Posting receives early changes nothing but the time. */
#include "pipeline/schedule_internal.h"
#include <stdio.h>
#include <stdlib.h>

/* What has been done for one (chunk, micro-batch) of a stage: bit per action kind. */
struct marks {
    unsigned char *done; /* [v * m] */
    int *last_backward;  /* [v] micro-batch of the last B or I */
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
    const int other = tv_schedule_position(schedule, stage, a->chunk) + (towards_head ? 1 : -1);
    if (other < 0 || other >= schedule->num_stages * schedule->num_chunks)
        return -1;
    return tv_schedule_stage_of(schedule, other);
}

static int has(unsigned char done, tv_action_kind_t kind)
{
    return done >> kind & 1;
}

/* Why this compute action may not stand here, or NULL. */
static const char *compute_fault(const struct tv_action *a, unsigned char done, int needs_x,
                                 int needs_dy)
{
    switch (a->kind) {
    case TV_ACT_FORWARD:
        return needs_x && !has(done, TV_ACT_RECV_FORWARD) ? "before its input was received" : NULL;
    case TV_ACT_BACKWARD:
    case TV_ACT_BACKWARD_INPUT:
        if (!has(done, TV_ACT_FORWARD))
            return "before its F";
        if (has(done, TV_ACT_BACKWARD) || has(done, TV_ACT_BACKWARD_INPUT))
            return "a second time";
        return needs_dy && !has(done, TV_ACT_RECV_BACKWARD) ? "before its gradient was received"
                                                            : NULL;
    case TV_ACT_BACKWARD_WEIGHT:
        return has(done, TV_ACT_BACKWARD_INPUT) ? NULL : "before its I";
    default:
        return NULL;
    }
}

static const char *send_fault(const struct tv_action *a, unsigned char done)
{
    if (a->kind == TV_ACT_SEND_FORWARD && !has(done, TV_ACT_FORWARD))
        return "before its F";
    if (a->kind == TV_ACT_SEND_BACKWARD && !has(done, TV_ACT_BACKWARD) &&
        !has(done, TV_ACT_BACKWARD_INPUT))
        return "before its B or I";
    return NULL;
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
    unsigned char *done = &marks->done[a->chunk * schedule->num_micro + a->micro];
    if (has(*done, a->kind))
        return refuse(schedule, stage, i, "a second time");
    if (tv_action_is_compute(a->kind)) {
        const struct tv_action into = {TV_ACT_RECV_FORWARD, a->chunk, a->micro, -1};
        const struct tv_action back = {TV_ACT_RECV_BACKWARD, a->chunk, a->micro, -1};
        const int from = expected_peer(schedule, stage, &into),
                  above = expected_peer(schedule, stage, &back);
        const char *fault =
            compute_fault(a, *done, from >= 0 && from != stage, above >= 0 && above != stage);
        if (fault != NULL)
            return refuse(schedule, stage, i, fault);
    } else {
        const int peer = expected_peer(schedule, stage, a);
        if (peer < 0 || peer == stage || a->peer != peer)
            return refuse(schedule, stage, i, "a message with the wrong stage");
        if (send_fault(a, *done) != NULL)
            return refuse(schedule, stage, i, send_fault(a, *done));
    }
    if (tv_action_makes_dx(a->kind)) {
        if (a->micro < marks->last_backward[a->chunk])
            return refuse(schedule, stage, i, "backwards of a chunk must ascend");
        marks->last_backward[a->chunk] = a->micro;
    }
    *done |= (unsigned char)(1 << a->kind);
    return TV_OK;
}

/* Everything that should have been done has been: compute, and the messages that neighbours need. */
static tv_status_t check_complete(const struct tv_schedule *schedule, int stage,
                                  const struct marks *marks)
{
    for (int c = 0; c < schedule->num_chunks; c++) {
        for (int m = 0; m < schedule->num_micro; m++) {
            const unsigned char done = marks->done[c * schedule->num_micro + m];
            tv_action_kind_t missing = TV_NUM_ACTION_KINDS;
            if (!has(done, TV_ACT_FORWARD))
                missing = TV_ACT_FORWARD;
            else if (!has(done, TV_ACT_BACKWARD) && !has(done, TV_ACT_BACKWARD_INPUT))
                missing = TV_ACT_BACKWARD;
            else if (has(done, TV_ACT_BACKWARD_INPUT) && !has(done, TV_ACT_BACKWARD_WEIGHT))
                missing = TV_ACT_BACKWARD_WEIGHT;
            for (int k = TV_ACT_SEND_FORWARD;
                 k < TV_NUM_ACTION_KINDS && missing == TV_NUM_ACTION_KINDS; k++) {
                const struct tv_action message = {(tv_action_kind_t)k, c, m, -1};
                const int peer = expected_peer(schedule, stage, &message);
                if (peer >= 0 && peer != stage && !has(done, message.kind))
                    missing = message.kind;
            }
            if (missing != TV_NUM_ACTION_KINDS)
                return TV_ERR(TV_INVALID,
                              "schedule %s: stage %d: %s of micro-batch %d, chunk %d is missing",
                              schedule->name, stage, tv_action_kind_name(missing), m, c);
        }
    }
    return TV_OK;
}

static tv_status_t check_stage(const struct tv_schedule *schedule, int stage, int slot_limit)
{
    struct marks marks = {calloc((size_t)schedule->num_chunks * (size_t)schedule->num_micro, 1),
                          calloc((size_t)schedule->num_chunks, sizeof(int))};
    tv_status_t status = TV_OK;
    if (marks.done == NULL || marks.last_backward == NULL)
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
