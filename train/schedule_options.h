/* train/schedule_options.h -- the flags of `trivet schedule`. */
#ifndef TV_TRAIN_SCHEDULE_OPTIONS_H
#define TV_TRAIN_SCHEDULE_OPTIONS_H
#include "train/options.h"

TV_BEGIN_C
/* Values as given. Strings are borrowed from argv. */
struct tv_schedule_options {
    /* schedule */
    int pp, vpp, num_micro; /* 0: not given; a file says them itself, vpp is the schedule's own */
    const char *schedule;
    int slot_limit; /* 0: none */
    int overlaps_pairs;
    /* time */
    const char *costs_text;
    double costs[3];  /* F, I, W from costs_text; B is I + W */
    double send_cost; /* in the same unit */
    double run_ms;    /* milliseconds per unit of cost; -1: nothing runs */
    int local_ranks;
    double timeout_seconds;
    /* output */
    int is_compare, is_json;
    const char *svg, *trace, *csv, *csv_form; /* compute_only or compute_comms */
    int width;                                /* columns; 0: the terminal's, or 80 */
    const char *log_level;
    int wants_help;

    struct tv_options_given given;
};
extern const struct tv_option_table tv_schedule_option_table;

/* argv[0] is skipped. On TV_OK `options_out` is filled; it owns nothing. Errors: those of
 * tv_options_parse, and TV_INVALID for --costs and --csv-form. */
TV_MUST_CHECK tv_status_t tv_schedule_options_parse(int argc, char **argv,
                                                    struct tv_schedule_options *options_out);
/* --costs: three numbers of at least 0, not all 0. The flag's B is the input part of a backward, I.
 * Errors: TV_INVALID with the flag and the text. */
TV_MUST_CHECK tv_status_t tv_schedule_costs_parse(const char *text, double costs_out[3]);
TV_END_C
#endif
