/* train/tokenizer_internal.h -- the kinds of tokenizers behind one face. */
#ifndef TV_TRAIN_TOKENIZER_INTERNAL_H
#define TV_TRAIN_TOKENIZER_INTERNAL_H
#include "train/bpe.h"
#include "train/tokenizer.h"

TV_BEGIN_C
struct tv_tokenizer_worker {
    struct tv_bpe_work *bpe;
    void *match; /* pcre2_match_data *, made when first needed */
};

struct tv_tokenizer_ops {
    const char *kind;
    int reads_characters; /* texts must be UTF-8 */
    tv_status_t (*encode)(const void *state, struct tv_tokenizer_worker *worker, const char *text,
                          int64_t bytes, int64_t first, int64_t end, struct tv_ids *ids);
    int64_t (*find)(const void *state, const char *text);
    void (*close)(void *state);
};
struct tv_tokenizer {
    const struct tv_tokenizer_ops *ops;
    void *state;
    int64_t vocab_size;
    int may_cut; /* texts, behind a line's end that white space does not follow */
};

/* Each fills tokenizer_out. */
TV_MUST_CHECK tv_status_t tv_tokenizer_open_bpe(const char *path,
                                                struct tv_tokenizer *tokenizer_out);
TV_MUST_CHECK tv_status_t tv_tokenizer_open_sentencepiece(const char *path,
                                                          struct tv_tokenizer *tokenizer_out);
struct json_t;
/* The same from what the file holds. */
TV_MUST_CHECK tv_status_t tv_tokenizer_parse_bpe(const char *path, const struct json_t *json,
                                                 struct tv_tokenizer *tokenizer_out);
void tv_tokenizer_free_match(void *match); /* NULL is a no-op */

/* Bytes of text[0, bytes) that are whole UTF-8 characters: bytes when all of it is. */
int64_t tv_utf8_length(const char *text, int64_t bytes);
TV_END_C
#endif
