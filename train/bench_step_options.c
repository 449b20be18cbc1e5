/* train/bench_step_options.c -- rows of the train table that keep their meaning, behind rows of the benchmark's own. */
#include "train/bench_step_options.h"
#include <string.h>

#define AT(field) offsetof(struct tv_bench_step_options, field)
_Static_assert(AT(train) == 0, "rows of the train table have offsets into the train options");

static const struct tv_option step_rows[] = {
    {"step", NULL, TV_OPTION_WORD, AT(what), 0, 0, NULL, "whole training steps"},
    {"Measurement", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"steps", NULL, TV_OPTION_INT, AT(num_steps), 1, 1e6, "10", "steps that are measured"},
    {"warmup-steps", NULL, TV_OPTION_INT, AT(num_warmup), 1, 1e6, "2",
     "steps before them, which are not"},
    {"seconds", NULL, TV_OPTION_REAL, AT(seconds), TV_OPTION_TINY, 1e6, "1",
     "how long each peak is measured before and after the steps, about"},
    {"matrix-size", NULL, TV_OPTION_INT, AT(matrix_size), 1, 32768, "2048",
     "rows and columns of the product that is the peak"},
    {"memory-size", NULL, TV_OPTION_INT, AT(triad_mib), 1, 65536, "128",
     "MiB of each of the three tensors of the memory's peak, of all ranks together"},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL,
     "print one JSON object and nothing else"},
};
static const struct tv_option kernel_rows[] = {
    {"kernels", NULL, TV_OPTION_WORD, AT(what), 0, 0, NULL, "every kernel at a model's sizes"},
    {"Measurement", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"seconds", NULL, TV_OPTION_REAL, AT(seconds), TV_OPTION_TINY, 1e6, "0.2",
     "how long each kernel and each peak is measured, about"},
    {"matrix-size", NULL, TV_OPTION_INT, AT(matrix_size), 1, 32768, "2048",
     "rows and columns of the product that is the peak"},
    {"memory-size", NULL, TV_OPTION_INT, AT(triad_mib), 1, 65536, "128",
     "MiB of each of the three tensors of the memory's peak"},
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
                                          "threads",
                                          "args",
                                          "log-level",
                                          "help"};
#define LENGTH(array) ((int)(sizeof(array) / sizeof((array)[0])))

static int is_among(const char *const *names, int num, const char *name)
{
    for (int i = 0; i < num; i++) {
        if (strcmp(names[i], name) == 0)
            return 1;
    }
    return 0;
}

static void add_row(struct tv_bench_step_table *t, const struct tv_option *row, int train_row)
{
    t->train_row[t->table.num_rows] = train_row;
    t->rows[t->table.num_rows++] = *row;
}

/* The own rows, then those train rows that are among `names`, or those that are not. */
static void fill(struct tv_bench_step_table *t, const struct tv_option *own, int num_own,
                 const char *const *names, int num_names, int keeps)
{
    t->table.rows = t->rows;
    t->table.num_rows = 0;
    for (int i = 0; i < num_own; i++)
        add_row(t, &own[i], -1);
    for (int i = 0; i < tv_train_option_table.num_rows; i++) {
        const struct tv_option *row = &tv_train_option_table.rows[i];
        if (is_among(names, num_names, row->name) == keeps)
            add_row(t, row, i);
    }
}

void tv_bench_step_table_fill(struct tv_bench_step_table *table_out)
{
    fill(table_out, step_rows, LENGTH(step_rows), not_for_steps, LENGTH(not_for_steps), 0);
    table_out->table.command = "bench step";
    table_out->table.usage =
        "Usage: trivet bench step [flags]\n"
        "       mpiexec -n RANKS trivet bench step [flags]\n"
        "Trains on random tokens and says how fast, and where the time goes. Flags below\n"
        "the measurement's are those of trivet train.\n\n";
}

void tv_bench_kernels_table_fill(struct tv_bench_step_table *table_out)
{
    fill(table_out, kernel_rows, LENGTH(kernel_rows), for_kernels, LENGTH(for_kernels), 1);
    table_out->table.command = "bench kernels";
    table_out->table.usage =
        "Usage: trivet bench kernels [flags]\n"
        "Times every kernel at the sizes of a model, on one rank, against what this\n"
        "machine can do at most. Flags below the measurement's are those of trivet train.\n\n";
}

/* The train flags that were given, by their place in the train table. */
static struct tv_options_given given_of_train(const struct tv_bench_step_table *t,
                                              const struct tv_options_given *given)
{
    struct tv_options_given train = {.args_text = given->args_text};
    for (int i = 0; i < t->table.num_rows; i++) {
        const int at = t->train_row[i];
        if (at >= 0 && (given->bits[i / 64] >> i % 64 & 1))
            train.bits[at / 64] |= (uint64_t)1 << at % 64;
    }
    return train;
}

tv_status_t tv_bench_step_options_parse(const struct tv_bench_step_table *table, int argc,
                                        char **argv, struct tv_bench_step_options *options_out)
{
    struct tv_bench_step_options parsed = {0};
    struct tv_options_given given;
    char *nothing[] = {argv[0], NULL};
    TV_TRY(tv_train_options_parse(1, nothing, &parsed.train)); /* defaults of rows left out too */
    TV_TRY(tv_options_parse(&table->table, argc, argv, &parsed, &given));
    parsed.train.given = given_of_train(table, &given);
    parsed.train.is_mock_data = 1;
    parsed.train.train_iters = parsed.num_warmup + parsed.num_steps;
    *options_out = parsed;
    return TV_OK;
}
