/* train/schedule_trace.h -- actions of a schedule as events of a trace. */
#ifndef TV_TRAIN_SCHEDULE_TRACE_H
#define TV_TRAIN_SCHEDULE_TRACE_H
#include "pipeline/simulate.h"
#include "train/trace_file.h"

TV_BEGIN_C
/* Action `a` of a stage, from time.start to time.end in seconds, on a thread of the trace. */
void tv_trace_add_action(struct tv_trace *trace, const struct tv_schedule *schedule, int stage,
                         const struct tv_action *a, int pid, int tid, struct tv_action_time time);
TV_END_C
#endif
