/* pipeline/simulate.c -- walks the lists in rounds until every stage is at its end; a stage goes on
 * while the inputs of its next action have been timed. */
#include "pipeline/simulate.h"
#include "pipeline/schedule_internal.h"
#include <math.h>
#include <stdlib.h>

struct simulation {
    const struct tv_schedule *schedule;
    const struct tv_schedule_costs *costs;
    double *forward_end, *backward_end; /* [positions, m] NAN: not yet */
    double *free_at;                    /* [P] */
    int *next;                          /* [P] the action that a stage stands at */
    struct tv_stage_timing *stages;
};

static double *end_of(const struct simulation *sim, double *ends, int position, int micro)
{
    return &ends[(size_t)position * (size_t)sim->schedule->num_micro + (size_t)micro];
}

static double send_cost(const struct simulation *sim, int from, int to)
{
    if (from == to)
        return 0;
    return sim->costs->link ? sim->costs->link[from * sim->schedule->num_stages + to]
                            : sim->costs->send;
}

/* When what position `from` made is there for position `to`; NAN: not yet. */
static double arrival(const struct simulation *sim, double *ends, int from, int to, int micro)
{
    return *end_of(sim, ends, from, micro) + send_cost(sim,
                                                       tv_schedule_stage_of(sim->schedule, from),
                                                       tv_schedule_stage_of(sim->schedule, to));
}

/* When the inputs of a compute action exist; NAN: not yet. */
static double ready_at(const struct simulation *sim, int stage, const struct tv_action *a)
{
    const struct tv_schedule *schedule = sim->schedule;
    const int position = tv_schedule_position(schedule, stage, a->chunk);
    const int last = schedule->num_stages * schedule->num_chunks - 1;
    if (a->kind == TV_ACT_FORWARD)
        return position == 0 ? 0 : arrival(sim, sim->forward_end, position - 1, position, a->micro);
    if (a->kind == TV_ACT_BACKWARD_WEIGHT)
        return *end_of(sim, sim->backward_end, position, a->micro);
    const double own = *end_of(sim, sim->forward_end, position, a->micro);
    if (position == last || isnan(own))
        return own;
    const double above = arrival(sim, sim->backward_end, position + 1, position, a->micro);
    return isnan(above) || above > own ? above : own;
}

static double duration(const struct simulation *sim, int stage, const struct tv_action *a)
{
    const int position = tv_schedule_position(sim->schedule, stage, a->chunk);
    const double input = sim->costs->backward_input[position],
                 weight = sim->costs->backward_weight[position];
    switch (a->kind) {
    case TV_ACT_FORWARD:
        return sim->costs->forward[position];
    case TV_ACT_BACKWARD:
        return input + weight;
    case TV_ACT_BACKWARD_INPUT:
        return input;
    default:
        return weight;
    }
}

static void finish(struct simulation *sim, int stage, int i, double start, double end)
{
    const struct tv_action *a = &sim->schedule->stages[stage].actions[i];
    const int position = tv_schedule_position(sim->schedule, stage, a->chunk);
    sim->stages[stage].times[i] = (struct tv_action_time){start, end};
    if (a->kind == TV_ACT_FORWARD)
        *end_of(sim, sim->forward_end, position, a->micro) = end;
    else if (tv_action_makes_dx(a->kind))
        *end_of(sim, sim->backward_end, position, a->micro) = end;
    if (end > sim->free_at[stage])
        sim->free_at[stage] = end;
}

/* The compute action that shares action i's pair, or -1. */
static int partner_of(const struct simulation *sim, int stage, int i)
{
    const struct tv_action_list *list = &sim->schedule->stages[stage];
    if (!sim->costs->joins_pairs || !list->actions[i].is_paired)
        return -1;
    for (int k = i + 1; k < list->num_actions; k++) {
        if (tv_action_is_compute(list->actions[k].kind))
            return k;
    }
    return -1;
}

/* Time action i, and its partner, if the inputs are there. */
static int time_action(struct simulation *sim, int stage, int i)
{
    const struct tv_action *actions = sim->schedule->stages[stage].actions;
    const int partner = partner_of(sim, stage, i);
    double ready = ready_at(sim, stage, &actions[i]);
    double length = duration(sim, stage, &actions[i]);
    if (partner >= 0) {
        const double other = ready_at(sim, stage, &actions[partner]);
        ready = isnan(other) || other > ready ? other : ready;
        length += duration(sim, stage, &actions[partner]);
    }
    if (isnan(ready))
        return 0;
    const double start = ready > sim->free_at[stage] ? ready : sim->free_at[stage];
    sim->stages[stage].busy += length;
    finish(sim, stage, i, start, start + length);
    if (partner >= 0)
        finish(sim, stage, partner, start, start + length);
    return 1;
}

static int is_timed(const struct simulation *sim, int stage, int i)
{
    return !isnan(sim->stages[stage].times[i].end);
}

static int advance(struct simulation *sim, int stage)
{
    const struct tv_action_list *list = &sim->schedule->stages[stage];
    int did = 0;
    for (; sim->next[stage] < list->num_actions; sim->next[stage]++, did++) {
        const int i = sim->next[stage];
        if (!tv_action_is_compute(list->actions[i].kind) || is_timed(sim, stage, i))
            continue;
        if (!time_action(sim, stage, i))
            return did;
    }
    return did;
}

static tv_status_t run(struct simulation *sim)
{
    const struct tv_schedule *schedule = sim->schedule;
    for (;;) {
        int did = 0, is_done = 1;
        for (int s = 0; s < schedule->num_stages; s++) {
            did += advance(sim, s);
            is_done &= sim->next[s] == schedule->stages[s].num_actions;
        }
        if (is_done)
            return TV_OK;
        if (did == 0)
            return TV_ERR(TV_INVALID, "schedule %s: the stages wait for each other",
                          schedule->name);
    }
}

/* A message's times follow from those of the actions at its two ends. */
static void time_messages(struct simulation *sim, int stage)
{
    const struct tv_schedule *schedule = sim->schedule;
    const struct tv_action_list *list = &schedule->stages[stage];
    double now = 0; /* end of the compute action before */
    for (int i = 0; i < list->num_actions; i++) {
        const struct tv_action *a = &list->actions[i];
        struct tv_action_time *time = &sim->stages[stage].times[i];
        if (tv_action_is_compute(a->kind)) {
            now = time->end;
            continue;
        }
        const int position = tv_schedule_position(schedule, stage, a->chunk);
        const int is_forward = a->kind == TV_ACT_SEND_FORWARD || a->kind == TV_ACT_RECV_FORWARD;
        double *ends = is_forward ? sim->forward_end : sim->backward_end;
        if (tv_action_is_send(a->kind)) {
            const double left = *end_of(sim, ends, position, a->micro);
            *time = (struct tv_action_time){left, left + send_cost(sim, stage, a->peer)};
        } else {
            const double there =
                arrival(sim, ends, position + (is_forward ? -1 : 1), position, a->micro);
            *time = (struct tv_action_time){now, there > now ? there : now};
        }
    }
}

static void sum_up(struct simulation *sim, struct tv_schedule_timing *timing)
{
    const struct tv_schedule *schedule = sim->schedule;
    double busy = 0;
    for (int s = 0; s < schedule->num_stages; s++) {
        timing->makespan = fmax(timing->makespan, sim->free_at[s]);
        busy += sim->stages[s].busy;
    }
    for (int s = 0; s < schedule->num_stages; s++) {
        struct tv_stage_timing *stage = &sim->stages[s];
        double first = INFINITY;
        for (int i = 0; i < schedule->stages[s].num_actions; i++) {
            if (tv_action_is_compute(schedule->stages[s].actions[i].kind))
                first = fmin(first, stage->times[i].start);
        }
        const double own = sim->free_at[s] - first;
        stage->warmup = first;
        stage->drain = timing->makespan - sim->free_at[s];
        stage->wait = fmax(0, own - stage->busy);
        stage->own_window_bubble = own > 0 ? stage->wait / own : 0;
        stage->peak_slots = tv_schedule_peak_slots(schedule, s);
        stage->peak_slots_input = tv_schedule_peak_slots_input(schedule, s);
        time_messages(sim, s);
    }
    timing->bubble_fraction =
        timing->makespan > 0 ? 1 - busy / (schedule->num_stages * timing->makespan) : 0;
}

static tv_status_t check_costs(const struct tv_schedule *schedule,
                               const struct tv_schedule_costs *costs)
{
    const int P = schedule->num_stages, places = P * schedule->num_chunks;
    double least = costs->send, sum = costs->send;
    for (int p = 0; p < places; p++) {
        least = fmin(least, fmin(costs->forward[p],
                                 fmin(costs->backward_input[p], costs->backward_weight[p])));
        sum += costs->forward[p] + costs->backward_input[p] + costs->backward_weight[p];
    }
    for (int l = 0; costs->link != NULL && l < P * P; l++) {
        least = fmin(least, costs->link[l]);
        sum += costs->link[l];
    }
    return least >= 0 && isfinite(sum)
               ? TV_OK
               : TV_ERR(TV_INVALID, "schedule %s: costs must be finite and not negative",
                        schedule->name);
}

static tv_status_t alloc(struct simulation *sim, struct tv_schedule_timing *timing)
{
    const size_t P = (size_t)sim->schedule->num_stages;
    const size_t places = P * (size_t)sim->schedule->num_chunks * (size_t)sim->schedule->num_micro;
    sim->forward_end = malloc(places * sizeof(double));
    sim->backward_end = malloc(places * sizeof(double));
    sim->free_at = calloc(P, sizeof(double));
    sim->next = calloc(P, sizeof(int));
    timing->stages = sim->stages = calloc(P, sizeof(*timing->stages));
    int is_whole =
        sim->forward_end && sim->backward_end && sim->free_at && sim->next && sim->stages;
    for (size_t s = 0; s < P && is_whole; s++) {
        const size_t n = (size_t)sim->schedule->stages[s].num_actions;
        sim->stages[s].times = malloc((n + 1) * sizeof(struct tv_action_time));
        is_whole = sim->stages[s].times != NULL;
        for (size_t i = 0; i < n && is_whole; i++)
            sim->stages[s].times[i] = (struct tv_action_time){NAN, NAN};
    }
    for (size_t i = 0; i < places && is_whole; i++)
        sim->forward_end[i] = sim->backward_end[i] = NAN;
    return is_whole ? TV_OK
                    : TV_ERR(TV_NO_MEMORY, "simulation of schedule %s", sim->schedule->name);
}

tv_status_t tv_schedule_simulate(const struct tv_schedule *schedule,
                                 const struct tv_schedule_costs *costs,
                                 struct tv_schedule_timing *timing_out)
{
    TV_TRY(check_costs(schedule, costs));
    struct simulation sim = {.schedule = schedule, .costs = costs};
    struct tv_schedule_timing timing = {.num_stages = schedule->num_stages};
    tv_status_t status = alloc(&sim, &timing);
    if (status == TV_OK)
        status = run(&sim);
    if (status == TV_OK)
        sum_up(&sim, &timing);
    free(sim.forward_end);
    free(sim.backward_end);
    free(sim.free_at);
    free(sim.next);
    if (status != TV_OK) {
        tv_schedule_timing_destroy(&timing);
        return status;
    }
    *timing_out = timing;
    return TV_OK;
}

void tv_schedule_timing_destroy(struct tv_schedule_timing *timing)
{
    for (int s = 0; timing->stages != NULL && s < timing->num_stages; s++)
        free(timing->stages[s].times);
    free(timing->stages);
    *timing = (struct tv_schedule_timing){0};
}
