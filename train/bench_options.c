/* train/bench_options.c -- the table of `trivet bench WHAT`. */
#include "train/bench_options.h"
#include <string.h>

#define AT(field) offsetof(struct tv_bench_options, field)

static const struct tv_option rows[] = {
    {"WHAT", NULL, TV_OPTION_WORD, AT(what), 0, 0, NULL,
     "what is measured: pipeline or links; step and kernels have flags of their own: "
     "trivet bench step --help"},
    {"Measurement", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"seconds", NULL, TV_OPTION_REAL, AT(seconds), TV_OPTION_TINY, 1e6, "1",
     "how long each measurement takes, about"},
    {"local-ranks", NULL, TV_OPTION_INT, AT(local_ranks), 1, 1024, NULL,
     "run N ranks as threads of this process, without a launcher"},
    {"Output", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL,
     "print one JSON object and nothing else"},
    {"log-level", NULL, TV_OPTION_TEXT, AT(log_level), 0, 0, "info",
     "debug, info, warn, error or off"},
    {"help", NULL, TV_OPTION_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
};
enum { NUM_ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(NUM_ROWS <= TV_OPTION_MAX_ROWS, "tv_options_given has a bit for each row");

const struct tv_option_table tv_bench_option_table = {
    rows, NUM_ROWS, "bench",
    "Usage: trivet bench WHAT [flags]\n"
    "       mpiexec -n RANKS trivet bench WHAT [flags]\n"
    "Measures a part of trivet on this machine.\n\n"};

static tv_status_t check_what(const struct tv_bench_options *options)
{
    if (options->what == NULL && options->wants_help)
        return TV_OK;
    if (options->what == NULL)
        return TV_ERR(TV_INVALID,
                      "bench needs a word that says what is measured: step, kernels, pipeline or "
                      "links; see trivet bench --help");
    if (strcmp(options->what, "pipeline") != 0 && strcmp(options->what, "links") != 0)
        return TV_ERR(
            TV_INVALID,
            "bench %s is not one of step, kernels, pipeline, links; see trivet bench --help",
            options->what);
    return TV_OK;
}

tv_status_t tv_bench_options_parse(int argc, char **argv, struct tv_bench_options *options_out)
{
    struct tv_bench_options parsed = {0};
    TV_TRY(tv_options_parse(&tv_bench_option_table, argc, argv, &parsed, &parsed.given));
    TV_TRY(check_what(&parsed));
    *options_out = parsed;
    return TV_OK;
}
