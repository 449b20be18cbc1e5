/* pipeline/schedule.h -- a pipeline schedule is data: per stage, the list of actions in the order
 * the stage does them.
 *
 * Pure functions build it, one checker proves it, one executor runs it. Positions: the model is cut
 * into P * v pieces in model order, position 0 .. Pv-1. Loop placement (the only one here): stage
 * r, chunk c holds position c * P + r. With v = 1 position = stage. Every builder keeps the
 * backwards of a chunk in ascending micro-batch order. */
#ifndef TV_PIPELINE_SCHEDULE_H
#define TV_PIPELINE_SCHEDULE_H
#include "base/status.h"

TV_BEGIN_C
typedef enum {
    TV_ACT_FORWARD,         /* F */
    TV_ACT_BACKWARD,        /* B: input and weight gradients in one */
    TV_ACT_BACKWARD_INPUT,  /* I */
    TV_ACT_BACKWARD_WEIGHT, /* W */
    TV_ACT_SEND_FORWARD,    /* activations to the stage of position + 1 */
    TV_ACT_RECV_FORWARD,    /* activations from the stage of position - 1 */
    TV_ACT_SEND_BACKWARD,   /* gradients to the stage of position - 1 */
    TV_ACT_RECV_BACKWARD,   /* gradients from the stage of position + 1 */
    TV_NUM_ACTION_KINDS
} tv_action_kind_t;
const char *
tv_action_kind_name(tv_action_kind_t kind); /* "F", "B", "I", "W", "SEND_F", "RECV_F", ... */

struct tv_action {
    tv_action_kind_t kind;
    int chunk; /* 0 .. v-1 */
    int micro; /* 0 .. m-1 */
    int peer;  /* stage at the other end of a message; -1 for compute */
};

struct tv_action_list {
    int num_actions;
    struct tv_action *actions; /* owned by the schedule */
};

struct tv_schedule {
    char name[32];
    int num_stages, num_chunks, num_micro; /* P, v, m */
    struct tv_action_list *stages;         /* [P] */
};

/* Names: "gpipe" (Huang et al. 2019), "1f1b" (Narayanan et al. 2019, PipeDream-flush). The result
 * is compute and messages, lowered and not yet checked. P, m >= 1. Errors: TV_INVALID (unknown
 * name, listing the known ones). */
TV_MUST_CHECK tv_status_t tv_schedule_build(const char *name, int num_stages, int num_micro,
                                            struct tv_schedule *schedule_out);
void tv_schedule_destroy(struct tv_schedule *schedule);
/* Is the name known? For messages: "gpipe, 1f1b". */
int tv_schedule_is_known(const char *name);
const char *tv_schedule_names(void);

/* position <-> (stage, chunk) under loop placement */
int tv_schedule_position(const struct tv_schedule *schedule, int stage, int chunk);

/* Prove it: every F before its B (or I before W), each exactly once per chunk and micro-batch;
 * backwards of a chunk in ascending micro-batch order; gradients sent in the order in which they
 * were made; every send matched by a receive in the same order for every ordered pair of stages
 * and kind; no deadlock when each stage follows its list, a receive waits for its send, and a send
 * waits for nothing (the executor has a buffer for each); slots in flight never above slot_limit
 * (0: no limit). Errors: TV_INVALID naming the first offending action ("stage 1, action 4: B of
 * micro-batch 2, chunk 0: before its F"). */
TV_MUST_CHECK tv_status_t tv_schedule_check(const struct tv_schedule *schedule, int slot_limit);

/* Most slots a stage holds at once: a slot is one micro-batch's activations of one chunk, from F to
 * the end of B (or W). */
int tv_schedule_peak_slots(const struct tv_schedule *schedule, int stage);

/* Time it: durations per action in any unit, sends free. makespan_out; bubble_out = 1 - busy / (P
 * makespan). */
TV_MUST_CHECK tv_status_t tv_schedule_simulate(const struct tv_schedule *schedule, double forward,
                                               double backward, double *makespan_out,
                                               double *bubble_out);
TV_END_C
#endif
