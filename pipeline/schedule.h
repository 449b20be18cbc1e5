/* pipeline/schedule.h -- a pipeline schedule is data: per stage, the list of actions in the order
 * the stage does them.
 *
 * Pure functions build it, one checker proves it, one simulator times it (pipeline/simulate.h), one
 * executor runs it (pipeline/executor.h). Positions: the model is cut into P * v pieces in model
 * order, position 0 .. Pv-1; a stage holds v of them, its chunks, numbered in ascending position.
 * Loop placement: stage r, chunk c holds position c * P + r. V placement (v = 2): chunk 0 is
 * position r, chunk 1 is position 2P - 1 - r, so stage 0 holds the first and the last. */
#ifndef TV_PIPELINE_SCHEDULE_H
#define TV_PIPELINE_SCHEDULE_H
#include "base/status.h"

TV_BEGIN_C
typedef enum {
    TV_ACT_FORWARD,         /* F */
    TV_ACT_BACKWARD,        /* B: input and weight gradients in one */
    TV_ACT_BACKWARD_INPUT,  /* I: gradient of the input */
    TV_ACT_BACKWARD_WEIGHT, /* W: gradients of the weights, after its I */
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
    int chunk;     /* 0 .. v-1 */
    int micro;     /* 0 .. m-1 */
    int peer;      /* stage at the other end of a message; -1 for compute */
    int is_paired; /* this F and the next compute action, a backward, may overlap (DualPipe) */
};

struct tv_action_list {
    int num_actions;
    struct tv_action *actions; /* owned by the schedule */
};

struct tv_schedule {
    char name[32];
    int num_stages, num_chunks, num_micro; /* P, v, m */
    int is_ordered;   /* B and W of a chunk ascend: every builder's promise, not every file's */
    int *position_of; /* [P, v] position of (stage, chunk) */
    int *place_of;    /* [P v] stage * v + chunk of a position */
    struct tv_action_list *stages; /* [P] */
};

typedef enum { TV_PLACE_LOOP, TV_PLACE_V } tv_chunk_placement_t;

/* What a builder is asked for. slot_limit: most slots on any stage (see tv_schedule_peak_slots), 0:
 * none; the zb-h family and interleaved choose their warm-up to fit it, the others must fit. */
struct tv_schedule_args {
    const char *name;
    int num_stages, num_chunks, num_micro;
    int slot_limit;
};

/* Names and sources (rules, closed forms and slots: docs/pipeline.md):
 *   naive                   one micro-batch through all stages at a time
 *   gpipe                   Huang et al. 2019, arXiv:1811.06965
 *   1f1b                    PipeDream-flush; Narayanan et al. 2019 and 2021, arXiv:2104.04473
 *   interleaved             Narayanan et al. 2021; v >= 2, any m >= 1
 *   zb-h1, zb-h2            Qi et al. 2023, arXiv:2401.10241; between them by slot_limit
 *   zb-v                    Qi et al. 2023, section 6; V placement, v = 2
 *   v-half, v-min           Qi et al. 2024, arXiv:2405.15362; V placement, v = 2; without the
 *                           reordering of warm-up and drain that follows there
 *   dualpipe-v              DeepSeek-AI 2024, arXiv:2412.19437, in its V form; v = 2
 * The result is compute and messages, lowered and checked. P, m >= 1. Errors: TV_INVALID (unknown
 * name, listing the known ones; a v that the schedule refuses; slots beyond slot_limit). */
TV_MUST_CHECK tv_status_t tv_schedule_build(const struct tv_schedule_args *args,
                                            struct tv_schedule *schedule_out);
void tv_schedule_destroy(struct tv_schedule *schedule);
int tv_schedule_is_known(const char *name);
const char *tv_schedule_names(void);     /* "naive, gpipe, 1f1b, ..." */
const char *tv_schedule_name(int index); /* NULL beyond the last */
/* The schedule when the user names none, with so many chunks per stage asked for (0: none). */
const char *tv_schedule_default_name(int num_chunks);
/* Chunks per stage when the user names none: 2 for V placement and interleaved, else 1; and whether
 * v is allowed: TV_INVALID says what is. The name must be known. */
int tv_schedule_default_chunks(const char *name);
TV_MUST_CHECK tv_status_t tv_schedule_check_chunks(const char *name, int num_chunks);
tv_chunk_placement_t tv_schedule_placement(const char *name);
/* Position of (stage, chunk) under a placement, without a schedule. */
int tv_chunk_position(tv_chunk_placement_t placement, int num_stages, int stage, int chunk);

int tv_schedule_position(const struct tv_schedule *schedule, int stage, int chunk);
int tv_schedule_stage_of(const struct tv_schedule *schedule, int position);
int tv_schedule_chunk_of(const struct tv_schedule *schedule, int position);

/* Prove it: every F before its B (or I before W), each exactly once per chunk and micro-batch;
 * where is_ordered, B or I and W of a chunk in ascending micro-batch order; gradients sent in the
 * order in which they were made; every send matched by a receive in the same order for every
 * ordered pair of stages and kind; no deadlock when each stage follows its list, a receive waits
 * for its send, and a send waits for nothing (the executor has a buffer for each); slots in flight
 * never above slot_limit (0: no limit). Errors: TV_INVALID naming the first offending action
 * ("stage 1, action 4: B of micro-batch 2, chunk 0: before its F"). */
TV_MUST_CHECK tv_status_t tv_schedule_check(const struct tv_schedule *schedule, int slot_limit);

/* Most slots a stage holds at once. A slot is one micro-batch's activations of one chunk, taken
 * when F starts, released at the end of B or W; `_input` releases at the end of B or I. */
int tv_schedule_peak_slots(const struct tv_schedule *schedule, int stage);
int tv_schedule_peak_slots_input(const struct tv_schedule *schedule, int stage);
/* The same for one chunk: slots from F to the end of B or W; and works, the micro-batches between
 * the start of a B or I and the end of the B or W, counting one for an F while it runs. */
int tv_schedule_chunk_slots(const struct tv_schedule *schedule, int stage, int chunk);
int tv_schedule_chunk_works(const struct tv_schedule *schedule, int stage, int chunk);
/* Does the stage do this chunk's backward in two parts (any I)? */
int tv_schedule_splits_backward(const struct tv_schedule *schedule, int stage, int chunk);
TV_END_C
#endif
