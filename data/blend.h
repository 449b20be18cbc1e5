/* data/blend.h -- which source the sample at each position of a run comes from, where sources have
 * weights.
 *
 * The rule is Megatron-LM's (build_blending_indices): each position goes to the source that is
 * furthest behind its share, the first of equals; position 0 to the largest weight. Weights are whole
 * numbers w_i with sum W, so that all is exact: after any q positions source i has been taken less
 * than q w_i / W + 1 times, so after every W positions exactly w_i times. There the errors are zero
 * and the rule starts over: a table of one period answers for any position.
 *
 * Memory: a mark of 4 bytes per source for each 128 positions of the period; a look-up walks from the
 * mark before it, at most 127 positions. Nothing else is state. */
#ifndef TV_DATA_BLEND_H
#define TV_DATA_BLEND_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
enum { TV_BLEND_MAX_PERIOD = 1 << 24, TV_BLEND_MAX_SOURCES = 256 };

struct tv_blend; /* opaque */
/* weights [num], each above 0; divided by what all have in common. Errors: TV_INVALID with the sum
 * when it is above TV_BLEND_MAX_PERIOD, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_blend_create(int num, const int64_t *weights,
                                          struct tv_blend **blend_out);
void tv_blend_destroy(struct tv_blend *blend);         /* NULL is a no-op */
int64_t tv_blend_period(const struct tv_blend *blend); /* W */
/* The source of position >= 0, and how many earlier positions it had. */
void tv_blend_at(const struct tv_blend *blend, int64_t position, int *source_out,
                 int64_t *draw_out);
/* Decimal weights such as "0.3" and "12" -> whole numbers of the same ratios. texts [num]: digits with
 * at most one point, 9 of them before and behind it. Errors: TV_INVALID with the text. */
TV_MUST_CHECK tv_status_t tv_blend_weights(int num, const char *const *texts, int64_t *weights_out);
TV_END_C
#endif
