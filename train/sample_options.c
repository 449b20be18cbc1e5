/* train/sample_options.c -- the table of `trivet sample`. */
#include "train/sample_options.h"

#define AT(field) offsetof(struct tv_sample_options, field)

static const struct tv_option rows[] = {
    {"MODEL", NULL, TV_OPTION_WORD, AT(model), 0, 0, NULL,
     "a checkpoint or a folder of them (the newest), a Hugging Face folder, a .safetensors file or "
     "an index of shards"},
    {"Prompt", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"prompt", NULL, TV_OPTION_TEXT, AT(prompt), 0, 0, NULL,
     "text to go on from; a line's end by default"},
    {"prompt-file", NULL, TV_OPTION_TEXT, AT(prompt_file), 0, 0, NULL, "the same from FILE"},
    {"prompt-ids", NULL, TV_OPTION_TEXT, AT(prompt_ids), 0, 0, NULL,
     "token ids with commas between them"},
    {"format", NULL, TV_OPTION_TEXT, AT(format), 0, 0, "auto",
     "what ids mean: text (bytes) or ids; auto: text for a vocabulary of 256"},
    {"Sampling", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"max-new-tokens", NULL, TV_OPTION_INT64, AT(max_new_tokens), 0, TV_OPTION_TOP, "256",
     "tokens to generate"},
    {"temperature", NULL, TV_OPTION_REAL, AT(temperature), 0, 1e6, "1",
     "scores are divided by it; 0: always the likeliest token"},
    {"top-k", NULL, TV_OPTION_INT64, AT(top_k), 0, TV_OPTION_TOP, "0",
     "choose among the N likeliest tokens; 0: all"},
    {"top-p", NULL, TV_OPTION_REAL, AT(top_p), TV_OPTION_TINY, 1, "1",
     "choose among the likeliest tokens that together have this probability"},
    {"seed", NULL, TV_OPTION_INT64, AT(seed), 0, TV_OPTION_BIG, "1234",
     "the same seed gives the same tokens"},
    {"num-samples", NULL, TV_OPTION_INT64, AT(num_samples), 1, TV_OPTION_TOP, "1",
     "how many, each from the prompt"},
    {"stop-id", NULL, TV_OPTION_INT64, AT(stop_id), 0, TV_OPTION_TOP, NULL,
     "end a sample when this token is drawn; it is not printed"},
    {"Run", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"config", NULL, TV_OPTION_TEXT, AT(config), 0, 0, NULL,
     "a config.json in place of the one beside the weights"},
    {"threads", NULL, TV_OPTION_INT, AT(num_threads), 1, 4096, NULL,
     "threads of the kernels; the cores by default"},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL,
     "print one JSON object per sample: prompt_ids and ids"},
    {"log-level", NULL, TV_OPTION_TEXT, AT(log_level), 0, 0, "info",
     "debug, info, warn, error or off"},
    {"help", NULL, TV_OPTION_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
};
enum { NUM_ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(NUM_ROWS <= TV_OPTION_MAX_ROWS, "tv_options_given has a bit for each row");

const struct tv_option_table tv_sample_option_table = {
    rows, NUM_ROWS, "sample",
    "Usage: trivet sample MODEL [--prompt TEXT] [flags]\n"
    "Text from a trained model, on one rank.\n\n"};

tv_status_t tv_sample_options_parse(int argc, char **argv, struct tv_sample_options *options_out)
{
    struct tv_sample_options parsed = {.stop_id = -1};
    TV_TRY(tv_options_parse(&tv_sample_option_table, argc, argv, &parsed, &parsed.given));
    if (parsed.model == NULL && !parsed.wants_help)
        return TV_ERR(TV_INVALID, "sample needs a model; see trivet sample --help");
    if ((parsed.prompt != NULL) + (parsed.prompt_file != NULL) + (parsed.prompt_ids != NULL) > 1)
        return TV_ERR(TV_INVALID, "--prompt, --prompt-file and --prompt-ids: give one of them");
    *options_out = parsed;
    return TV_OK;
}
