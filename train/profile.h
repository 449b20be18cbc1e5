/* train/profile.h -- how long each sort of unit takes on these ranks, for the sizes of a run.
 *
 * All layers of a model have one shape, so one of them is timed, and the embedding and the head. Every rank times at
 * the same moment, as in training, and the ranks' medians are averaged. */
#ifndef TV_TRAIN_PROFILE_H
#define TV_TRAIN_PROFILE_H
#include "pipeline/simulate.h"
#include "train/run.h"

TV_BEGIN_C
enum tv_unit_sort tv_unit_sort_of(const struct tv_run *run, int unit);
/* Forward, backward, recomputation included. */
double tv_unit_seconds(struct tv_unit_times times);

/* Collective over world; the same result on every rank. Errors: TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_profile_measure(struct tv_comm *world, const struct tv_run *run,
                                             struct tv_profile *profile_out);
/* run->schedule with costs [3, P v]: forward, input part and weight part of a backward by position; messages are free.
 * Errors: TV_NO_MEMORY; TV_INVALID, costs that are not finite. */
TV_MUST_CHECK tv_status_t tv_run_simulate(const struct tv_run *run, const double *costs,
                                          struct tv_schedule_timing *timing_out);
/* Seconds of a pipeline's window of one step, as the simulator has them with run->profile, run->pieces and free
 * messages: imbalance and bubble, without the optimizer. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_profile_window(const struct tv_run *run, double *seconds_out);
/* A JSON file; load refuses one that was measured for other sizes. Errors: TV_IO; TV_BAD_FILE; TV_INVALID naming what
 * differs. */
TV_MUST_CHECK tv_status_t tv_profile_save(const char *path, const struct tv_run *run,
                                          const struct tv_profile *profile);
TV_MUST_CHECK tv_status_t tv_profile_load(const char *path, const struct tv_run *run,
                                          struct tv_profile *profile_out);
TV_END_C
#endif
