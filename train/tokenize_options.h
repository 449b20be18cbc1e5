/* train/tokenize_options.h -- the flags of `trivet tokenize`; Megatron-LM's names are accepted. */
#ifndef TV_TRAIN_TOKENIZE_OPTIONS_H
#define TV_TRAIN_TOKENIZE_OPTIONS_H
#include "train/options.h"

TV_BEGIN_C
struct tv_tokenize_options {
    struct tv_option_list input;
    const char *output, *tokenizer, *input_format, *output_format, *json_key;
    const char *eod_token; /* an id, or a token's text; NULL: none */
    int appends_eod, num_threads;
    int wants_help;
    struct tv_options_given given;
};
extern const struct tv_option_table tv_tokenize_option_table;
/* Errors: those of tv_options_parse. */
TV_MUST_CHECK tv_status_t tv_tokenize_options_parse(int argc, char **argv,
                                                    struct tv_tokenize_options *options);
TV_END_C
#endif
