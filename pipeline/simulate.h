/* pipeline/simulate.h -- how long a schedule takes, and what each stage waits for.
 *
 * Each action starts as soon as its stage is free and its inputs exist. A message takes its time
 * from the end of the action that made it to the moment it can be used; it keeps no stage busy, and
 * a link carries any number at once. Slots and windows as in docs/pipeline.md. */
#ifndef TV_PIPELINE_SIMULATE_H
#define TV_PIPELINE_SIMULATE_H
#include "pipeline/schedule.h"

TV_BEGIN_C
/* Durations in any one unit. A full backward takes input + weight. */
struct tv_schedule_costs {
    const double *forward, *backward_input, *backward_weight; /* [P v], by position */
    double send;                                              /* of a message between two stages */
    const double *link; /* [P, P] by (from, to), in place of send; or NULL */
    /* A pair of forward and backward is one action: it needs the inputs of both at its start and
     * ends both at its end, after the sum of their costs. Else the two run in turn. */
    int joins_pairs;
};

/* An action's start and end; messages: receive: when it was waited for and when it was there; send:
 * when it left and when it arrived. */
struct tv_action_time {
    double start, end;
};

/* Where a stage's time goes in the window from 0 to the makespan: busy + warmup + wait + drain. */
struct tv_stage_timing {
    double busy;
    double warmup;            /* before its first action */
    double wait;              /* between its first and last action, for messages */
    double drain;             /* after its last action */
    double own_window_bubble; /* wait / (busy + wait) */
    int peak_slots, peak_slots_input;
    struct tv_action_time *times; /* [num_actions], owned */
};

struct tv_schedule_timing {
    int num_stages;
    double makespan;
    double bubble_fraction;         /* 1 - busy of all stages / (P makespan) */
    struct tv_stage_timing *stages; /* [P], owned */
};

/* costs: finite and >= 0. Errors: TV_INVALID (costs; the stages wait for each other), TV_NO_MEMORY.
 */
TV_MUST_CHECK tv_status_t tv_schedule_simulate(const struct tv_schedule *schedule,
                                               const struct tv_schedule_costs *costs,
                                               struct tv_schedule_timing *timing_out);
void tv_schedule_timing_destroy(struct tv_schedule_timing *timing);
TV_END_C
#endif
