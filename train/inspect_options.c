/* train/inspect_options.c -- the table of `trivet inspect`. */
#include "train/inspect_options.h"

#define AT(field) offsetof(struct tv_inspect_options, field)

static const struct tv_option rows[] = {
    {"PATH", NULL, TV_OPTION_WORD, AT(path), 0, 0, NULL,
     "a Hugging Face folder, config.json, a .safetensors file, an index of shards, a checkpoint "
     "or a folder of them, or a token file"},
    {"What is read", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"quick", NULL, TV_OPTION_SWITCH, AT(is_quick), 0, 0, NULL,
     "headers alone: sizes and places are still proved, numbers are not read"},
    {"data-format", NULL, TV_OPTION_TEXT, AT(data_format), 0, 0, "auto",
     "of a token file: as in trivet train"},
    {"vocab-size", NULL, TV_OPTION_INT64, AT(vocab_size), 1, TV_OPTION_TOP, NULL,
     "of a token file: refuse it if an id is not below N"},
    {"Output", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL,
     "print one JSON object and nothing else"},
    {"log-level", NULL, TV_OPTION_TEXT, AT(log_level), 0, 0, "info",
     "debug, info, warn, error or off"},
    {"help", NULL, TV_OPTION_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
};
enum { NUM_ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(NUM_ROWS <= TV_OPTION_MAX_ROWS, "tv_options_given has a bit for each row");

const struct tv_option_table tv_inspect_option_table = {
    rows, NUM_ROWS, "inspect",
    "Usage: trivet inspect PATH [flags]\n"
    "Prints what a file or folder holds, and verifies it: exit 3 when it is damaged,\n"
    "4 when weights are not finite.\n\n"};

tv_status_t tv_inspect_options_parse(int argc, char **argv, struct tv_inspect_options *options_out)
{
    struct tv_inspect_options parsed = {0};
    TV_TRY(tv_options_parse(&tv_inspect_option_table, argc, argv, &parsed, &parsed.given));
    if (parsed.path == NULL && !parsed.wants_help)
        return TV_ERR(TV_INVALID, "inspect needs a file or a folder; see trivet inspect --help");
    *options_out = parsed;
    return TV_OK;
}
