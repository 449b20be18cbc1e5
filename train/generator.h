/* train/generator.h -- a saved model in memory, asked for the scores of the next token; one rank.
 *
 * Every token is computed from all tokens before it in the window: nothing is kept between calls but
 * the weights, and what is asked twice is answered with the same bits. Cost: a forward of the window
 * rounded up to a power of two, at most the model's context. */
#ifndef TV_TRAIN_GENERATOR_H
#define TV_TRAIN_GENERATOR_H
#include "train/saved_model.h"

TV_BEGIN_C
struct tv_generator; /* opaque */
/* Reads all weights; `saved` may be closed then. num_threads: of the kernels, 0: a fair share.
 * Errors: TV_BAD_FILE, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_generator_create(const struct tv_saved_model *saved, int num_threads,
                                              struct tv_generator **generator_out);
void tv_generator_destroy(struct tv_generator *generator); /* NULL is a no-op */
const struct tv_model_config *tv_generator_config(const struct tv_generator *generator);
/* The scores of what follows ids [count], count >= 1: scores_out [vocab_size]. Of more ids than the
 * model's context the last are used, as if the text began with them.
 * Errors: TV_INVALID (no ids, or one beyond the vocabulary), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_generator_next(struct tv_generator *generator, const int32_t *ids,
                                            int64_t count, float *scores_out);
TV_END_C
#endif
