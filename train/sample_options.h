/* train/sample_options.h -- the words of `trivet sample MODEL`. */
#ifndef TV_TRAIN_SAMPLE_OPTIONS_H
#define TV_TRAIN_SAMPLE_OPTIONS_H
#include "train/options.h"

TV_BEGIN_C
/* Values as given. Strings are borrowed from argv. */
struct tv_sample_options {
    const char *model; /* NULL only with wants_help */
    const char *config;
    const char *prompt, *prompt_file, *prompt_ids; /* at most one */
    const char *format;                            /* auto, text or ids */
    int64_t max_new_tokens, num_samples;
    int64_t stop_id; /* -1: none */
    double temperature, top_p;
    int64_t top_k, seed;
    int num_threads; /* 0: a fair share */
    int is_json;
    const char *log_level;
    int wants_help;

    struct tv_options_given given;
};
extern const struct tv_option_table tv_sample_option_table;

/* argv[0] is skipped. On TV_OK `options_out` is filled; it owns nothing. Errors: those of
 * tv_options_parse, and TV_INVALID when MODEL is missing or there are two prompts. */
TV_MUST_CHECK tv_status_t tv_sample_options_parse(int argc, char **argv,
                                                  struct tv_sample_options *options_out);
TV_END_C
#endif
