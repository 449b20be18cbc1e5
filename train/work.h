/* train/work.h -- long work with files, in a thread of its own beside a rank's main one, whose end all ranks find
 * together.
 *
 * Ranks need very different times for a file, and a wait for a peer has a deadline: so nobody waits in one collective
 * for the slowest. All ask each other again and again, in small sums, whether everybody is done. */
#ifndef TV_TRAIN_WORK_H
#define TV_TRAIN_WORK_H
#include "mesh/comm.h"
#include <pthread.h>

TV_BEGIN_C
struct tv_work;
/* For the function that works: another rank has failed, so what it does is in vain. */
int tv_work_must_stop(const struct tv_work *work);

/* Plain struct, zeroed: nothing is going on. Not to be moved while something is. */
struct tv_work {
    tv_status_t (*function)(void *context,
                            const struct tv_work *work); /* asks tv_work_must_stop now and then */
    void *context;
    int is_started, has_thread;
    pthread_t thread;
    int is_done, must_stop; /* atomic: for work.c alone */
    tv_status_t status;
    char message[1024]; /* the error sentence of its thread */
};

/* A NULL function has nothing to do: for ranks without a part in it. Never fails here; a thread that cannot be started
 * shows at the end. */
void tv_work_start(struct tv_work *work,
                   tv_status_t (*function)(void *context, const struct tv_work *work),
                   void *context);
/* Collective: has every rank's work ended? When it has, *is_done_out is 1 and all return the status of the first rank
 * that failed, as tv_comm_agree, which they also learn while others still work: these are told to stop.
 * Errors: those of the work, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_work_poll(struct tv_comm *comm, struct tv_work *work,
                                       int *is_done_out);
/* The same until it has. */
TV_MUST_CHECK tv_status_t tv_work_wait(struct tv_comm *comm, struct tv_work *work);
/* Start and wait. */
TV_MUST_CHECK tv_status_t tv_work_do(struct tv_comm *comm,
                                     tv_status_t (*function)(void *context,
                                                             const struct tv_work *work),
                                     void *context);
/* Not collective: stop it and wait for this rank's thread, after a failure elsewhere. */
void tv_work_abandon(struct tv_work *work);
TV_END_C
#endif
