/* train/documents.h -- the samples of a file whose documents are cut one by one. */
#ifndef TV_TRAIN_DOCUMENTS_H
#define TV_TRAIN_DOCUMENTS_H
#include "train/tokens.h"

TV_BEGIN_C
struct tv_documents {
    int64_t num;
    int64_t *starts;        /* [num + 1] first token of each; the number of tokens */
    int64_t *first_samples; /* [num + 1] of each; the number of samples */
    int64_t num_unused;     /* tokens of documents that are too short for a sample */
};
/* Documents of the file's index, or, where it has none, those that end with eod_token (the last one
 * with the file). Reads the file in the second case.
 * Errors: TV_INVALID: the file has no index and eod_token is -1; TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_documents_find(const struct tv_tokens *tokens, int64_t eod_token,
                                            int64_t seq_length, struct tv_documents *documents_out);
void tv_documents_free(struct tv_documents *documents);
/* Where sample `sample` lies: its first token, and the number of its tokens, 2 .. seq_length + 1. */
void tv_documents_place(const struct tv_documents *documents, int64_t sample, int64_t seq_length,
                        int64_t *first_out, int64_t *count_out);
TV_END_C
#endif
