/* train/sharding.h -- which weights of a stage each of its replicas owns (--zero-stage): buckets,
 * shards, and the pieces of tensors that they are made of. Pure: a dry run gets the same.
 *
 * Stage 0: every replica owns all. 1: optimizer state is sharded, 2: gradients too, 3: weights too. All of it over the
 * groups of train/zero.h: replicas of the same number in theirs own the same. */
#ifndef TV_TRAIN_SHARDING_H
#define TV_TRAIN_SHARDING_H
#include "data/shards.h"
#include "train/run.h"

TV_BEGIN_C
/* A bucket holds gradients of units low .. high of those here, of unit high from high_branch on (tv_param), and is
 * complete when all of them are. A tied weight with both units here lies with the embedding and needs the head too. */
struct tv_bucket_units {
    int low, high, high_branch, needs_head, is_started;
};

/* What this rank owns of one local weight: `count` elements from `first` of the flat arrays, `place` of the compact
 * one. */
struct tv_owned_piece {
    int local; /* index of the weight */
    int64_t first, count, place;
};

struct tv_sharding {
    struct tv_param_table table; /* owned, as is all below */
    struct tv_local_params locals;
    struct tv_shards shards;
    struct tv_bucket_units *bucket_units; /* [num_buckets] */
    int num_pieces;
    struct tv_owned_piece *pieces; /* ascending */
};

/* Of replica d of a stage. Under sharding a tied weight has a bucket of its own, so that its two copies are cut alike;
 * Muon's matrices are not cut. Errors: TV_INVALID, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_sharding_create(const struct tv_run *run, int stage, int d,
                                             struct tv_sharding *sharding_out);
/* The same of a stage that holds these chunks. */
TV_MUST_CHECK tv_status_t tv_sharding_create_of(const struct tv_run *run, int num_chunks,
                                                const struct tv_model_chunk *chunks, int d,
                                                struct tv_sharding *sharding_out);
/* The same as replica d sees it. */
void tv_sharding_become(struct tv_sharding *sharding, int d);
void tv_sharding_destroy(struct tv_sharding *sharding);

/* An array of weights or gradients: flat or compact; of a flat one that is not whole only the own shards count. */
struct tv_weight_array {
    float *data;
    int is_compact, is_whole;
};
/* Where a piece begins in it: elements. */
int64_t tv_piece_offset(const struct tv_weight_array *array, const struct tv_owned_piece *piece);

/* The weights that the model computes with, as they are stored: the same kinds of array. */
struct tv_stored_weights {
    void *data;
    tv_dtype_t dtype;
    int is_compact, is_whole;
};
int64_t tv_stored_offset(const struct tv_stored_weights *array, const struct tv_owned_piece *piece);

/* Bytes of optimizer state, masters of weights included, and of its room to work in, for this replica. */
TV_MUST_CHECK tv_status_t tv_sharding_optimizer_bytes(const struct tv_run *run,
                                                      const struct tv_sharding *sharding,
                                                      int64_t bytes_out[2]);
/* fp32 masters of `count` weights: none where the weights are fp32 themselves. */
int64_t tv_run_master_bytes(const struct tv_run *run, int64_t count);
TV_END_C
#endif
