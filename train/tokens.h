/* train/tokens.h -- a file of token ids, mapped: text (one byte, one id), raw little-endian 16 or 32
 * bit ids without a header, a shard of llm.c, or Megatron-LM's indexed pair of NAME.bin and NAME.idx;
 * or ids out of a random number generator, from no file.
 *
 *   llm.c     256 int32: magic, version, number of ids, zeros; then the ids. Magic 20240520 with
 *             version 1: 16 bits each; 20240801 with version 7: 32 bits.
 *   Megatron  .bin: ids alone. .idx: "MMIDIDX\0\0", u64 1, u8 type of an id, u64 n sequences, u64 m,
 *             i32 [n] ids of each, i64 [n] byte of .bin at which each starts, i64 [m] first sequence
 *             of each document, and n itself. Types read here: 1 (u8), 8 (u16), 4 (i32). The
 *             sequences lie one behind the other, as every writer leaves them.
 *
 * Counts and places are 64-bit. What a header says is held against the size of the file before it is
 * used. Ids are checked against the vocabulary once, over the whole file, so that reading needs no
 * check. */
#ifndef TV_TRAIN_TOKENS_H
#define TV_TRAIN_TOKENS_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
typedef enum {
    TV_TOKENS_TEXT,
    TV_TOKENS_U16,
    TV_TOKENS_U32,
    TV_TOKENS_LLMC,
    TV_TOKENS_MEGATRON
} tv_tokens_format_t;
const char *tv_tokens_format_name(tv_tokens_format_t format); /* "text", "u16" ... as flags say */

/* word: a format's name, or "auto", which goes by the file: NAME, NAME.bin or NAME.idx where NAME.idx
 * begins as Megatron-LM's does; .bin that begins as llm.c's; else by the end of the name: .txt and
 * .text are text, .u16 and .bin are u16, .u32 is u32. Another name is refused, and so is a .bin file
 * that begins like 32-bit ids (every second 16-bit word zero).
 * Errors: TV_INVALID, TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_tokens_format_of(const char *path, const char *word,
                                              tv_tokens_format_t *format_out);

struct tv_tokens; /* opaque */
/* An empty file has 0 tokens. Errors: TV_BAD_FILE (not there, not a plain file, cut inside a
 * token, a header that the file does not bear out), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_tokens_open(const char *path, tv_tokens_format_t format,
                                         struct tv_tokens **tokens_out);
/* No file: token i is a function of (seed, i) alone, uniform over the vocabulary. count >= 0, vocab_size
 * >= 1. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_tokens_mock(int64_t count, int64_t vocab_size, uint64_t seed,
                                         struct tv_tokens **tokens_out);
void tv_tokens_close(struct tv_tokens *tokens); /* NULL is a no-op */
int64_t tv_tokens_count(const struct tv_tokens *tokens);
const char *tv_tokens_path(const struct tv_tokens *tokens);
tv_tokens_format_t tv_tokens_format(const struct tv_tokens *tokens);
/* Documents that the file itself tells apart: those of Megatron's index; 0 in other formats. */
int64_t tv_tokens_num_documents(const struct tv_tokens *tokens);
/* The token behind document `document` in [0, num_documents), where the next one starts. */
int64_t tv_tokens_document_end(const struct tv_tokens *tokens, int64_t document);

/* Reads the whole file once, unless the width cannot hold ids >= vocab_size.
 * Errors: TV_BAD_FILE naming the file, the first such token's index, and its id. */
TV_MUST_CHECK tv_status_t tv_tokens_check(const struct tv_tokens *tokens, int64_t vocab_size);
/* Tokens [first, first + count) -> out [count]. Errors: TV_INTERNAL when they leave the file. */
TV_MUST_CHECK tv_status_t tv_tokens_read(const struct tv_tokens *tokens, int64_t first,
                                         int64_t count, int32_t *out);
TV_END_C
#endif
