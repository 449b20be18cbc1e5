/* train/schedule_plan.h -- what `trivet schedule` was asked for: schedule, costs, times. */
#ifndef TV_TRAIN_SCHEDULE_PLAN_H
#define TV_TRAIN_SCHEDULE_PLAN_H
#include "pipeline/simulate.h"
#include "train/schedule_options.h"

TV_BEGIN_C
struct tv_schedule_plan {
    struct tv_schedule schedule;
    struct tv_schedule_costs costs; /* the same at every position */
    struct tv_schedule_timing timing;
    double *cost_memory; /* [3, P v] behind costs */
};

/* Cost of an action: F, I, W of one chunk; of a message; and whether pairs are one action. */
struct tv_plan_costs {
    double actions[3], send;
    int joins_pairs;
};

/* Build by name, or read a file: a name that is none of the schedules' and has a '.' or '/' in it.
 * Then check and time it. Errors: TV_INVALID naming the flag, TV_BAD_FILE, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_schedule_plan_make(const struct tv_schedule_options *options,
                                                struct tv_schedule_plan *plan_out);
/* The same for a schedule that exists; it is taken over, also on an error. */
TV_MUST_CHECK tv_status_t tv_schedule_plan_time(struct tv_schedule *schedule,
                                                const struct tv_plan_costs *costs,
                                                struct tv_schedule_plan *plan_out);
void tv_schedule_plan_free(struct tv_schedule_plan *plan); /* zeroed: a no-op */
TV_END_C
#endif
