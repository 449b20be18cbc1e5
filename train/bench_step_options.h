/* train/bench_step_options.h -- the flags of `trivet bench step` and `trivet bench kernels`: those of `trivet train`
 * that say what is computed and where, and their own. */
#ifndef TV_TRAIN_BENCH_STEP_OPTIONS_H
#define TV_TRAIN_BENCH_STEP_OPTIONS_H
#include "base/device.h"
#include "train/train_rows.h"

TV_BEGIN_C
/* Values as given. Strings are borrowed from argv or from train.given.args_text. */
struct tv_bench_step_options {
    struct tv_train_options train; /* with --mock-data and as many --train-iters as steps in all */
    const char *what;              /* the word of the table */
    int num_steps, num_warmup;     /* measured; before them */
    double seconds;                /* of each measurement of a peak, or of a kernel, about */
    int matrix_size;               /* rows and columns of the matrices of the peak; 0: not given */
    int triad_mib;                 /* MiB of each tensor of the memory's peak; 0: not given */
    int is_json;
    const char *only; /* of kernels: a part of their names; NULL: all */
};

/* "bench step" and "bench kernels": own rows, then those of the train table that keep their meaning. */
void tv_bench_step_table_fill(struct tv_train_rows *table_out);
void tv_bench_kernels_table_fill(struct tv_train_rows *table_out);

/* argv[0] is skipped. On TV_OK the caller calls tv_train_options_free(&options_out->train). Errors: those of
 * tv_options_parse. */
TV_MUST_CHECK tv_status_t tv_bench_step_options_parse(const struct tv_train_rows *table, int argc,
                                                      char **argv,
                                                      struct tv_bench_step_options *options_out);
/* What was not given becomes what fills such a device. num_ranks: that share the memory's tensors. */
void tv_bench_step_options_complete(struct tv_bench_step_options *options, tv_device_kind_t device,
                                    int num_ranks);
TV_END_C
#endif
