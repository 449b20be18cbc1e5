/* train/tokenize_pieces.h -- the work of `trivet tokenize` in pieces that threads take one by one: parts
 * of a long text, between places at which it may be cut, or lines of JSON. */
#ifndef TV_TRAIN_TOKENIZE_PIECES_H
#define TV_TRAIN_TOKENIZE_PIECES_H
#include "train/files.h"
#include "train/tokenizer.h"

TV_BEGIN_C
struct tv_tokenize_input {
    const char *path; /* borrowed */
    struct tv_file_map map;
    int is_jsonl;
};
/* What stands behind each document, and where it stands in a line of JSON. */
struct tv_tokenize_rules {
    const struct tv_tokenizer *tokenizer;
    const char *json_key;
    int64_t eod; /* -1: nothing */
};
/* Bytes [first, end) of an input, and what became of them. */
struct tv_tokenize_piece {
    const struct tv_tokenize_input *input;
    int64_t first, end;
    struct tv_ids ids;
    struct tv_ids ends; /* of documents that end here, in ids; below 2^32, as pieces are small */
    tv_status_t status;
    char message[512]; /* of a failure */
};
/* The piece of `input` that starts at `first`, of about 1 MiB. */
int64_t tv_tokenize_piece_end(const struct tv_tokenize_rules *rules,
                              const struct tv_tokenize_input *input, int64_t first);
/* Fills ids, ends and status. */
void tv_tokenize_piece_run(const struct tv_tokenize_rules *rules,
                           struct tv_tokenizer_worker *worker, struct tv_tokenize_piece *piece);
void tv_tokenize_piece_free(struct tv_tokenize_piece *piece);
TV_END_C
#endif
