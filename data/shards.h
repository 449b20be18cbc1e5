/* data/shards.h -- how the ranks of the data axis divide a rank's flat arrays among themselves
 * (ZeRO: Rajbhandari et al. 2020, arXiv:1910.02054).
 *
 * The array is cut into buckets; of each bucket every rank owns one piece, its shard, which differ
 * by at most one block of 16 elements: rank d of D owns blocks [b d / D, b (d+1) / D) of the b
 * blocks. Ranges that must stay whole (the matrices of Muon) move a cut to their nearer end. A shard
 * may be empty. Side by side the shards of a rank are its compact array. */
#ifndef TV_DATA_SHARDS_H
#define TV_DATA_SHARDS_H
#include "data/buckets.h"

TV_BEGIN_C
struct tv_shards {
    int num_ranks, rank, num_buckets;
    struct tv_bucket_range *buckets; /* [num_buckets], owned */
    /* [num_buckets, num_ranks], owned: where each shard begins in the flat array, and its elements */
    int64_t *firsts, *counts;
    int64_t own_count; /* of the compact array */
};
struct tv_shards_args {
    int num_ranks, rank; /* D, d; one rank owns all */
    int num_buckets, num_whole;
    const struct tv_bucket_range *buckets; /* [num_buckets], ascending; copied */
    const struct tv_bucket_range *whole;   /* [num_whole], each within one bucket */
};
/* Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_shards_create(const struct tv_shards_args *args,
                                           struct tv_shards *shards_out);
void tv_shards_destroy(struct tv_shards *shards);
/* The same shards as another rank sees them. */
void tv_shards_become(struct tv_shards *shards, int rank);
/* The shard of a rank, elements of the flat array. */
struct tv_bucket_range tv_shards_of(const struct tv_shards *shards, int bucket, int rank);
/* Counts of a bucket for the collectives that take pieces of any sizes, [num_ranks]. */
const int64_t *tv_shards_counts(const struct tv_shards *shards, int bucket);
/* Where this rank's shard of a bucket lies in its compact array. */
int64_t tv_shards_place(const struct tv_shards *shards, int bucket);
TV_END_C
#endif
