/* data/buckets.h -- sum gradients over the data axis in buckets, each started as soon as its
 * gradients are complete: everywhere (all-reduce), or each rank's shard alone (reduce-scatter).
 *
 * A rank's gradients are one flat fp32 array; a bucket is a range of it. Ranges must not overlap;
 * every rank of the axis has the same buckets and starts them in the same order. While backward
 * goes on, poll() moves the ones in flight. Sums are in rank order (mesh/comm.h): same mesh, same
 * bits. They travel as fp32, or by choice as bf16, packed into the first half of their bucket. */
#ifndef TV_DATA_BUCKETS_H
#define TV_DATA_BUCKETS_H
#include "kernels/kernels.h"
#include "mesh/comm.h"

TV_BEGIN_C
struct tv_bucket_range {
    int64_t first, count; /* elements of the flat array */
};
struct tv_shards;  /* data/shards.h */
struct tv_buckets; /* opaque */
/* data, grads, stream: borrowed. ranges are copied. Every rank gets all sums. */
TV_MUST_CHECK tv_status_t tv_buckets_create(struct tv_comm *data, struct tv_stream *stream,
                                            float *grads, int num_ranges,
                                            const struct tv_bucket_range *ranges,
                                            struct tv_buckets **buckets_out);
/* The buckets of `shards`, borrowed, as is `data`, whose ranks have one each. Each rank gets the sums
 * of its own shards, in their places; the rest of the gradients is as it was. The same bits as those
 * of all sums. copies: the ranks of other such groups that have the same shards, over which the sums
 * are added after those of this group; borrowed, or NULL. */
TV_MUST_CHECK tv_status_t tv_buckets_create_sharded(struct tv_comm *data, struct tv_comm *copies,
                                                    struct tv_stream *stream, float *grads,
                                                    const struct tv_shards *shards,
                                                    struct tv_buckets **buckets_out);
/* From now on gradients are rounded to bf16, summed, and the sums rounded once, where fp32 sums would
 * travel; what is not this rank's own is lost then. kernels: borrowed; their conversions are used. */
void tv_buckets_reduce_in_bf16(struct tv_buckets *buckets, const struct tv_kernels *kernels);
void tv_buckets_destroy(struct tv_buckets *buckets);
TV_MUST_CHECK tv_status_t tv_buckets_start(struct tv_buckets *buckets,
                                           int bucket); /* once per step and bucket */
TV_MUST_CHECK tv_status_t tv_buckets_poll(struct tv_buckets *buckets);
/* Start what has not been started, in index order, and wait for all; ready for the next step. */
TV_MUST_CHECK tv_status_t tv_buckets_finish(struct tv_buckets *buckets);
/* After an update of each rank's shards of `params`, elements of dtype: all of them on every rank. */
TV_MUST_CHECK tv_status_t tv_buckets_gather(struct tv_comm *data, struct tv_stream *stream,
                                            const struct tv_shards *shards, void *params,
                                            tv_dtype_t dtype);
TV_END_C
#endif
