/* train/tokens_writer.h -- token files of every format that train/tokens.h reads, written once and
 * forward; they appear under their name when they are whole. */
#ifndef TV_TRAIN_TOKENS_WRITER_H
#define TV_TRAIN_TOKENS_WRITER_H
#include "train/tokens.h"

TV_BEGIN_C
struct tv_tokens_writer; /* opaque */
/* format: u16, u32, llmc (16 bits each for a vocabulary of up to 65536, else 32), or megatron (the .bin
 * and .idx of `path`; 16 bits below 65500, as there, else 32).
 * Errors: TV_INVALID (text; a vocabulary that u16 does not hold), TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_tokens_writer_open(const char *path, tv_tokens_format_t format,
                                                int64_t vocab_size,
                                                struct tv_tokens_writer **writer_out);
/* Errors: TV_INVALID: an id is outside the vocabulary; TV_IO; llmc: more than its header counts. */
TV_MUST_CHECK tv_status_t tv_tokens_writer_add(struct tv_tokens_writer *writer, const uint32_t *ids,
                                               int64_t num);
/* What was added since the last end is a document. */
TV_MUST_CHECK tv_status_t tv_tokens_writer_end_document(struct tv_tokens_writer *writer);
int64_t tv_tokens_writer_count(const struct tv_tokens_writer *writer);
/* Ends the files; tv_tokens_writer_close is still to be called. */
TV_MUST_CHECK tv_status_t tv_tokens_writer_finish(struct tv_tokens_writer *writer);
/* Removes what is not finished. NULL is a no-op. */
void tv_tokens_writer_close(struct tv_tokens_writer *writer);
TV_END_C
#endif
