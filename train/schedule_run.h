/* train/schedule_run.h -- runs a schedule with stages that sleep: the clock beside the forecast. */
#ifndef TV_TRAIN_SCHEDULE_RUN_H
#define TV_TRAIN_SCHEDULE_RUN_H
#include "mesh/comm.h"
#include "pipeline/executor.h"
#include "pipeline/sleep_stage.h"
#include "train/schedule_plan.h"

TV_BEGIN_C
/* This rank's stage of a sleeping pipeline. Plain struct, zeroed or closed: nothing. */
struct tv_sleep_pipeline {
    struct tv_comm *world; /* borrowed */
    struct tv_sleep_stage stage;
    struct tv_device *device;
    struct tv_stream *stream;
    struct tv_executor *executor;
};
/* The whole pipeline in one walk, the same on every rank: from the first stage's start to the last
 * stage's end, on the clock that the ranks of one host share. */
struct tv_sleep_walk {
    double makespan_seconds;
    double bubble_fraction; /* 1 - busy of all stages / (P makespan) */
};

/* Is there one rank per stage? Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_sleep_pipeline_check(const struct tv_comm *world,
                                                  const struct tv_schedule *schedule);
/* plan is borrowed. Collective, as is the walk. Errors: TV_INVALID, TV_PEER, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_sleep_pipeline_open(struct tv_comm *world,
                                                 const struct tv_schedule_plan *plan,
                                                 double seconds_per_unit,
                                                 struct tv_sleep_pipeline *pipeline_out);
TV_MUST_CHECK tv_status_t tv_sleep_pipeline_walk(struct tv_sleep_pipeline *pipeline,
                                                 struct tv_sleep_walk *walk_out);
void tv_sleep_pipeline_close(struct tv_sleep_pipeline *pipeline);

/* One walk to warm up, then three: the medians. Collective. Errors as above. */
TV_MUST_CHECK tv_status_t tv_schedule_measure(struct tv_comm *world,
                                              const struct tv_schedule_plan *plan,
                                              double seconds_per_unit,
                                              struct tv_sleep_walk *median_out);
TV_END_C
#endif
