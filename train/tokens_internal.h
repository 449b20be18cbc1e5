/* train/tokens_internal.h -- what token files of all formats come down to: ids of one width. */
#ifndef TV_TRAIN_TOKENS_INTERNAL_H
#define TV_TRAIN_TOKENS_INTERNAL_H
#include "train/files.h"
#include "train/tokens.h"

TV_BEGIN_C
struct tv_tokens {
    char *path;
    tv_tokens_format_t format;
    struct tv_file_map map;   /* of the ids */
    struct tv_file_map index; /* Megatron's .idx */
    const unsigned char *ids; /* [count * width], in the map */
    int width;                /* bytes: 1, 2 or 4 */
    int64_t count;
    int64_t num_sequences, num_documents; /* of the index */
    int64_t mock_vocab;                   /* of ids without a file; 0: a file */
    uint64_t mock_key;
};

/* The little-endian number of `width` bytes at b. */
static inline uint64_t tv_little_endian(const unsigned char *b, int width)
{
    uint64_t value = 0;
    for (int i = 0; i < width; i++)
        value |= (uint64_t)b[i] << (8 * i);
    return value;
}

/* tokens_llmc.c: does a file begin as a shard of llm.c? */
int tv_llmc_is(const struct tv_file_map *map);
/* Fills ids, width and count from the mapped file. Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_llmc_parse(struct tv_tokens *tokens);

/* tokens_megatron.c: is `path`, which may end in .bin or .idx, one of a pair? */
int tv_megatron_is(const char *path);
/* Maps both files; fills ids, width, count and the index. Errors: TV_BAD_FILE, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_megatron_open(struct tv_tokens *tokens);
/* Fills the rest from what `map` and `index` hold. Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_megatron_parse(struct tv_tokens *tokens);
TV_END_C
#endif
