/* train/tokenizer.h -- text to ids: bytes, a Hugging Face tokenizer.json of the byte-level BPE kind, or a
 * SentencePiece model. Nothing is put around a text: no begin, no end.
 *
 * A tokenizer is read-only once it is open: any number of threads may encode with it, each with a
 * worker of its own. */
#ifndef TV_TRAIN_TOKENIZER_H
#define TV_TRAIN_TOKENIZER_H
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

TV_BEGIN_C
/* Ids that grow. Zeroed: none; freed by tv_ids_free. */
struct tv_ids {
    uint32_t *ids;
    int64_t num, room;
};
/* Room for `more` at ids + num. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_ids_reserve(struct tv_ids *ids, int64_t more);
TV_MUST_CHECK tv_status_t tv_ids_add(struct tv_ids *ids, uint32_t id);
void tv_ids_free(struct tv_ids *ids);

struct tv_tokenizer;        /* opaque */
struct tv_tokenizer_worker; /* opaque: what one thread needs */
/* name: "bytes" (id = byte, 256 of them), a file that ends in .json, or a SentencePiece model.
 * Errors: TV_BAD_FILE (the file is damaged), TV_UNSUPPORTED (a kind that is not read, naming the field;
 * SentencePiece in a build without it), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_tokenizer_open(const char *name, struct tv_tokenizer **tokenizer_out);
void tv_tokenizer_close(struct tv_tokenizer *tokenizer);
const char *tv_tokenizer_kind(const struct tv_tokenizer *tokenizer);   /* "bytes", "bpe", ... */
int64_t tv_tokenizer_vocab_size(const struct tv_tokenizer *tokenizer); /* largest id + 1 */
/* The id of a special token; -1: there is none of that text. */
int64_t tv_tokenizer_find(const struct tv_tokenizer *tokenizer, const char *text);

TV_MUST_CHECK tv_status_t tv_tokenizer_worker_create(struct tv_tokenizer_worker **worker_out);
void tv_tokenizer_worker_destroy(struct tv_tokenizer_worker *worker);

/* Is it UTF-8, where the tokenizer reads characters? Errors: TV_BAD_FILE with the byte. */
TV_MUST_CHECK tv_status_t tv_tokenizer_check_text(const struct tv_tokenizer *tokenizer,
                                                  const char *text, int64_t bytes);
/* Adds the ids of text[first, end), checked. The text goes on to `bytes`; first and end are its
 * borders, or places at which it may be cut. Errors: TV_NO_MEMORY, TV_INTERNAL. */
TV_MUST_CHECK tv_status_t tv_tokenizer_encode(const struct tv_tokenizer *tokenizer,
                                              struct tv_tokenizer_worker *worker, const char *text,
                                              int64_t bytes, int64_t first, int64_t end,
                                              struct tv_ids *ids);
/* A place in [at, bytes] at which the text may be cut without changing its ids: the first from `at` on,
 * or bytes. */
int64_t tv_tokenizer_cut(const struct tv_tokenizer *tokenizer, const char *text, int64_t bytes,
                         int64_t at);
TV_END_C
#endif
