/* train/corpus.h -- what a run reads: one or several token files, as the words behind --data say, and
 * the order of their samples.
 *
 * A word is FILE, a pattern of files ('*', '?', '['; their names in byte order), or either with :WEIGHT
 * behind it. Without weights the files are shards of one data set: their samples are numbered through,
 * one order shuffles them all, and an epoch reads each once. With weights (each word has one) every
 * word is a source: data/blend.h says which source a position of the run reads, and each source has an
 * order and epochs of its own. Megatron-LM's WEIGHT FILE WEIGHT FILE ... means the same.
 *
 * Samples never reach from one file into the next. Within a file they are cut as data/samples.h says,
 * or, within documents, each document is cut by itself: n tokens make ceil((n - 1) / S) samples, the
 * last of them filled up with what is not counted. Documents are those of Megatron's index, else they
 * end with the end-of-document token. Memory for them: 16 bytes each.
 *
 * In place of files (words of num 0): TV_CORPUS_MOCK_SAMPLES samples of random tokens, one source. How
 * many does not depend on the length of the run, so that a longer one goes on where this one ended.
 *
 * All of it is a function of files, seed and position, on every rank the same. */
#ifndef TV_TRAIN_CORPUS_H
#define TV_TRAIN_CORPUS_H
#include "train/options.h"
#include "train/tokens.h"

TV_BEGIN_C
#define TV_CORPUS_MOCK_SAMPLES INT64_C(2147483647)

struct tv_corpus_args {
    const char *flag; /* without dashes, for messages */
    struct tv_option_list words;
    const char *format; /* as tv_tokens_format_of takes it */
    int64_t seq_length; /* S */
    int is_within_documents;
    int64_t eod_token; /* -1: none */
    int shuffle;
    uint64_t seed;
    int64_t mock_vocab; /* > 0: in place of words, random ids below it; else 0 */
};

/* The format of the words' files: text when all are text, else that of the first that is not. Opens
 * what tv_tokens_format_of opens. Errors: TV_INVALID (words), those of tv_tokens_format_of. */
TV_MUST_CHECK tv_status_t tv_corpus_format(const char *flag, const struct tv_option_list *words,
                                           const char *format, tv_tokens_format_t *format_out);

struct tv_corpus; /* opaque */
/* Strings of args are borrowed until it returns. Errors: TV_INVALID (words, weights), TV_BAD_FILE (with
 * the file; a source without a whole sample, with both counts), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_corpus_open(const struct tv_corpus_args *args,
                                         struct tv_corpus **corpus_out);
void tv_corpus_close(struct tv_corpus *corpus); /* NULL is a no-op */
/* Every id of every file against the vocabulary. Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_corpus_check(const struct tv_corpus *corpus, int64_t vocab_size);

int64_t tv_corpus_num_samples(const struct tv_corpus *corpus);   /* of all files, each once */
int64_t tv_corpus_unused_tokens(const struct tv_corpus *corpus); /* that are in no sample */
int tv_corpus_num_sources(const struct tv_corpus *corpus);
/* A source's part of the samples, by its share of positions, and its first file. */
struct tv_corpus_source {
    const char *path;
    int num_files;
    int64_t num_samples;
    double share; /* 0..1 */
};
struct tv_corpus_source tv_corpus_source_at(const struct tv_corpus *corpus, int index);

/* The sample at position >= 0 of the run, in [0, num_samples): numbered through all files. */
int64_t tv_corpus_sample_at(const struct tv_corpus *corpus, int64_t position);
/* Its tokens -> out [S + 1]; -1 where the document has ended. */
TV_MUST_CHECK tv_status_t tv_corpus_read(const struct tv_corpus *corpus, int64_t sample,
                                         int32_t *out);
TV_END_C
#endif
