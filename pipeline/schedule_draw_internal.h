/* pipeline/schedule_draw_internal.h -- what the two pictures share. */
#ifndef TV_PIPELINE_SCHEDULE_DRAW_INTERNAL_H
#define TV_PIPELINE_SCHEDULE_DRAW_INTERNAL_H
#include "pipeline/schedule_draw.h"

TV_BEGIN_C
/* Where an action is drawn. A pair that was timed as one action is drawn as two halves. */
struct tv_action_time tv_draw_span(const struct tv_schedule *schedule,
                                   const struct tv_schedule_timing *timing, int stage, int i);
/* The shortest compute action that takes any time; the makespan when there is none. */
double tv_draw_shortest(const struct tv_schedule *schedule,
                        const struct tv_schedule_timing *timing);
/* Does any stage do this? */
int tv_draw_has_kind(const struct tv_schedule *schedule, tv_action_kind_t kind);
int tv_draw_num_digits(int number); /* number >= 0 */
TV_END_C
#endif
