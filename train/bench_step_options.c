/* train/bench_step_options.c -- rows of the train table that keep their meaning, behind rows of the benchmark's own. */
#include "train/bench_step_options.h"

#define AT(field) offsetof(struct tv_bench_step_options, field)

static const struct tv_option step_rows[] = {
    {"step", NULL, TV_OPTION_WORD, AT(what), 0, 0, NULL, "whole training steps"},
    {"Measurement", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"steps", NULL, TV_OPTION_INT, AT(num_steps), 1, 1e6, "10", "steps that are measured"},
    {"warmup-steps", NULL, TV_OPTION_INT, AT(num_warmup), 1, 1e6, "2",
     "steps before them, which are not"},
    {"seconds", NULL, TV_OPTION_REAL, AT(seconds), TV_OPTION_TINY, 1e6, "1",
     "how long each peak is measured before and after the steps, about"},
    {"matrix-size", NULL, TV_OPTION_INT, AT(matrix_size), 1, 32768, NULL,
     "rows and columns of the product that is the peak: 2048, on a GPU 8192"},
    {"memory-size", NULL, TV_OPTION_INT, AT(triad_mib), 1, 65536, NULL,
     "MiB of each of the three tensors of the memory's peak, of all ranks together: 128, on GPUs "
     "1024 for each rank"},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL,
     "print one JSON object and nothing else"},
};
static const struct tv_option kernel_rows[] = {
    {"kernels", NULL, TV_OPTION_WORD, AT(what), 0, 0, NULL, "every kernel at a model's sizes"},
    {"Measurement", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"seconds", NULL, TV_OPTION_REAL, AT(seconds), TV_OPTION_TINY, 1e6, "0.2",
     "how long each kernel and each peak is measured, about"},
    {"only", NULL, TV_OPTION_TEXT, AT(only), 0, 0, NULL, "kernels whose names hold TEXT"},
    {"matrix-size", NULL, TV_OPTION_INT, AT(matrix_size), 1, 32768, NULL,
     "rows and columns of the product that is the peak: 2048, on a GPU 8192"},
    {"memory-size", NULL, TV_OPTION_INT, AT(triad_mib), 1, 65536, NULL,
     "MiB of each of the three tensors of the memory's peak: 128, on a GPU 1024"},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL,
     "print one JSON object and nothing else"},
};

/* What a measurement of steps does not take: data, files, the length of a run. */
static const char *const not_for_steps[] = {"train-iters",
                                            "rampup-batch-size",
                                            "skip-bad-steps",
                                            "Data",
                                            "data",
                                            "mock-data",
                                            "data-format",
                                            "valid-data",
                                            "eval-interval",
                                            "mask-token",
                                            "shuffle",
                                            "eod-token",
                                            "samples-cross-documents",
                                            "eod-mask-loss",
                                            "reset-position-ids",
                                            "reset-attention-mask",
                                            "init-from",
                                            "save",
                                            "save-interval",
                                            "keep",
                                            "save-async",
                                            "load",
                                            "finetune",
                                            "no-load-optim",
                                            "no-load-rng",
                                            "override-opt_param-scheduler",
                                            "use-checkpoint-opt_param-scheduler",
                                            "metrics",
                                            "trace",
                                            "trace-steps",
                                            "export-hf",
                                            "dump-grads",
                                            "log-sample-ids",
                                            "log-interval",
                                            "exit-after",
                                            "dry-run",
                                            "json"};
/* What says how large the tensors of a rank are. */
static const char *const for_kernels[] = {"Mesh",
                                          "tp",
                                          "Batch",
                                          "micro-batch-size",
                                          "seq-length",
                                          "Model",
                                          "model",
                                          "preset",
                                          "config",
                                          "num-layers",
                                          "hidden-size",
                                          "num-attention-heads",
                                          "num-query-groups",
                                          "ffn-hidden-size",
                                          "vocab-size",
                                          "max-position-embeddings",
                                          "untie-embeddings-and-output-weights",
                                          "Optimizer",
                                          "precision",
                                          "Run",
                                          "device",
                                          "comm",
                                          "threads",
                                          "args",
                                          "log-level",
                                          "help"};
#define LENGTH(array) ((int)(sizeof(array) / sizeof((array)[0])))

void tv_bench_step_table_fill(struct tv_train_rows *table_out)
{
    tv_train_rows_begin(
        table_out, "bench step",
        "Usage: trivet bench step [flags]\n"
        "       mpiexec -n RANKS trivet bench step [flags]\n"
        "Trains on random tokens and says how fast, and where the time goes. Flags below\n"
        "the measurement's are those of trivet train.\n\n",
        step_rows, LENGTH(step_rows));
    tv_train_rows_take_others(table_out, not_for_steps, LENGTH(not_for_steps), AT(train));
}

void tv_bench_kernels_table_fill(struct tv_train_rows *table_out)
{
    tv_train_rows_begin(
        table_out, "bench kernels",
        "Usage: trivet bench kernels [flags]\n"
        "Times every kernel at the sizes of a model, on one rank, against what this\n"
        "machine can do at most. Flags below the measurement's are those of trivet train.\n\n",
        kernel_rows, LENGTH(kernel_rows));
    tv_train_rows_take(table_out, for_kernels, LENGTH(for_kernels), AT(train));
}

tv_status_t tv_bench_step_options_parse(const struct tv_train_rows *table, int argc, char **argv,
                                        struct tv_bench_step_options *options_out)
{
    struct tv_bench_step_options parsed = {0};
    struct tv_options_given given;
    char *nothing[] = {argv[0], NULL};
    TV_TRY(tv_train_options_parse(1, nothing, &parsed.train)); /* defaults of rows left out too */
    TV_TRY(tv_options_parse(&table->table, argc, argv, &parsed, &given));
    parsed.train.given = tv_train_rows_given(table, &given);
    parsed.train.is_mock_data = 1;
    parsed.train.train_iters =
        parsed.num_warmup + 2 * (int64_t)parsed.num_steps; /* twice on GPUs */
    *options_out = parsed;
    return TV_OK;
}

void tv_bench_step_options_complete(struct tv_bench_step_options *options, tv_device_kind_t device,
                                    int num_ranks)
{
    const int is_gpu = device == TV_DEVICE_CUDA;
    if (options->matrix_size == 0)
        options->matrix_size = is_gpu ? 8192 : 2048;
    if (options->triad_mib == 0)
        options->triad_mib = is_gpu ? 1024 * num_ranks : 128;
}
