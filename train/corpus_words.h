/* train/corpus_words.h -- the words behind --data, taken apart. */
#ifndef TV_TRAIN_CORPUS_WORDS_H
#define TV_TRAIN_CORPUS_WORDS_H
#include "train/options.h"

TV_BEGIN_C
/* Sources as the words name them, with their files. All owned. */
struct tv_corpus_words {
    int num_sources, num_paths;
    char **weights;  /* [num_sources], or NULL: there are none */
    int *first_path; /* [num_sources + 1] into paths */
    char **paths;    /* [num_paths] */
};
/* Errors: TV_INVALID with the flag and the word: some with and some without weight, a pattern that
 * nothing matches, too many files; TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_corpus_words_parse(const char *flag, const struct tv_option_list *list,
                                                struct tv_corpus_words *words_out);
void tv_corpus_words_free(struct tv_corpus_words *words);
TV_END_C
#endif
