/* train/ranks.h -- starts the ranks of a command, MPI processes or threads of this one, and turns
 * their verdicts into one message and one exit code. */
#ifndef TV_TRAIN_RANKS_H
#define TV_TRAIN_RANKS_H
#include "mesh/comm.h"

TV_BEGIN_C
struct tv_ranks_args {
    int local_ranks; /* threads of this process; 0: the launcher's processes, one without any */
    double timeout_seconds;
    /* What each rank does. *is_common_out: set when every rank returns the same status, so that
     * none waits for another; else a failed rank ends the job. */
    tv_status_t (*body)(struct tv_comm *world, void *context, int *is_common_out);
    void *context; /* the same for all threads */
};
/* The exit code of the process; errors have been printed. */
int tv_ranks_run(const struct tv_ranks_args *args);

/* Under a launcher every process finds the same mistake in the flags; only the first says so. */
int tv_is_first_process(void);
/* How many processes the launcher says it started; 1 without one. Needs no MPI. */
long tv_launched_processes(void);
/* That mistake, told once; the exit code of the process. */
int tv_refuse_flags(tv_status_t status);
/* This thread's last error, for people. */
void tv_print_error(void);
TV_END_C
#endif
