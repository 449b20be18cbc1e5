/* pipeline/schedule.c -- the lists themselves: memory, positions, slots. */
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

int tv_chunk_position(tv_chunk_placement_t placement, int num_stages, int stage, int chunk)
{
    if (placement == TV_PLACE_V && chunk == 1)
        return 2 * num_stages - 1 - stage;
    return chunk * num_stages + stage;
}

int tv_schedule_position(const struct tv_schedule *schedule, int stage, int chunk)
{
    return schedule->position_of[stage * schedule->num_chunks + chunk];
}

int tv_schedule_stage_of(const struct tv_schedule *schedule, int position)
{
    return schedule->place_of[position] / schedule->num_chunks;
}

int tv_schedule_chunk_of(const struct tv_schedule *schedule, int position)
{
    return schedule->place_of[position] % schedule->num_chunks;
}

int tv_schedule_neighbour(const struct tv_schedule *schedule, int stage, int chunk, int shift)
{
    const int other = tv_schedule_position(schedule, stage, chunk) + shift;
    if (other < 0 || other >= schedule->num_stages * schedule->num_chunks)
        return -1;
    return tv_schedule_stage_of(schedule, other);
}

tv_status_t tv_schedule_reserve(struct tv_schedule *schedule, int stage, int capacity)
{
    struct tv_action_list *list = &schedule->stages[stage];
    free(list->actions);
    list->num_actions = 0;
    list->actions = calloc((size_t)capacity + 1, sizeof(*list->actions));
    return list->actions ? TV_OK : TV_ERR(TV_NO_MEMORY, "a stage of %d actions", capacity);
}

/* Room for the lists and the placement. */
static tv_status_t alloc_arrays(struct tv_schedule *schedule, int capacity)
{
    const size_t P = (size_t)schedule->num_stages, places = P * (size_t)schedule->num_chunks;
    schedule->stages = calloc(P, sizeof(*schedule->stages));
    schedule->position_of = calloc(places, sizeof(*schedule->position_of));
    schedule->place_of = calloc(places, sizeof(*schedule->place_of));
    if (!schedule->stages || !schedule->position_of || !schedule->place_of)
        return TV_ERR(TV_NO_MEMORY, "schedule of %d stages", schedule->num_stages);
    for (int s = 0; s < schedule->num_stages; s++)
        TV_TRY(tv_schedule_reserve(schedule, s, capacity));
    return TV_OK;
}

tv_status_t tv_schedule_alloc(const struct tv_schedule_args *args, tv_chunk_placement_t placement,
                              int capacity, struct tv_schedule *schedule_out)
{
    struct tv_schedule schedule = {.num_stages = args->num_stages,
                                   .num_chunks = args->num_chunks,
                                   .num_micro = args->num_micro,
                                   .is_ordered = 1};
    snprintf(schedule.name, sizeof(schedule.name), "%s", args->name);
    const tv_status_t status = alloc_arrays(&schedule, capacity);
    if (status != TV_OK) {
        tv_schedule_destroy(&schedule);
        return status;
    }
    for (int place = 0; place < args->num_stages * args->num_chunks; place++) {
        const int stage = place / args->num_chunks, chunk = place % args->num_chunks;
        const int position = tv_chunk_position(placement, args->num_stages, stage, chunk);
        schedule.position_of[place] = position;
        schedule.place_of[position] = place;
    }
    *schedule_out = schedule;
    return TV_OK;
}

void tv_schedule_destroy(struct tv_schedule *schedule)
{
    if (schedule == NULL)
        return;
    for (int s = 0; schedule->stages != NULL && s < schedule->num_stages; s++)
        free(schedule->stages[s].actions);
    free(schedule->stages);
    free(schedule->position_of);
    free(schedule->place_of);
    *schedule = (struct tv_schedule){0};
}

void tv_schedule_append(struct tv_schedule *schedule, int stage, tv_action_kind_t kind, int chunk,
                        int micro)
{
    struct tv_action_list *list = &schedule->stages[stage];
    assert(list->actions != NULL);
    list->actions[list->num_actions++] =
        (struct tv_action){.kind = kind, .chunk = chunk, .micro = micro, .peer = -1};
}

void tv_schedule_drop(struct tv_schedule *schedule, int num_micro)
{
    for (int s = 0; s < schedule->num_stages; s++) {
        struct tv_action_list *list = &schedule->stages[s];
        int kept = 0;
        for (int i = 0; i < list->num_actions; i++) {
            struct tv_action a = list->actions[i];
            if (a.micro >= num_micro)
                continue;
            if (a.is_paired && list->actions[i + 1].micro >= num_micro)
                a.is_paired = 0; /* its other half goes */
            list->actions[kept++] = a;
        }
        list->num_actions = kept;
    }
    schedule->num_micro = num_micro;
}

/* Most held at once by the chunks in [first, last] of a stage, taken by F and given back by
 * `release` or B. */
static int peak_held(const struct tv_schedule *schedule, int stage, int first, int last,
                     tv_action_kind_t release)
{
    int held = 0, peak = 0;
    for (int i = 0; i < schedule->stages[stage].num_actions; i++) {
        const struct tv_action *a = &schedule->stages[stage].actions[i];
        if (a->chunk < first || a->chunk > last)
            continue;
        held += a->kind == TV_ACT_FORWARD;
        peak = held > peak ? held : peak;
        held -= a->kind == TV_ACT_BACKWARD || a->kind == release;
    }
    return peak;
}

int tv_schedule_peak_slots(const struct tv_schedule *schedule, int stage)
{
    return peak_held(schedule, stage, 0, schedule->num_chunks - 1, TV_ACT_BACKWARD_WEIGHT);
}

int tv_schedule_peak_slots_input(const struct tv_schedule *schedule, int stage)
{
    return peak_held(schedule, stage, 0, schedule->num_chunks - 1, TV_ACT_BACKWARD_INPUT);
}

int tv_schedule_chunk_slots(const struct tv_schedule *schedule, int stage, int chunk)
{
    return peak_held(schedule, stage, chunk, chunk, TV_ACT_BACKWARD_WEIGHT);
}

int tv_schedule_chunk_works(const struct tv_schedule *schedule, int stage, int chunk)
{
    int held = 0, peak = 0;
    for (int i = 0; i < schedule->stages[stage].num_actions; i++) {
        const struct tv_action *a = &schedule->stages[stage].actions[i];
        if (a->chunk != chunk || !tv_action_is_compute(a->kind))
            continue;
        const int during = held + (a->kind != TV_ACT_BACKWARD_WEIGHT);
        peak = during > peak ? during : peak;
        held += (a->kind == TV_ACT_BACKWARD_INPUT) - (a->kind == TV_ACT_BACKWARD_WEIGHT);
    }
    return peak;
}

int tv_schedule_splits_backward(const struct tv_schedule *schedule, int stage, int chunk)
{
    for (int i = 0; i < schedule->stages[stage].num_actions; i++) {
        const struct tv_action *a = &schedule->stages[stage].actions[i];
        if (a->chunk == chunk && a->kind == TV_ACT_BACKWARD_INPUT)
            return 1;
    }
    return 0;
}
