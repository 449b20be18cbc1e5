/* data/buckets.h -- sum gradients over the data axis in buckets, each started as soon as its
 * gradients are complete.
 *
 * A rank's gradients are one flat fp32 array; a bucket is a range of it. Ranges must not overlap;
 * every rank of the axis has the same buckets and starts them in the same order. While backward
 * goes on, poll() moves the ones in flight. Sums are in rank order (mesh/comm.h): same mesh, same
 * bits. */
#ifndef TV_DATA_BUCKETS_H
#define TV_DATA_BUCKETS_H
#include "mesh/comm.h"

TV_BEGIN_C
struct tv_bucket_range {
    int64_t first, count; /* elements of the flat array */
};
struct tv_buckets; /* opaque */
/* data, grads, stream: borrowed. ranges are copied. */
TV_MUST_CHECK tv_status_t tv_buckets_create(struct tv_comm *data, struct tv_stream *stream,
                                            float *grads, int num_ranges,
                                            const struct tv_bucket_range *ranges,
                                            struct tv_buckets **buckets_out);
void tv_buckets_destroy(struct tv_buckets *buckets);
TV_MUST_CHECK tv_status_t tv_buckets_start(struct tv_buckets *buckets,
                                           int bucket); /* once per step and bucket */
TV_MUST_CHECK tv_status_t tv_buckets_poll(struct tv_buckets *buckets);
/* Start what has not been started, in index order, and wait for all; ready for the next step. */
TV_MUST_CHECK tv_status_t tv_buckets_finish(struct tv_buckets *buckets);
TV_END_C
#endif
