/* pipeline/sleep_stage.h -- stage functions that sleep as long as each action costs, to measure
 * schedules and the executor without a model. */
#ifndef TV_PIPELINE_SLEEP_STAGE_H
#define TV_PIPELINE_SLEEP_STAGE_H
#include "pipeline/executor.h"

TV_BEGIN_C
/* Everything is borrowed. costs: those of the computations, by position; B is I + W. A cost of 0
 * returns at once, without a clock or a system call. */
struct tv_sleep_stage {
    const struct tv_schedule *schedule;
    int stage;
    const struct tv_schedule_costs *costs;
    double seconds_per_unit;
};

/* The stage is their context and must outlive them. They write no messages. */
struct tv_stage_functions tv_sleep_stage_functions(struct tv_sleep_stage *stage);
TV_END_C
#endif
