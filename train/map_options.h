/* train/map_options.h -- the flags of `trivet map`. */
#ifndef TV_TRAIN_MAP_OPTIONS_H
#define TV_TRAIN_MAP_OPTIONS_H
#include "train/train_options.h"

TV_BEGIN_C
/* Values as given. Strings are borrowed from argv. */
struct tv_map_options {
    struct tv_train_options train; /* mesh, schedule, model and batch; the others as by default */
    /* machines */
    const char *topology, *network, *arrival;
    /* traffic */
    const char *traffic_text, *exposed_text;
    double traffic[3], exposed[3]; /* tensor, pipe, data; bytes per step and group; shares */
    const char *precision;         /* fp32 or bf16; NULL: bf16 on GPUs */
    /* output */
    int is_json, width, wants_help;
    const char *svg, *emit, *log_level;
};

/* argv[0] is skipped. On TV_OK `options_out` is filled; it owns nothing. Errors: those of
 * tv_options_parse; TV_INVALID for flags that do not go together. */
TV_MUST_CHECK tv_status_t tv_map_options_parse(int argc, char **argv,
                                               struct tv_map_options *options_out);
void tv_map_options_help(FILE *out);
TV_END_C
#endif
