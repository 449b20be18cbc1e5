/* train/store.h -- weights and gradients of a rank under --zero-stage 2 and 3: it keeps its shards,
 * and lends a unit what it computes with (Rajbhandari et al. 2020, arXiv:1910.02054).
 *
 * Gradients: a unit's backward fills one of two buffers with a micro-batch's gradients; when it is
 * done, they are reduce-scattered while the next unit computes, and added to the shards in the order
 * of the backwards. A backward in two parts does that with its second part; what the first part
 * gives, the gradients of norms, is kept until then.
 * Weights, stage 3: gathered into one of two buffers before a unit's forward and before its backward
 * (or the input part of it), dropped after it; those of the next unit of the chunk are on their way
 * meanwhile. Full recomputation gathers for its forward once more. The head's are wanted in its backward
 * alone, which gives all of its gradients, in a backward of two parts in the first.
 * A weight that two units of this rank use moves once for each of them. */
#ifndef TV_TRAIN_STORE_H
#define TV_TRAIN_STORE_H
#include "train/sharding.h"

TV_BEGIN_C
struct tv_store; /* opaque */
struct tv_store_args {
    const struct tv_run *run;           /* borrowed, as is all below */
    const struct tv_sharding *sharding; /* of this rank */
    struct tv_comm *data;               /* the group that shares */
    struct tv_comm *copies;             /* of its shards in other groups, or NULL */
    struct tv_stream *stream;
    const struct tv_kernels *kernels; /* of fp32: what the store works on are gradients */
};
/* All values are zero. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_store_create(const struct tv_store_args *args,
                                          struct tv_store **store_out);
void tv_store_destroy(struct tv_store *store);

/* For tv_model_args; valid as long as the store. */
const struct tv_unit_store *tv_store_lender(struct tv_store *store);
struct tv_stored_weights tv_store_params(struct tv_store *store);
struct tv_weight_array tv_store_grads(struct tv_store *store);

/* Around the backwards of a step. begin: the first sum of a bucket is written over its shard, those behind it are
 * added. finish: the shards' sums over the copies too, once. */
void tv_store_begin_step(struct tv_store *store);
TV_MUST_CHECK tv_status_t tv_store_finish(struct tv_store *store);

/* Bytes that tv_store_create asks for, by kind; those of other kinds stay as they are. room_out, or NULL: the part of
 * them in which units take turns, which the largest one needs. */
TV_MUST_CHECK tv_status_t tv_store_bytes(const struct tv_run *run,
                                         const struct tv_sharding *sharding,
                                         int64_t bytes_out[TV_NUM_MEM_KINDS], int64_t *room_out);
TV_END_C
#endif
