/* train/schedule_report.h -- what `trivet schedule` prints and writes. */
#ifndef TV_TRAIN_SCHEDULE_REPORT_H
#define TV_TRAIN_SCHEDULE_REPORT_H
#include "train/schedule_plan.h"
#include "train/schedule_run.h"

TV_BEGIN_C
/* A table of at most 80 columns and the picture, or with --json one object; and the files that the
 * flags name. measured: with --run, else NULL. Errors: TV_INVALID (a file that cannot be made),
 * TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_schedule_report(const struct tv_schedule_options *options,
                                             const struct tv_schedule_plan *plan,
                                             const struct tv_sleep_walk *measured, FILE *out);

/* The predicted times as a timeline: process = stage; threads: compute, receives, sends. */
TV_MUST_CHECK tv_status_t tv_schedule_write_trace(const struct tv_schedule_plan *plan,
                                                  double seconds_per_unit, const char *path);

/* --compare: all schedules for these stages and micro-batches, the fastest first. Costs are those
 * of a whole stage: an action of one of v chunks takes a v-th, a slot of it counts as a v-th.
 * Errors as above. */
TV_MUST_CHECK tv_status_t tv_schedule_compare(const struct tv_schedule_options *options, FILE *out);
TV_END_C
#endif
