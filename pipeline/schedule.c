/* pipeline/schedule.c -- the lists themselves: memory, names, positions, lowering, slots. */
#include "pipeline/schedule_internal.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

const char *tv_action_kind_name(tv_action_kind_t kind)
{
    static const char *const names[TV_NUM_ACTION_KINDS] = {"F",      "B",      "I",      "W",
                                                           "SEND_F", "RECV_F", "SEND_B", "RECV_B"};
    return (unsigned)kind < TV_NUM_ACTION_KINDS ? names[kind] : "?";
}

int tv_schedule_position(const struct tv_schedule *schedule, int stage, int chunk)
{
    return chunk * schedule->num_stages + stage;
}

int tv_schedule_stage_of(const struct tv_schedule *schedule, int position)
{
    return position % schedule->num_stages;
}

int tv_schedule_chunk_of(const struct tv_schedule *schedule, int position)
{
    return position / schedule->num_stages;
}

int tv_schedule_neighbour(const struct tv_schedule *schedule, int stage, int chunk, int shift)
{
    const int other = tv_schedule_position(schedule, stage, chunk) + shift;
    if (other < 0 || other >= schedule->num_stages * schedule->num_chunks)
        return -1;
    return tv_schedule_stage_of(schedule, other);
}

tv_status_t tv_schedule_alloc(const char *name, int num_stages, int num_chunks, int num_micro,
                              int capacity, struct tv_schedule *schedule_out)
{
    struct tv_schedule schedule = {
        .num_stages = num_stages, .num_chunks = num_chunks, .num_micro = num_micro};
    snprintf(schedule.name, sizeof(schedule.name), "%s", name);
    schedule.stages = calloc((size_t)num_stages, sizeof(*schedule.stages));
    if (schedule.stages == NULL)
        return TV_ERR(TV_NO_MEMORY, "schedule of %d stages", num_stages);
    for (int s = 0; s < num_stages; s++) {
        schedule.stages[s].actions = calloc((size_t)capacity, sizeof(struct tv_action));
        if (schedule.stages[s].actions == NULL) {
            tv_schedule_destroy(&schedule);
            return TV_ERR(TV_NO_MEMORY, "schedule of %d stages with %d actions", num_stages,
                          capacity);
        }
    }
    *schedule_out = schedule;
    return TV_OK;
}

void tv_schedule_destroy(struct tv_schedule *schedule)
{
    if (schedule == NULL || schedule->stages == NULL)
        return;
    for (int s = 0; s < schedule->num_stages; s++)
        free(schedule->stages[s].actions);
    free(schedule->stages);
    *schedule = (struct tv_schedule){0};
}

static void append(struct tv_schedule *schedule, int stage, struct tv_action action)
{
    struct tv_action_list *list = &schedule->stages[stage];
    assert(list->actions != NULL);
    list->actions[list->num_actions++] = action;
}

void tv_schedule_append(struct tv_schedule *schedule, int stage, tv_action_kind_t kind, int chunk,
                        int micro)
{
    append(schedule, stage, (struct tv_action){kind, chunk, micro, -1});
}

/* Adds the message of `kind` with the position `shift` from this one, if that is on another
 * stage. */
static void append_message(struct tv_schedule *schedule, int stage, tv_action_kind_t kind,
                           struct tv_action of, int shift)
{
    const int peer = tv_schedule_neighbour(schedule, stage, of.chunk, shift);
    if (peer >= 0 && peer != stage)
        append(schedule, stage, (struct tv_action){kind, of.chunk, of.micro, peer});
}

tv_status_t tv_schedule_lower(const struct tv_schedule *compute, struct tv_schedule *lowered_out)
{
    const int num_stages = compute->num_stages;
    int longest = 0;
    for (int s = 0; s < num_stages; s++) {
        if (compute->stages[s].num_actions > longest)
            longest = compute->stages[s].num_actions;
    }
    struct tv_schedule lowered;
    TV_TRY(tv_schedule_alloc(compute->name, num_stages, compute->num_chunks, compute->num_micro,
                             3 * longest + 1, &lowered));
    for (int s = 0; s < num_stages; s++) {
        for (int i = 0; i < compute->stages[s].num_actions; i++) {
            const struct tv_action a = compute->stages[s].actions[i];
            if (a.kind == TV_ACT_FORWARD)
                append_message(&lowered, s, TV_ACT_RECV_FORWARD, a, -1);
            if (tv_action_makes_dx(a.kind))
                append_message(&lowered, s, TV_ACT_RECV_BACKWARD, a, +1);
            append(&lowered, s, a);
            if (a.kind == TV_ACT_FORWARD)
                append_message(&lowered, s, TV_ACT_SEND_FORWARD, a, +1);
            if (tv_action_makes_dx(a.kind))
                append_message(&lowered, s, TV_ACT_SEND_BACKWARD, a, -1);
        }
    }
    *lowered_out = lowered;
    return TV_OK;
}

int tv_schedule_peak_slots(const struct tv_schedule *schedule, int stage)
{
    int held = 0, peak = 0;
    for (int i = 0; i < schedule->stages[stage].num_actions; i++) {
        const tv_action_kind_t kind = schedule->stages[stage].actions[i].kind;
        if (kind == TV_ACT_FORWARD)
            held++;
        if (held > peak)
            peak = held;
        if (kind == TV_ACT_BACKWARD || kind == TV_ACT_BACKWARD_WEIGHT)
            held--;
    }
    return peak;
}
