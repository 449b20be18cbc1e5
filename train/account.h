/* train/account.h -- accounting: what each rank sends in a step, how long it waits for it, and the memory it holds.
 *
 * Predicted from the run alone (account_plan.c), and measured from the communicators and the device (account.c); the
 * two agree to the byte. docs/accounting.md has the formulas. */
#ifndef TV_TRAIN_ACCOUNT_H
#define TV_TRAIN_ACCOUNT_H
#include "base/device.h"
#include "train/run.h"

TV_BEGIN_C
/* What is counted apart: the axes of the mesh, the sum of a tied weight over the two stages that hold it, and the few
 * numbers of a step that all ranks add up. */
enum tv_account {
    TV_ACCOUNT_PIPE = TV_PIPE,
    TV_ACCOUNT_DATA = TV_DATA,
    TV_ACCOUNT_TENSOR = TV_TENSOR,
    TV_ACCOUNT_TIED,
    TV_ACCOUNT_WORLD,
    TV_NUM_ACCOUNTS
};
const char *
tv_account_name(enum tv_account account); /* "pipe", "data", "tensor", "tied", "world" */

/* Doubles that the ranks add up in a step: ends of the pipeline's window and the wish to stop; step.c's sums. */
enum { TV_WINDOW_SUMS = 3, TV_STEP_SUMS = 8 };

/* Bytes that some ranks send in a step, a message counted by its sender alone. between: the part that goes to another
 * node; 0 where nodes are not known. largest: of the rank that sends most in that account. */
struct tv_sent {
    int64_t bytes[TV_NUM_ACCOUNTS], between[TV_NUM_ACCOUNTS], largest[TV_NUM_ACCOUNTS];
};

/* Pure. schedule: of the batch at hand (run->schedule, or a smaller one of a ramp). node_of [ranks of the mesh]: node
 * of each mesh rank, or NULL. A step that is not skipped. Errors: TV_NO_MEMORY, and those of the parameter table. */
TV_MUST_CHECK tv_status_t tv_run_rank_sent(const struct tv_run *run,
                                           const struct tv_schedule *schedule,
                                           struct tv_mesh_coord at, const int *node_of,
                                           struct tv_sent *sent_out);
/* All ranks of a stage. */
TV_MUST_CHECK tv_status_t tv_run_stage_sent(const struct tv_run *run,
                                            const struct tv_schedule *schedule, int stage,
                                            const int *node_of, struct tv_sent *sent_out);
/* Take a stage into the sum over stages. */
void tv_sent_add(struct tv_sent *sum, const struct tv_sent *stage);
/* All ranks of the mesh. */
TV_MUST_CHECK tv_status_t tv_run_sent(const struct tv_run *run, const struct tv_schedule *schedule,
                                      const int *node_of, struct tv_sent *sent_out);

/* Measured of one rank, over a step: bytes it sent, seconds it waited inside the communicators (its work hid the rest).
 */
struct tv_rank_account {
    int64_t sent[TV_NUM_ACCOUNTS];
    double exposed[TV_NUM_ACCOUNTS];
};

/* Measured of all ranks: bytes together and of the rank that sent most; mean seconds; and of each kind of memory the
 * most that a rank has held so far. */
struct tv_mesh_account {
    int64_t sent_bytes[TV_NUM_ACCOUNTS], largest_sent_bytes[TV_NUM_ACCOUNTS];
    double exposed_seconds[TV_NUM_ACCOUNTS];
    int64_t peak_bytes[TV_NUM_MEM_KINDS];
};

/* Of the whole run: bytes of the last step beside what is predicted of it; mean seconds of all steps; memory of the
 * largest rank of each stage. */
struct tv_stage_memory {
    int64_t measured[TV_NUM_MEM_KINDS], predicted[TV_NUM_MEM_KINDS];
};
/* Bytes of all kinds, and how much that is of what no plan can do without: weights, gradients, optimizer state and the
 * activations that the recomputation mode keeps. The rest is buffers: messages and room to work in. */
struct tv_memory_sum {
    int64_t total;
    double of_need;
};
struct tv_memory_sum tv_memory_sum_of(const int64_t bytes[TV_NUM_MEM_KINDS]);
struct tv_account_report {
    struct tv_mesh_account measured;
    struct tv_sent predicted;
    int num_nodes; /* 0: not known, and predicted.between is empty */
    int num_stages;
    struct tv_stage_memory *stages; /* [P], owned */
};
void tv_account_report_free(struct tv_account_report *report);
TV_END_C
#endif
