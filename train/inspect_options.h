/* train/inspect_options.h -- the words of `trivet inspect PATH`. */
#ifndef TV_TRAIN_INSPECT_OPTIONS_H
#define TV_TRAIN_INSPECT_OPTIONS_H
#include "train/options.h"

TV_BEGIN_C
/* Values as given. Strings are borrowed from argv. */
struct tv_inspect_options {
    const char *path; /* NULL only with wants_help */
    int is_quick;     /* headers alone */
    const char *data_format;
    int64_t vocab_size; /* of token files; 0: not given */
    int is_json;
    const char *log_level;
    int wants_help;

    struct tv_options_given given;
};
extern const struct tv_option_table tv_inspect_option_table;

/* argv[0] is skipped. On TV_OK `options_out` is filled; it owns nothing. Errors: those of
 * tv_options_parse, and TV_INVALID when PATH is missing. */
TV_MUST_CHECK tv_status_t tv_inspect_options_parse(int argc, char **argv,
                                                   struct tv_inspect_options *options_out);
TV_END_C
#endif
