/* train/bpe_internal.h -- the tables of a byte-pair encoding. */
#ifndef TV_TRAIN_BPE_INTERNAL_H
#define TV_TRAIN_BPE_INTERNAL_H
#include "train/bpe.h"

TV_BEGIN_C
/* A set of byte strings with ids, open addressing. */
struct tv_bpe_words {
    struct tv_bpe_word {
        int64_t first; /* in bytes */
        uint32_t length, id;
    } * words; /* [num] */
    int64_t num;
    char *bytes;      /* of all words */
    uint32_t *places; /* [mask + 1] number of a word + 1, or 0 */
    uint64_t mask;
};
struct tv_bpe_merge {
    uint64_t pair; /* left id * 2^32 + right id */
    uint32_t rank, id;
};
struct tv_bpe {
    struct tv_bpe_words words;
    struct tv_bpe_merge *merges; /* [mask + 1]; rank TV_NO_RANK: empty */
    uint64_t mask;
    uint32_t byte_ids[256];
    int ignores_merges; /* a word that is a token is that token */
    int64_t vocab_size;
};
#define TV_NO_RANK UINT32_MAX

/* The id of a string of bytes; -1: none. */
int64_t tv_bpe_find_word(const struct tv_bpe_words *words, const char *bytes, size_t length);
/* Where a pair stands, or would. */
struct tv_bpe_merge *tv_bpe_merge_at(const struct tv_bpe *bpe, uint32_t left, uint32_t right);
TV_END_C
#endif
