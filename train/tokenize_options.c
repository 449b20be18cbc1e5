/* train/tokenize_options.c -- the table of `trivet tokenize`. */
#include "train/tokenize_options.h"

#define AT(field) offsetof(struct tv_tokenize_options, field)

static const struct tv_option rows[] = {
    {"Text", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"input", NULL, TV_OPTION_LIST, AT(input), 0, 0, NULL, "files of text (required)"},
    {"input-format", NULL, TV_OPTION_TEXT, AT(input_format), 0, 0, "auto",
     "text: a file is a document; jsonl: a line is an object that has one; auto: jsonl for names "
     "that end in .jsonl"},
    {"json-key", "json-keys", TV_OPTION_TEXT, AT(json_key), 0, 0, "text",
     "with jsonl: where the document stands in its object"},
    {"Tokens", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"tokenizer", "tokenizer-model", TV_OPTION_TEXT, AT(tokenizer), 0, 0, "bytes",
     "bytes, a Hugging Face tokenizer.json (byte-level BPE), or a SentencePiece model"},
    {"eod-token", NULL, TV_OPTION_TEXT, AT(eod_token), 0, 0, NULL,
     "the id, or the text of the special token, that ends a document"},
    {"append-eod", NULL, TV_OPTION_SWITCH, AT(appends_eod), 0, 0, NULL,
     "put --eod-token behind each document"},
    {"Output", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"output", "output-prefix", TV_OPTION_TEXT, AT(output), 0, 0, NULL,
     "the token file; of megatron the name before .bin and .idx (required)"},
    {"output-format", NULL, TV_OPTION_TEXT, AT(output_format), 0, 0, "auto",
     "u16, u32, llmc or megatron; auto: u16 for a vocabulary of up to 65536, else u32"},
    {"threads", "workers", TV_OPTION_INT, AT(num_threads), 1, 4096, NULL,
     "all allowed cores by default"},
    {"help", NULL, TV_OPTION_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
};

const struct tv_option_table tv_tokenize_option_table = {
    rows, sizeof(rows) / sizeof(rows[0]), "tokenize",
    "Usage: trivet tokenize --input FILE... --output FILE [flags]\n"
    "Turns text into a token file to train on.\n"};

tv_status_t tv_tokenize_options_parse(int argc, char **argv, struct tv_tokenize_options *options)
{
    struct tv_tokenize_options parsed = {0};
    TV_TRY(tv_options_parse(&tv_tokenize_option_table, argc, argv, &parsed, &parsed.given));
    *options = parsed;
    return TV_OK;
}
