/* pipeline/sleep_stage.c -- sleeps until the moment at which the action would end. */
#include "pipeline/sleep_stage.h"
#include "base/clock.h"
#include <errno.h>
#include <time.h>

/* To an absolute time, so that neither the way here nor a signal adds to it. */
static void sleep_seconds(double seconds)
{
    if (seconds <= 0)
        return;
    const double end = tv_clock_seconds() + seconds;
    const time_t whole = (time_t)end;
    const struct timespec until = {whole, (long)((end - (double)whole) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* Sleeps the sum of an action's costs, `second` may be NULL. */
static tv_status_t sleep_costs(const struct tv_sleep_stage *stage, const struct tv_stage_call *call,
                               const double *first, const double *second)
{
    const int position = tv_schedule_position(stage->schedule, stage->stage, call->chunk);
    const double cost = first[position] + (second != NULL ? second[position] : 0);
    sleep_seconds(cost * stage->seconds_per_unit);
    return TV_OK;
}

static tv_status_t sleep_forward(void *context, const struct tv_stage_call *call)
{
    const struct tv_sleep_stage *stage = context;
    return sleep_costs(stage, call, stage->costs->forward, NULL);
}

static tv_status_t sleep_backward(void *context, const struct tv_stage_call *call)
{
    const struct tv_sleep_stage *stage = context;
    return sleep_costs(stage, call, stage->costs->backward_input, stage->costs->backward_weight);
}

static tv_status_t sleep_backward_input(void *context, const struct tv_stage_call *call)
{
    const struct tv_sleep_stage *stage = context;
    return sleep_costs(stage, call, stage->costs->backward_input, NULL);
}

static tv_status_t sleep_backward_weight(void *context, const struct tv_stage_call *call)
{
    const struct tv_sleep_stage *stage = context;
    return sleep_costs(stage, call, stage->costs->backward_weight, NULL);
}

struct tv_stage_functions tv_sleep_stage_functions(struct tv_sleep_stage *stage)
{
    return (struct tv_stage_functions){.context = stage,
                                       .forward = sleep_forward,
                                       .backward = sleep_backward,
                                       .backward_input = sleep_backward_input,
                                       .backward_weight = sleep_backward_weight};
}
