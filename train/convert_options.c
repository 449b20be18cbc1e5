/* train/convert_options.c -- the table of `trivet convert`. */
#include "train/convert_options.h"
#include "train/hf.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(struct tv_convert_options, field)

static const struct tv_option rows[] = {
    {"FROM", NULL, TV_OPTION_WORD, AT(from), 0, 0, NULL,
     "the model: a checkpoint or a folder of them (the newest), a Hugging Face folder, a "
     ".safetensors file or an index of shards"},
    {"Output", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"to", NULL, TV_OPTION_TEXT, AT(to), 0, 0, NULL,
     "the folder that is written, in Hugging Face's layout (required)"},
    {"dtype", NULL, TV_OPTION_TEXT, AT(dtype), 0, 0, "keep",
     "fp32, bf16 or fp16, rounded to the nearest; keep: as it is (fp32 where weights differ)"},
    {"max-shard-size", NULL, TV_OPTION_TEXT, AT(max_shard_size), 0, 0, "0",
     "largest file, such as 5GB or 512MiB; a larger tensor gets a file of its own; 0: one file"},
    {"Input", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"config", NULL, TV_OPTION_TEXT, AT(config), 0, 0, NULL,
     "a config.json in place of the one beside the weights"},
    {"Run", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"log-level", NULL, TV_OPTION_TEXT, AT(log_level), 0, 0, "info",
     "debug, info, warn, error or off"},
    {"help", NULL, TV_OPTION_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
};
enum { NUM_ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(NUM_ROWS <= TV_OPTION_MAX_ROWS, "tv_options_given has a bit for each row");

const struct tv_option_table tv_convert_option_table = {
    rows, NUM_ROWS, "convert",
    "Usage: trivet convert FROM --to DIR [flags]\n"
    "Writes a model as a Hugging Face folder (config.json, *.safetensors). The same\n"
    "input and flags give the same bytes; some MiB of memory do for any size.\n\n"};

tv_status_t tv_options_bytes(const char *flag, const char *text, int64_t *bytes_out)
{
    static const struct {
        const char *name;
        int64_t bytes;
    } units[] = {{"", 1},
                 {"B", 1},
                 {"KB", 1000},
                 {"MB", 1000000},
                 {"GB", 1000000000},
                 {"TB", 1000000000000},
                 {"KiB", INT64_C(1) << 10},
                 {"MiB", INT64_C(1) << 20},
                 {"GiB", INT64_C(1) << 30},
                 {"TiB", INT64_C(1) << 40}};
    char *end = NULL;
    errno = 0;
    const int64_t number = strtoll(text, &end, 10);
    for (size_t i = 0; end != text && number >= 0 && i < sizeof(units) / sizeof(units[0]); i++) {
        int64_t bytes;
        if (strcmp(end, units[i].name) != 0)
            continue;
        if (errno == ERANGE || __builtin_mul_overflow(number, units[i].bytes, &bytes))
            break;
        *bytes_out = bytes;
        return TV_OK;
    }
    return TV_ERR(TV_INVALID, "--%s %s is not a size such as 5GB, 512MiB or 1000000", flag, text);
}

static tv_status_t check(const struct tv_convert_options *options)
{
    tv_hf_dtype_t dtype;
    if (options->from == NULL)
        return TV_ERR(TV_INVALID, "convert needs the model that is converted; see trivet convert "
                                  "--help");
    if (options->to == NULL)
        return TV_ERR(TV_INVALID, "convert %s: --to DIR is missing: the folder that is written",
                      options->from);
    if (strcmp(options->dtype, "keep") != 0 && tv_hf_dtype_parse(options->dtype, &dtype) != TV_OK)
        return TV_ERR(TV_INVALID, "--dtype %s is not one of keep, fp32, bf16, fp16",
                      options->dtype);
    return TV_OK;
}

tv_status_t tv_convert_options_parse(int argc, char **argv, struct tv_convert_options *options_out)
{
    struct tv_convert_options parsed = {0};
    TV_TRY(tv_options_parse(&tv_convert_option_table, argc, argv, &parsed, &parsed.given));
    if (!parsed.wants_help)
        TV_TRY(check(&parsed));
    TV_TRY(tv_options_bytes("max-shard-size", parsed.max_shard_size, &parsed.max_shard_bytes));
    *options_out = parsed;
    return TV_OK;
}
