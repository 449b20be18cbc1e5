/* pipeline/schedule_simulate.c -- how long a schedule takes: each action starts as soon as its
 * stage is free and its inputs exist; sends are free. Walks the lists in rounds until every stage
 * is at its end. */
#include "pipeline/schedule_internal.h"
#include <stdlib.h>
#include <string.h>

struct timing {
    const struct tv_schedule *schedule;
    double forward, backward;
    double *forward_end, *backward_end; /* [positions * m], negative: not yet */
    double *stage_free;                 /* [P] */
    double busy;
};

static double *end_of(const struct timing *t, double *ends, int position, int micro)
{
    return &ends[(size_t)position * (size_t)t->schedule->num_micro + (size_t)micro];
}

/* When the inputs of a compute action exist; negative: not yet. */
static double ready_at(const struct timing *t, int position, const struct tv_action *a)
{
    const int last = t->schedule->num_stages * t->schedule->num_chunks - 1;
    if (a->kind == TV_ACT_FORWARD)
        return position == 0 ? 0 : *end_of(t, t->forward_end, position - 1, a->micro);
    if (a->kind == TV_ACT_BACKWARD_WEIGHT)
        return *end_of(t, t->backward_end, position, a->micro);
    const double own = *end_of(t, t->forward_end, position, a->micro);
    if (position == last || own < 0)
        return own;
    const double above = *end_of(t, t->backward_end, position + 1, a->micro);
    return above < 0 || above > own ? above : own;
}

/* I and W each take half of a backward. */
static double duration(const struct timing *t, tv_action_kind_t kind)
{
    if (kind == TV_ACT_FORWARD)
        return t->forward;
    return kind == TV_ACT_BACKWARD ? t->backward : t->backward / 2;
}

static int advance(struct timing *t, int stage, int *next)
{
    const struct tv_action_list *list = &t->schedule->stages[stage];
    int did = 0;
    for (; *next < list->num_actions; ++*next, did++) {
        const struct tv_action *a = &list->actions[*next];
        if (!tv_action_is_compute(a->kind))
            continue;
        const int position = tv_schedule_position(t->schedule, stage, a->chunk);
        const double ready = ready_at(t, position, a);
        if (ready < 0)
            return did;
        const double start = ready > t->stage_free[stage] ? ready : t->stage_free[stage];
        t->stage_free[stage] = start + duration(t, a->kind);
        t->busy += duration(t, a->kind);
        if (a->kind == TV_ACT_FORWARD)
            *end_of(t, t->forward_end, position, a->micro) = t->stage_free[stage];
        else if (tv_action_makes_dx(a->kind))
            *end_of(t, t->backward_end, position, a->micro) = t->stage_free[stage];
    }
    return did;
}

static tv_status_t run(struct timing *t, int *next)
{
    const struct tv_schedule *schedule = t->schedule;
    for (;;) {
        int did = 0, is_done = 1;
        for (int s = 0; s < schedule->num_stages; s++) {
            did += advance(t, s, &next[s]);
            is_done &= next[s] == schedule->stages[s].num_actions;
        }
        if (is_done)
            return TV_OK;
        if (did == 0)
            return TV_ERR(TV_INVALID, "schedule %s: the stages wait for each other",
                          schedule->name);
    }
}

tv_status_t tv_schedule_simulate(const struct tv_schedule *schedule, double forward,
                                 double backward, double *makespan_out, double *bubble_out)
{
    const size_t P = (size_t)schedule->num_stages;
    const size_t places = P * (size_t)schedule->num_chunks * (size_t)schedule->num_micro;
    struct timing t = {schedule,
                       forward,
                       backward,
                       malloc(places * sizeof(double)),
                       malloc(places * sizeof(double)),
                       calloc(P, sizeof(double)),
                       0};
    int *next = calloc(P, sizeof(*next));
    tv_status_t status = TV_OK;
    if (!t.forward_end || !t.backward_end || !t.stage_free || !next)
        status = TV_ERR(TV_NO_MEMORY, "simulation of schedule %s", schedule->name);
    for (size_t i = 0; i < places && status == TV_OK; i++)
        t.forward_end[i] = t.backward_end[i] = -1;
    if (status == TV_OK)
        status = run(&t, next);
    if (status == TV_OK) {
        double makespan = 0;
        for (size_t s = 0; s < P; s++)
            makespan = t.stage_free[s] > makespan ? t.stage_free[s] : makespan;
        *makespan_out = makespan;
        *bubble_out = makespan > 0 ? 1 - t.busy / ((double)P * makespan) : 0;
    }
    free(t.forward_end);
    free(t.backward_end);
    free(t.stage_free);
    free(next);
    return status;
}
