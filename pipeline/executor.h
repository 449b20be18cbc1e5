/* pipeline/executor.h -- run a checked schedule on this stage with anybody's stage functions.
 *
 * The executor owns the message buffers, posts receives early (in list order, up to two beyond the
 * one being consumed), never lets a send block compute, and tells the communicators what it is
 * doing so that a missed deadline names stage, action and micro-batch. Activations (position p to
 * p+1) and gradients (p+1 to p) travel on communicators of their own. */
#ifndef TV_PIPELINE_EXECUTOR_H
#define TV_PIPELINE_EXECUTOR_H
#include "mesh/comm.h"
#include "pipeline/schedule.h"

TV_BEGIN_C
/* The stage's work. `slot` is 0 .. peak_slots - 1, the same for the F and B of one micro-batch and
 * chunk, free again after its B. Buffers hold message_count floats and are the executor's: forward:
 * x is the input (NULL at the first position), valid until this micro-batch's backward returns; y
 * (NULL at the last position) is to be written. backward: dy is the gradient of y (NULL at the last
 * position); dx (NULL at the first) is to be written. x is what forward was given. */
struct tv_stage_call {
    int chunk, micro, slot;
    int is_last_backward; /* this chunk's last backward of the step: weight gradients are complete
                             after it */
    const float *x;
    float *y;
    const float *dy;
    float *dx;
};
struct tv_stage_functions {
    void *context;
    tv_status_t (*forward)(void *context, const struct tv_stage_call *call);
    tv_status_t (*backward)(void *context, const struct tv_stage_call *call);
};

struct tv_executor; /* opaque; owns two communicators and the message buffers */

/* What one walk of the schedule spent on this stage, in seconds. */
struct tv_executor_report {
    double window_seconds; /* from this stage's entry to its return: stages do not meet first */
    double busy_seconds;   /* inside stage functions */
    double wait_seconds;   /* waiting for messages of the pipe axis */
};

/* pipe: the pipe axis, size = schedule's num_stages, rank = stage; borrowed. schedule is borrowed,
 * checked here too. message_count >= 1. Collective over pipe. Errors: TV_INVALID; TV_UNSUPPORTED (a
 * backward in two parts, or two neighbouring positions on one stage); TV_NO_MEMORY; TV_PEER. */
TV_MUST_CHECK tv_status_t tv_executor_create(struct tv_comm *pipe, struct tv_stream *stream,
                                             const struct tv_schedule *schedule,
                                             int64_t message_count,
                                             struct tv_executor **executor_out);
void tv_executor_destroy(struct tv_executor *executor);
/* Slots that stage functions must provide for each chunk. */
int tv_executor_num_slots(const struct tv_executor *executor);
/* Bytes of message buffers for this schedule and stage, without making any: for a dry run. */
int64_t tv_executor_buffer_bytes(const struct tv_schedule *schedule, int stage,
                                 int64_t message_count);

/* Walk the schedule once. Collective over pipe. All messages are finished on return. A failure of a
 * stage function is returned as it is (peers then wait: the caller aborts the job); the executor is
 * then only good for tv_executor_destroy, which gives up what is in flight. */
TV_MUST_CHECK tv_status_t tv_executor_run(struct tv_executor *executor,
                                          const struct tv_stage_functions *functions,
                                          struct tv_executor_report *report_out);
/* Forward only, micro-batches 0 .. num_micro-1 in order, slot 0, x valid until the function
 * returns: for evaluation; num_micro need not be the schedule's. Collective over pipe. Errors:
 * TV_UNSUPPORTED with several chunks. */
TV_MUST_CHECK tv_status_t tv_executor_run_forward(struct tv_executor *executor, int num_micro,
                                                  const struct tv_stage_functions *functions);
TV_END_C
#endif
