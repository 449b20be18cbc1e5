/* train/bench_options.h -- the words of `trivet bench WHAT`. */
#ifndef TV_TRAIN_BENCH_OPTIONS_H
#define TV_TRAIN_BENCH_OPTIONS_H
#include "train/options.h"

TV_BEGIN_C
/* Values as given. Strings are borrowed from argv. */
struct tv_bench_options {
    const char *what; /* what is measured; NULL only with wants_help */
    double seconds;   /* of each measurement, about */
    int local_ranks;  /* 0: the launcher's ranks */
    int is_json;
    const char *log_level;
    int wants_help;

    struct tv_options_given given;
};
extern const struct tv_option_table tv_bench_option_table;

/* argv[0] is skipped. On TV_OK `options_out` is filled; it owns nothing. Errors: those of
 * tv_options_parse, and TV_INVALID when WHAT is missing or not known. */
TV_MUST_CHECK tv_status_t tv_bench_options_parse(int argc, char **argv,
                                                 struct tv_bench_options *options_out);
TV_END_C
#endif
