/* train/setup.h -- what a rank finds out before it trains. All ranks of the world call each function together. */
#ifndef TV_TRAIN_SETUP_H
#define TV_TRAIN_SETUP_H
#include "train/run.h"

TV_BEGIN_C
/* The run's mesh, each rank where run->place has it, else in launch order. Errors: as tv_mesh_create. */
TV_MUST_CHECK tv_status_t tv_run_mesh_create(struct tv_comm *world, const struct tv_run *run,
                                             struct tv_mesh **mesh_out);
/* Threads of this rank's kernels: num_asked, or with 0 a fair share of the CPUs that it may use,
 * among the ranks of this host that may use the same. */
TV_MUST_CHECK tv_status_t tv_fair_threads(struct tv_comm *world, int num_asked,
                                          int *num_threads_out);
/* Seconds to add to this rank's tv_clock_seconds() for rank 0's. 0 where both run under one boot of one kernel, which
 * has one monotonic clock; else half the quickest of 16 round trips is the error. */
TV_MUST_CHECK tv_status_t tv_clock_offset(struct tv_comm *world, double *offset_out);
TV_END_C
#endif
