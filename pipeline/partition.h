/* pipeline/partition.h -- which units of the model a stage holds.
 *
 * Units are a chain: 0 = embedding, 1..L = layers, L+1 = head. It is cut into pieces, one for each
 * position of the pipeline in model order: contiguous ranges of one unit or more. A piece may hold
 * the embedding or the head only. With v chunks a stage holds v pieces, with v = 1 one. */
#ifndef TV_PIPELINE_PARTITION_H
#define TV_PIPELINE_PARTITION_H
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

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

/* What one unit costs the stage that holds it, each >= 0. */
struct tv_unit_cost {
    double seconds; /* forward, backward and recomputation of one micro-batch; any unit of time */
    int64_t fixed_bytes; /* parameters, gradients, optimizer state */
    int64_t slot_bytes;  /* activations kept in one slot */
    int64_t work_bytes;  /* in one working set */
};
struct tv_partition_args {
    int num_layers, num_pieces, num_stages;
    const int *stage_of;              /* [num_pieces] who holds it, 0 .. num_stages - 1 */
    const struct tv_unit_cost *units; /* [num_layers + 2] */
    const int *num_slots, *num_works; /* [num_pieces] of the piece's chunk under the schedule */
    int64_t stage_bytes_limit;        /* 0: none */
    const int64_t *stage_fixed_bytes; /* [num_stages] what no split changes; NULL: 0 */
};
/* The split whose slowest stage takes the least time, among those in which no stage is above the
 * limit of bytes. Exact:
 *   - when all layers cost the same: any placement. Among the best splits, one with the least sum
 *     of squared stage times; ties go to earlier stages. Within a stage the layers make its chunks
 *     as equal in time as the limit lets them, ties to earlier chunks;
 *   - when layers differ and no stage holds two pieces: as above;
 *   - when layers differ and a stage holds several: by a search that gives up after a number of
 *     steps. Among equals, the first one found.
 * ranges_out [num_pieces].
 * Errors: TV_INVALID (more pieces than units; no split within the limit, saying what the best one
 * needs on its largest stage; a negative cost), TV_UNSUPPORTED (the search gave up), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_partition_balance(const struct tv_partition_args *args,
                                               struct tv_unit_range *ranges_out);
/* Of each stage under the given ranges: seconds_out, bytes_out [num_stages]. */
void tv_partition_costs(const struct tv_partition_args *args, const struct tv_unit_range *ranges,
                        double *seconds_out, int64_t *bytes_out);

/* Read Megatron-LM's --pipeline-model-parallel-layout: E embedding, t layer, L head (Megatron's
 * loss), | between two pieces, *n repeats the letter, bar or (group) before it; commas and blanks
 * mean nothing. "Et*3|(tt|)*2tL": 4 pieces of 3, 2, 2 and 1 layers. Pieces are in model order: the
 * i-th is position i, which Megatron-LM counts alike (all pipeline ranks' first chunks, then their
 * second). As there, a bar at the end begins one more piece; unlike there, groups may be nested
 * and an empty piece is refused. ranges_out [num_pieces].
 * Errors: TV_INVALID, naming the column, counted from 1; TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_partition_layout(const char *text, int num_layers, int num_pieces,
                                              struct tv_unit_range *ranges_out);
/* The inverse, equal pieces in a row folded: "Et*8|(t*8|)*6t*8L". Megatron-LM reads it too.
 * Errors: TV_INVALID (tv_partition_check refuses the ranges; size is too small, naming what is
 * needed). */
TV_MUST_CHECK tv_status_t tv_partition_format(int num_layers, int num_pieces,
                                              const struct tv_unit_range *ranges, char *text_out,
                                              size_t size);
TV_END_C
#endif
