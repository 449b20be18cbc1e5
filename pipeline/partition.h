/* pipeline/partition.h -- which units of the model a stage holds.
 *
 * Units are a chain: 0 = embedding, 1..L = layers, L+1 = head. A stage (chunk) holds a contiguous
 * range of them; the embedding and the head are units of their own, so that a stage may hold only
 * one of them. */
#ifndef TV_PIPELINE_PARTITION_H
#define TV_PIPELINE_PARTITION_H
#include "base/status.h"

TV_BEGIN_C
struct tv_unit_range {
    int first, num; /* units [first, first + num), num >= 1 */
};
/* `uniform`: layers as even as possible, longer pieces first, embedding with the first piece, head
 * with the last. ranges_out [num_pieces]. Errors: TV_INVALID when num_layers < num_pieces (both
 * named, and what would work). */
TV_MUST_CHECK tv_status_t tv_partition_uniform(int num_layers, int num_pieces,
                                               struct tv_unit_range *ranges_out);
/* Proves that ranges cover units 0 .. L+1 in order, each once. Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_partition_check(int num_layers, int num_pieces,
                                             const struct tv_unit_range *ranges);
TV_END_C
#endif
