/* train/sample_text.h -- what ids mean to people: a prompt becomes ids, ids become text.
 *
 * A row of a table per way to say them; a tokenizer is one more row. */
#ifndef TV_TRAIN_SAMPLE_TEXT_H
#define TV_TRAIN_SAMPLE_TEXT_H
#include "train/sample_options.h"

TV_BEGIN_C
struct tv_sample_text {
    const char *name; /* "text", "ids" */
    /* The prompt of the options: the caller frees *ids_out [*count_out].
     * Errors: TV_INVALID, TV_BAD_FILE (the prompt's file), TV_NO_MEMORY. */
    tv_status_t (*read_prompt)(const struct tv_sample_options *options, int32_t **ids_out,
                               int64_t *count_out);
    /* Print a token; is_first: of a sample. */
    void (*put)(int32_t id, int is_first, FILE *out);
};
/* vocab_size: of the model. Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_sample_text_choose(const struct tv_sample_options *options,
                                                int64_t vocab_size,
                                                const struct tv_sample_text **text_out);
TV_END_C
#endif
