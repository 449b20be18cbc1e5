/* data/samples.h -- which samples a step reads, and which of them this replica.
 *
 * The token stream is cut into samples of S+1 tokens with stride S: sample i is tokens[i S .. i S +
 * S]; there are floor((N-1)/S) of them. Their order is a function of (seed, epoch): a pseudo-random
 * permutation of 0..n-1 that can be evaluated at any place without a table, or file order. The run
 * is one long sequence of positions; position q is epoch q / n, place q % n. Step k (from 1) takes
 * positions [(k-1) G, k G): nothing is skipped at an epoch's end. Replica d takes the d-th of D
 * equal slices of them, micro-batch i the i-th of m equal slices of that. So the only state is the
 * number of consumed samples, and it does not depend on the mesh. */
#ifndef TV_DATA_SAMPLES_H
#define TV_DATA_SAMPLES_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
struct tv_sample_order {
    int64_t num_samples; /* n >= 1 */
    uint64_t seed;
    int shuffle;
};
/* floor((num_tokens - 1) / seq_length), 0 for fewer than 2 tokens */
int64_t tv_samples_count(int64_t num_tokens, int64_t seq_length);
/* Sample index at position q >= 0 of the run; a bijection of each epoch's places onto 0..n-1. */
int64_t tv_sample_at(const struct tv_sample_order *order, int64_t position);
/* Position of row `row` of micro-batch `micro` of replica d: consumed + d G/D + micro B + row. */
int64_t tv_sample_position(int64_t consumed, int64_t global_batch, int D, int d,
                           int64_t micro_batch, int64_t micro, int64_t row);
/* Errors: TV_INVALID naming the sizes when G is not a multiple of B x D (m = G / (B D)). */
TV_MUST_CHECK tv_status_t tv_samples_check_batch(int64_t global_batch, int64_t micro_batch, int D,
                                                 int64_t *num_micro_out);
TV_END_C
#endif
