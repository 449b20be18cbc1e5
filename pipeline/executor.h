/* pipeline/executor.h -- run a checked schedule on this stage with anybody's stage functions.
 *
 * The executor owns the message buffers, posts receives early (in list order, up to two beyond the
 * one being consumed), never lets a send block compute, hands over between two positions of one
 * stage without a message, and tells the communicators what it is doing so that a missed deadline
 * names stage, action and micro-batch. Activations (position p to p+1) and gradients (p+1 to p)
 * travel on communicators of their own. */
#ifndef TV_PIPELINE_EXECUTOR_H
#define TV_PIPELINE_EXECUTOR_H
#include "mesh/comm.h"
#include "pipeline/schedule.h"
#include "pipeline/simulate.h"

TV_BEGIN_C
/* The stage's work. `slot` is 0 .. tv_schedule_chunk_slots - 1 of the chunk, the same from the F to
 * the B or W of a micro-batch, then free again. `work` is 0 .. tv_schedule_chunk_works - 1: a place
 * to compute in, held while an F or B runs, and from the start of an I to the end of its W. Buffers
 * hold message_count elements of the executor's dtype and are its own: forward: x is the input (NULL at the first
 * position), y (NULL at the last position) is to be written. backward and backward_input: dy is the
 * gradient of y (NULL at the last position); dx (NULL at the first) is to be written.
 * backward_weight: x and dy once more, dx NULL. x and dy stay as they are until the B or W
 * returns. */
struct tv_stage_call {
    int chunk, micro, slot, work;
    int is_last_backward; /* B, W: this chunk's weight gradients are complete after it */
    const void *x;
    void *y;
    const void *dy;
    void *dx;
};
struct tv_stage_functions {
    void *context;
    tv_status_t (*forward)(void *context, const struct tv_stage_call *call);
    tv_status_t (*backward)(void *context, const struct tv_stage_call *call);
    /* May be NULL where the schedule has no I and W. */
    tv_status_t (*backward_input)(void *context, const struct tv_stage_call *call);
    tv_status_t (*backward_weight)(void *context, const struct tv_stage_call *call);
};

struct tv_executor; /* opaque; owns two communicators and the message buffers */

/* What one walk of the schedule spent on this stage, in seconds; times are tv_clock_seconds(). The
 * window from started to ended is warmup + busy + wait + drain, and the executor's own time. Stages
 * do not meet first: the pipeline's window goes from the first `started` to the last `ended`. */
struct tv_executor_report {
    double started, ended;
    double busy_seconds;   /* inside stage functions */
    double warmup_seconds; /* waiting for messages before the first action */
    double wait_seconds;   /* waiting for messages between the first and the last */
    double drain_seconds;  /* waiting for the last messages to leave */
};

/* pipe: the pipe axis, size = schedule's num_stages, rank = stage; borrowed. schedule is borrowed,
 * checked here too. message_count >= 1, of dtype. Collective over pipe. Errors: TV_INVALID; TV_NO_MEMORY;
 * TV_PEER. */
TV_MUST_CHECK tv_status_t tv_executor_create(struct tv_comm *pipe, struct tv_stream *stream,
                                             const struct tv_schedule *schedule,
                                             int64_t message_count, tv_dtype_t dtype,
                                             struct tv_executor **executor_out);
void tv_executor_destroy(struct tv_executor *executor);
/* Of its two communicators together. */
struct tv_comm_stats tv_executor_comm_stats(const struct tv_executor *executor);
/* Bytes of message buffers for this schedule and stage, without making any: for a dry run. */
int64_t tv_executor_buffer_bytes(const struct tv_schedule *schedule, int stage,
                                 int64_t message_count, tv_dtype_t dtype);

/* Walk the schedule once. Collective over pipe. All messages are finished on return. A failure of a
 * stage function is returned as it is (peers then wait: the caller aborts the job); the executor is
 * then only good for tv_executor_destroy, which gives up what is in flight. */
TV_MUST_CHECK tv_status_t tv_executor_run(struct tv_executor *executor,
                                          const struct tv_stage_functions *functions,
                                          struct tv_executor_report *report_out);
/* When each action of this stage's list began and ended in the last walk, in tv_clock_seconds():
 * receives from the wait to its end. [num_actions], borrowed, overwritten by the next walk. */
const struct tv_action_time *tv_executor_times(const struct tv_executor *executor);

/* Forward only, micro-batches 0 .. num_micro-1, each chunk's in ascending order, slot and work 0, x
 * valid until the function returns: for evaluation; num_micro need not be the schedule's. Several
 * chunks go in groups of micro-batches, chunk by chunk. Collective over pipe. */
TV_MUST_CHECK tv_status_t tv_executor_run_forward(struct tv_executor *executor, int num_micro,
                                                  const struct tv_stage_functions *functions);
TV_END_C
#endif
