/* train/bpe.h -- byte-pair encoding of words (Sennrich et al. 2016; GPT-2's kind, over bytes).
 *
 * A word starts as its bytes; of all neighbours that the list of merges has, the pair of the lowest
 * rank (the leftmost of equals) becomes one token, until there is none. With a heap that is
 * O(n log n) for a word of n bytes. Words of up to 16 bytes are remembered by each worker. */
#ifndef TV_TRAIN_BPE_H
#define TV_TRAIN_BPE_H
#include "train/tokenizer.h"

TV_BEGIN_C
struct json_t; /* jansson.h */
struct tv_bpe; /* opaque: vocabulary and merges */

/* `model` and `added_tokens` of a tokenizer.json. Errors: TV_UNSUPPORTED, TV_BAD_FILE with path and
 * field, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_bpe_read(const char *path, const struct json_t *json,
                                      struct tv_bpe **bpe_out);
void tv_bpe_destroy(struct tv_bpe *bpe);             /* NULL is a no-op */
int64_t tv_bpe_vocab_size(const struct tv_bpe *bpe); /* largest id + 1, without added tokens */

struct tv_bpe_work; /* opaque: room of one thread */
TV_MUST_CHECK tv_status_t tv_bpe_work_create(struct tv_bpe_work **work_out);
void tv_bpe_work_destroy(struct tv_bpe_work *work);
/* Adds the ids of a word of any bytes. */
TV_MUST_CHECK tv_status_t tv_bpe_encode(const struct tv_bpe *bpe, struct tv_bpe_work *work,
                                        const char *word, int64_t bytes, struct tv_ids *ids);
TV_END_C
#endif
