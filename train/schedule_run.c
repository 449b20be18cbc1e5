/* train/schedule_run.c -- walks of an executor whose stages sleep. */
#include "train/schedule_run.h"
#include "train/spread.h"
#include <stdlib.h>

static tv_status_t open_executor(struct tv_sleep_pipeline *p)
{
    enum { FLOATS = 1 }; /* of a message: the time is that of a free send */
    TV_TRY(tv_device_open(TV_DEVICE_CPU, 1, &p->device));
    TV_TRY(tv_stream_create(p->device, &p->stream));
    return tv_executor_create(p->world, p->stream, p->stage.schedule, FLOATS, TV_F32, &p->executor);
}

tv_status_t tv_sleep_pipeline_check(const struct tv_comm *world, const struct tv_schedule *schedule)
{
    const int P = schedule->num_stages, num_ranks = tv_comm_size(world);
    if (num_ranks == P)
        return TV_OK;
    return TV_ERR(TV_INVALID,
                  "the schedule has %d stages, and there are %d rank(s): use mpiexec -n %d or "
                  "--local-ranks %d",
                  P, num_ranks, P, P);
}

tv_status_t tv_sleep_pipeline_open(struct tv_comm *world, const struct tv_schedule_plan *plan,
                                   double seconds_per_unit, struct tv_sleep_pipeline *pipeline_out)
{
    TV_TRY(tv_sleep_pipeline_check(world, &plan->schedule));
    struct tv_sleep_pipeline p = {.world = world,
                                  .stage = {.schedule = &plan->schedule,
                                            .stage = tv_comm_rank(world),
                                            .costs = &plan->costs,
                                            .seconds_per_unit = seconds_per_unit}};
    const tv_status_t status = open_executor(&p);
    if (status != TV_OK) {
        tv_sleep_pipeline_close(&p);
        return status;
    }
    *pipeline_out = p;
    return TV_OK;
}

void tv_sleep_pipeline_close(struct tv_sleep_pipeline *pipeline)
{
    tv_executor_destroy(pipeline->executor);
    tv_stream_destroy(pipeline->stream);
    tv_device_close(pipeline->device);
    *pipeline = (struct tv_sleep_pipeline){0};
}

tv_status_t tv_sleep_pipeline_walk(struct tv_sleep_pipeline *pipeline,
                                   struct tv_sleep_walk *walk_out)
{
    const struct tv_stage_functions functions = tv_sleep_stage_functions(&pipeline->stage);
    struct tv_executor_report report;
    TV_TRY(tv_comm_barrier(pipeline->world)); /* nobody is late from the walk before */
    TV_TRY(tv_executor_run(pipeline->executor, &functions, &report));
    double started = report.started, ended = report.ended, busy = report.busy_seconds;
    TV_TRY(tv_comm_all_reduce_now(pipeline->world, &started, 1, TV_F64, TV_MIN));
    TV_TRY(tv_comm_all_reduce_now(pipeline->world, &ended, 1, TV_F64, TV_MAX));
    TV_TRY(tv_comm_all_reduce_now(pipeline->world, &busy, 1, TV_F64, TV_SUM));
    const double makespan = ended - started;
    *walk_out = (struct tv_sleep_walk){
        .makespan_seconds = makespan,
        .bubble_fraction =
            makespan > 0 ? 1 - busy / (tv_comm_size(pipeline->world) * makespan) : 0};
    return TV_OK;
}

static tv_status_t measure(struct tv_sleep_pipeline *pipeline, struct tv_sleep_walk *median)
{
    enum { WALKS = 3 };
    double makespans[WALKS], bubbles[WALKS];
    struct tv_sleep_walk walk;
    TV_TRY(tv_sleep_pipeline_walk(pipeline, &walk)); /* to warm up */
    for (int k = 0; k < WALKS; k++) {
        TV_TRY(tv_sleep_pipeline_walk(pipeline, &walk));
        makespans[k] = walk.makespan_seconds;
        bubbles[k] = walk.bubble_fraction;
    }
    *median = (struct tv_sleep_walk){.makespan_seconds = tv_median(makespans, WALKS),
                                     .bubble_fraction = tv_median(bubbles, WALKS)};
    return TV_OK;
}

tv_status_t tv_schedule_measure(struct tv_comm *world, const struct tv_schedule_plan *plan,
                                double seconds_per_unit, struct tv_sleep_walk *median_out)
{
    struct tv_sleep_pipeline pipeline;
    TV_TRY(tv_sleep_pipeline_open(world, plan, seconds_per_unit, &pipeline));
    const tv_status_t status = measure(&pipeline, median_out);
    tv_sleep_pipeline_close(&pipeline);
    return status;
}
