/* train/bench_step_options.h -- the flags of `trivet bench step` and `trivet bench kernels`: those of `trivet train`
 * that say what is computed and where, and their own. */
#ifndef TV_TRAIN_BENCH_STEP_OPTIONS_H
#define TV_TRAIN_BENCH_STEP_OPTIONS_H
#include "train/train_options.h"

TV_BEGIN_C
/* Values as given. Strings are borrowed from argv or from train.given.args_text. */
struct tv_bench_step_options {
    struct tv_train_options train; /* with --mock-data and as many --train-iters as steps in all */
    const char *what;              /* the word of the table */
    int num_steps, num_warmup;     /* measured; before them */
    double seconds;                /* of each measurement of a peak, or of a kernel, about */
    int matrix_size;               /* rows and columns of the matrices of the peak */
    int triad_mib;                 /* MiB of each tensor of the memory's peak */
    int is_json;
};

/* A table put together out of the train table's rows. */
struct tv_bench_step_table {
    struct tv_option rows[TV_OPTION_MAX_ROWS];
    int train_row[TV_OPTION_MAX_ROWS]; /* where it is in the train table; -1: a row of its own */
    struct tv_option_table table;      /* points into this struct, which must stay where it is */
};
void tv_bench_step_table_fill(struct tv_bench_step_table *table_out);    /* "bench step" */
void tv_bench_kernels_table_fill(struct tv_bench_step_table *table_out); /* "bench kernels" */

/* argv[0] is skipped. On TV_OK the caller calls tv_train_options_free(&options_out->train). Errors: those of
 * tv_options_parse. */
TV_MUST_CHECK tv_status_t tv_bench_step_options_parse(const struct tv_bench_step_table *table,
                                                      int argc, char **argv,
                                                      struct tv_bench_step_options *options_out);
TV_END_C
#endif
