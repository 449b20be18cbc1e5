/* train/bench_step.h -- `trivet bench step`: the time of training steps and where it goes, on every rank.
 *
 * A rank's step is the sum of its parts, by construction: what it spends in kernels, by group; what it waits for
 * messages of the tensor and data axes and of tied weights (communication); what it waits for its neighbours in the
 * pipeline and, at the sums over all ranks, for the slowest one (idle); and what is left (other: copies, clearing of
 * embeddings' gradients, the executor).
 *
 * A kernel is timed until its stream has done it. On a GPU, where the host otherwise runs ahead, that makes steps
 * longer: there as many steps run before them whose kernels are not timed, and those say how fast training is. */
#ifndef TV_TRAIN_BENCH_STEP_H
#define TV_TRAIN_BENCH_STEP_H
#include "kernels/timed.h"
#include "mesh/comm.h"
#include "train/account.h"
#include "train/bench_peak.h"
#include "train/bench_step_options.h"
#include "train/run.h"
#include "train/spread.h"

TV_BEGIN_C
enum {
    TV_PART_COMMUNICATION = TV_NUM_GROUPS, /* the groups of kernels come first */
    TV_PART_IDLE,
    TV_PART_OTHER,
    TV_NUM_PARTS
};
const char *tv_part_name(int part);

/* Seconds of one step on one rank. */
struct tv_step_time {
    double alone; /* of one whose kernels are not timed; on the CPU of the same one */
    double seconds;
    double parts[TV_NUM_PARTS]; /* their sum is `seconds` */
};

struct tv_step_bench {
    int num_steps, num_ranks, num_threads; /* threads: of rank 0 */
    struct tv_step_time *times;            /* [num_ranks, num_steps] by mesh rank; owned */
    int has_beside;                        /* on the CPU */
    double *
        beside; /* [num_steps + 1] FLOP/s of the peak's product before each step and after the last; owned */
    struct tv_kernel_times kernels; /* sums over the measured steps of all ranks */
    double flops_per_token;
    int64_t tokens_per_step;
    struct tv_account_report account; /* memory of the stages */
    struct tv_peak peak; /* of all ranks together: the better of those before and after the steps */
};
/* Prepares the run, measures. run->kernel_times is set to counters of this rank. Collective over world; the result is
 * the same on every rank. is_common_out: as of tv_train_loop. */
TV_MUST_CHECK tv_status_t tv_step_bench_measure(struct tv_comm *world, struct tv_run *run,
                                                const struct tv_bench_step_options *options,
                                                struct tv_step_bench *bench_out,
                                                int *is_common_out);
void tv_step_bench_free(struct tv_step_bench *bench);

enum { TV_WHOLE = -1, TV_WHOLE_ALONE = -2 };
/* Over the steps: seconds of the slowest rank (TV_WHOLE, and of steps without timed kernels TV_WHOLE_ALONE), or of a
 * part, the mean of the ranks. */
TV_MUST_CHECK tv_status_t tv_step_bench_spread(const struct tv_step_bench *bench, int part,
                                               struct tv_spread *spread_out);
/* Over the steps: the model's FLOP/s as a share of the mean of the product before the step and the one after it. Only
 * where has_beside. */
TV_MUST_CHECK tv_status_t tv_step_bench_share(const struct tv_step_bench *bench,
                                              struct tv_spread *share_out);
/* Mean over the steps: of all ranks, and of the rank with most. part -1: whole steps. */
double tv_step_bench_mean(const struct tv_step_bench *bench, int part);
double tv_step_bench_slowest(const struct tv_step_bench *bench, int part);

/* bench_step_report.c: 80 columns, or one JSON object. Errors: TV_NO_MEMORY, TV_IO. */
TV_MUST_CHECK tv_status_t tv_step_bench_print(const struct tv_step_bench *bench,
                                              const struct tv_run *run,
                                              const struct tv_bench_step_options *options,
                                              FILE *out);
TV_END_C
#endif
