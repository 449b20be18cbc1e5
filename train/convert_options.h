/* train/convert_options.h -- the words of `trivet convert FROM --to DIR`. */
#ifndef TV_TRAIN_CONVERT_OPTIONS_H
#define TV_TRAIN_CONVERT_OPTIONS_H
#include "train/options.h"

TV_BEGIN_C
/* Values as given. Strings are borrowed from argv. */
struct tv_convert_options {
    const char *from, *to; /* NULL only with wants_help */
    const char *config;    /* NULL: beside the weights */
    const char *dtype;     /* "keep", or a word of tv_hf_dtype_parse */
    const char *max_shard_size;
    int64_t max_shard_bytes; /* of that text; 0: one file */
    const char *log_level;
    int wants_help;

    struct tv_options_given given;
};
extern const struct tv_option_table tv_convert_option_table;

/* argv[0] is skipped. On TV_OK `options_out` is filled; it owns nothing. Errors: those of
 * tv_options_parse, and TV_INVALID for what is missing or has a wrong form. */
TV_MUST_CHECK tv_status_t tv_convert_options_parse(int argc, char **argv,
                                                   struct tv_convert_options *options_out);
/* "5GB", "200 MB" is refused, "1.5GiB" too: a whole number, then nothing (bytes), KB, MB, GB, TB
 * (powers of 1000) or KiB, MiB, GiB, TiB (of 1024). flag: without dashes.
 * Errors: TV_INVALID with flag and text. */
TV_MUST_CHECK tv_status_t tv_options_bytes(const char *flag, const char *text, int64_t *bytes_out);
TV_END_C
#endif
