/* train/tokens.h -- a file of token ids, mapped: text (one byte, one id) or raw little-endian 16 or
 * 32 bit ids without a header; or ids out of a random number generator, from no file.
 *
 * Counts and places are 64-bit. Ids are checked against the vocabulary once, over the whole file,
 * so that reading needs no check. */
#ifndef TV_TRAIN_TOKENS_H
#define TV_TRAIN_TOKENS_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
typedef enum { TV_TOKENS_TEXT, TV_TOKENS_U16, TV_TOKENS_U32 } tv_tokens_format_t;
const char *tv_tokens_format_name(tv_tokens_format_t format); /* "text", "u16", "u32" */

/* word: "text", "u16", "u32", or "auto", which goes by the end of the name: .txt and .text are
 * text, .u16 and .bin are u16, .u32 is u32; another name is refused, and so is a .bin file that
 * begins like 32-bit ids (every second 16-bit word zero) or with the header of llm.c.
 * Errors: TV_INVALID, TV_UNSUPPORTED (a format that this version does not read), TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_tokens_format_of(const char *path, const char *word,
                                              tv_tokens_format_t *format_out);

struct tv_tokens; /* opaque */
/* An empty file has 0 tokens. Errors: TV_BAD_FILE (not there, not a plain file, cut inside a
 * token), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_tokens_open(const char *path, tv_tokens_format_t format,
                                         struct tv_tokens **tokens_out);
/* No file: token i is a function of (seed, i) alone, uniform over the vocabulary. count >= 0, vocab_size
 * >= 1. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_tokens_mock(int64_t count, int64_t vocab_size, uint64_t seed,
                                         struct tv_tokens **tokens_out);
void tv_tokens_close(struct tv_tokens *tokens); /* NULL is a no-op */
int64_t tv_tokens_count(const struct tv_tokens *tokens);

/* Reads the whole file once, unless the width cannot hold ids >= vocab_size.
 * Errors: TV_BAD_FILE naming the file, the first such token's index, and its id. */
TV_MUST_CHECK tv_status_t tv_tokens_check(const struct tv_tokens *tokens, int64_t vocab_size);
/* Tokens [first, first + count) -> out [count]. Errors: TV_INTERNAL when they leave the file. */
TV_MUST_CHECK tv_status_t tv_tokens_read(const struct tv_tokens *tokens, int64_t first,
                                         int64_t count, int32_t *out);
TV_END_C
#endif
