/* train/command_bench_step.c -- `trivet bench step` and `trivet bench kernels`. */
#include "train/bench_kernels.h"
#include "train/bench_step.h"
#include "train/commands.h"
#include "train/ranks.h"

static tv_status_t flush(tv_status_t status)
{
    if (status == TV_OK && (fflush(stdout) != 0 || ferror(stdout)))
        return TV_ERR(TV_IO, "standard output cannot be written");
    return status;
}

static tv_status_t measure_and_print(struct tv_comm *world, struct tv_run *run,
                                     const struct tv_bench_step_options *options,
                                     int *is_common_out)
{
    struct tv_step_bench bench;
    tv_status_t status = tv_step_bench_measure(world, run, options, &bench, is_common_out);
    if (status != TV_OK)
        return status;
    *is_common_out = 0; /* only one rank prints */
    if (tv_comm_rank(world) == 0)
        status = flush(tv_step_bench_print(&bench, run, options, stdout));
    tv_step_bench_free(&bench);
    return status;
}

static tv_status_t step_rank(struct tv_comm *world, void *context, int *is_common_out)
{
    struct tv_bench_step_options options = *(const struct tv_bench_step_options *)context;
    struct tv_run run = {0};
    int first_failed = -1;
    tv_status_t status = tv_run_resolve(&options.train, tv_comm_size(world), &run);
    status = tv_comm_agree(world, status, &first_failed);
    *is_common_out = status != TV_OK && first_failed >= 0;
    tv_bench_step_options_complete(&options, run.device_kind, tv_comm_size(world));
    if (status == TV_OK)
        status = measure_and_print(world, &run, &options, is_common_out);
    tv_run_free(&run);
    return status;
}

static tv_status_t kernels_rank(struct tv_comm *world, void *context, int *is_common_out)
{
    struct tv_bench_step_options options = *(const struct tv_bench_step_options *)context;
    struct tv_train_options train = options.train;
    struct tv_run run = {0};
    struct tv_kernels_bench bench = {0};
    *is_common_out = 1;   /* other ranks are refused */
    train.is_dry_run = 1; /* the mesh need not be there */
    TV_TRY(tv_run_resolve(&train, 0, &run));
    tv_bench_step_options_complete(&options, run.device_kind, 1);
    tv_status_t status = tv_kernels_bench_measure(world, &run, &options, &bench);
    if (status == TV_OK)
        status = flush(tv_kernels_bench_print(&bench, &options, stdout));
    tv_kernels_bench_free(&bench);
    tv_run_free(&run);
    return status;
}

/* Help, or the body on all ranks. */
static int run_options(const struct tv_train_rows *table, struct tv_bench_step_options *options,
                       tv_status_t (*body)(struct tv_comm *world, void *context,
                                           int *is_common_out))
{
    tv_log_level_t level = TV_LOG_INFO;
    const tv_status_t status = tv_log_level_parse(options->train.log_level, &level);
    if (status != TV_OK)
        return tv_refuse_flags(status);
    tv_log_set_level(level);
    if (options->train.wants_help) {
        if (tv_is_first_process())
            tv_options_help(&table->table, stdout);
        return 0;
    }
    const struct tv_ranks_args ranks = {.local_ranks = options->train.local_ranks,
                                        .timeout_seconds = options->train.timeout_seconds,
                                        .body = body,
                                        .context = options};
    return tv_ranks_run(&ranks);
}

static int run_command(const struct tv_train_rows *table, int argc, char **argv,
                       tv_status_t (*body)(struct tv_comm *world, void *context,
                                           int *is_common_out))
{
    struct tv_bench_step_options options;
    const tv_status_t status = tv_bench_step_options_parse(table, argc, argv, &options);
    if (status != TV_OK)
        return tv_refuse_flags(status);
    const int exit_code = run_options(table, &options, body);
    tv_train_options_free(&options.train);
    return exit_code;
}

int tv_command_bench_step(int argc, char **argv)
{
    struct tv_train_rows table;
    tv_bench_step_table_fill(&table);
    return run_command(&table, argc, argv, step_rank);
}

int tv_command_bench_kernels(int argc, char **argv)
{
    struct tv_train_rows table;
    tv_bench_kernels_table_fill(&table);
    return run_command(&table, argc, argv, kernels_rank);
}
