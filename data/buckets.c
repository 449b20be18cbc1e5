/* data/buckets.c -- one all-reduce or reduce-scatter per bucket, in flight while backward goes on. */
#include "data/buckets.h"
#include "data/shards.h"
#include <inttypes.h>
#include <stdlib.h>

struct bucket {
    struct tv_bucket_range range;
    struct tv_request *request; /* NULL: not in flight */
    int is_started;             /* in this step */
};

struct tv_buckets {
    struct tv_comm *data;            /* borrowed */
    struct tv_stream *stream;        /* borrowed */
    float *grads;                    /* borrowed */
    const struct tv_shards *shards;  /* borrowed, or NULL: all sums on every rank */
    struct tv_comm *copies;          /* borrowed, or NULL */
    const struct tv_kernels *packer; /* borrowed; NULL: sums travel as fp32 */
    int num_buckets;
    struct bucket *buckets; /* [num_buckets] */
    /* In this step: buckets in the order in which they were started [num_buckets]; of how many the
     * copies' sum is under way. The order is the same on all ranks, when a scatter is done is not. */
    int *started, num_started, num_scattered;
};

static int overlap(const struct tv_bucket_range *a, const struct tv_bucket_range *b)
{
    return a->first < b->first + b->count && b->first < a->first + a->count;
}

/* Ranges may come in any order; quadratic in a number that is in the hundreds. */
static tv_status_t check_ranges(int num_ranges, const struct tv_bucket_range *ranges)
{
    for (int i = 0; i < num_ranges; i++) {
        if (ranges[i].first < 0 || ranges[i].count < 0)
            return TV_ERR(TV_INTERNAL, "bucket %d: range [%" PRId64 ", +%" PRId64 ")", i,
                          ranges[i].first, ranges[i].count);
        for (int j = 0; j < i; j++) {
            if (overlap(&ranges[i], &ranges[j]))
                return TV_ERR(TV_INTERNAL, "buckets %d and %d overlap", j, i);
        }
    }
    return TV_OK;
}

tv_status_t tv_buckets_create(struct tv_comm *data, struct tv_stream *stream, float *grads,
                              int num_ranges, const struct tv_bucket_range *ranges,
                              struct tv_buckets **buckets_out)
{
    TV_TRY(check_ranges(num_ranges, ranges));
    struct tv_buckets *buckets = calloc(1, sizeof(*buckets));
    if (buckets == NULL)
        return TV_ERR(TV_NO_MEMORY, "gradient buckets: %zu bytes", sizeof(*buckets));
    buckets->data = data;
    buckets->stream = stream;
    buckets->grads = grads;
    buckets->num_buckets = num_ranges;
    buckets->buckets = calloc((size_t)num_ranges + 1, sizeof(*buckets->buckets));
    buckets->started = calloc((size_t)num_ranges + 1, sizeof(*buckets->started));
    if (buckets->buckets == NULL || buckets->started == NULL) {
        tv_buckets_destroy(buckets);
        return TV_ERR(TV_NO_MEMORY, "%d gradient buckets", num_ranges);
    }
    for (int i = 0; i < num_ranges; i++)
        buckets->buckets[i].range = ranges[i];
    *buckets_out = buckets;
    return TV_OK;
}

tv_status_t tv_buckets_create_sharded(struct tv_comm *data, struct tv_comm *copies,
                                      struct tv_stream *stream, float *grads,
                                      const struct tv_shards *shards,
                                      struct tv_buckets **buckets_out)
{
    TV_TRY(
        tv_buckets_create(data, stream, grads, shards->num_buckets, shards->buckets, buckets_out));
    (*buckets_out)->shards = shards;
    (*buckets_out)->copies = copies;
    return TV_OK;
}

void tv_buckets_reduce_in_bf16(struct tv_buckets *buckets, const struct tv_kernels *kernels)
{
    buckets->packer = kernels;
}

void tv_buckets_destroy(struct tv_buckets *buckets)
{
    if (buckets == NULL)
        return;
    for (int i = 0; buckets->buckets != NULL && i < buckets->num_buckets; i++) {
        /* In flight only after a step that failed: no peer may write into gradients that go away. */
        tv_request_cancel(&buckets->buckets[i].request);
    }
    free(buckets->buckets);
    free(buckets->started);
    free(buckets);
}

/* What this rank gets of a bucket's sums, counted from the bucket's first element. */
static struct tv_bucket_range own_sums(const struct tv_buckets *buckets, int index)
{
    const struct tv_bucket_range whole = buckets->buckets[index].range;
    if (buckets->shards == NULL)
        return (struct tv_bucket_range){0, whole.count};
    const struct tv_bucket_range own =
        tv_shards_of(buckets->shards, index, tv_comm_rank(buckets->data));
    return (struct tv_bucket_range){own.first - whole.first, own.count};
}

static tv_dtype_t message_dtype(const struct tv_buckets *buckets)
{
    return buckets->packer != NULL ? TV_BF16 : TV_F32;
}

static tv_status_t start_sum(struct tv_buckets *buckets, int index)
{
    struct bucket *bucket = &buckets->buckets[index];
    const tv_dtype_t dtype = message_dtype(buckets);
    float *grads = buckets->grads + bucket->range.first;
    const struct tv_to_bf16_args pack = {bucket->range.count, grads, grads};
    if (buckets->packer != NULL)
        TV_TRY(buckets->packer->to_bf16(buckets->stream, &pack));
    if (buckets->shards == NULL)
        return tv_comm_all_reduce(buckets->data, grads, bucket->range.count, dtype, TV_SUM,
                                  buckets->stream, &bucket->request);
    return tv_comm_reduce_scatter_v(
        buckets->data, grads, tv_at(grads, own_sums(buckets, index).first, dtype),
        tv_shards_counts(buckets->shards, index), dtype, buckets->stream, &bucket->request);
}

/* The sums are there. */
static tv_status_t unpack(struct tv_buckets *buckets, int index)
{
    const struct tv_bucket_range own = own_sums(buckets, index);
    float *grads = buckets->grads + buckets->buckets[index].range.first;
    const struct tv_from_bf16_args args = {own.count, tv_at(grads, own.first, TV_BF16),
                                           grads + own.first};
    return buckets->packer == NULL ? TV_OK : buckets->packer->from_bf16(buckets->stream, &args);
}

tv_status_t tv_buckets_start(struct tv_buckets *buckets, int index)
{
    if (index < 0 || index >= buckets->num_buckets)
        return TV_ERR(TV_INTERNAL, "bucket %d of %d", index, buckets->num_buckets);
    struct bucket *bucket = &buckets->buckets[index];
    if (bucket->is_started)
        return TV_ERR(TV_INTERNAL, "bucket %d is started twice in one step", index);
    TV_TRY(start_sum(buckets, index));
    bucket->is_started = 1;
    buckets->started[buckets->num_started++] = index;
    return TV_OK;
}

/* The sum over the copies of the bucket that is next in turn, whose scatter is done. */
static tv_status_t start_copies(struct tv_buckets *buckets)
{
    const int index = buckets->started[buckets->num_scattered++];
    const struct tv_bucket_range own = own_sums(buckets, index);
    const tv_dtype_t dtype = message_dtype(buckets);
    float *grads = buckets->grads + buckets->buckets[index].range.first;
    return tv_comm_all_reduce(buckets->copies, tv_at(grads, own.first, dtype), own.count, dtype,
                              TV_SUM, buckets->stream, &buckets->buckets[index].request);
}

tv_status_t tv_buckets_poll(struct tv_buckets *buckets)
{
    int is_scattered = buckets->copies != NULL;
    while (is_scattered && buckets->num_scattered < buckets->num_started) {
        struct bucket *next = &buckets->buckets[buckets->started[buckets->num_scattered]];
        TV_TRY(tv_request_test(&next->request, &is_scattered));
        if (is_scattered)
            TV_TRY(start_copies(buckets));
    }
    for (int i = 0; i < buckets->num_buckets; i++) {
        int is_done;
        TV_TRY(tv_request_test(&buckets->buckets[i].request, &is_done));
    }
    return TV_OK;
}

tv_status_t tv_buckets_finish(struct tv_buckets *buckets)
{
    for (int i = 0; i < buckets->num_buckets; i++) {
        if (!buckets->buckets[i].is_started)
            TV_TRY(tv_buckets_start(buckets, i));
    }
    while (buckets->copies != NULL && buckets->num_scattered < buckets->num_started) {
        const int next = buckets->started[buckets->num_scattered];
        TV_TRY(tv_request_wait(&buckets->buckets[next].request));
        TV_TRY(start_copies(buckets));
    }
    for (int i = 0; i < buckets->num_buckets; i++) {
        TV_TRY(tv_request_wait(&buckets->buckets[i].request));
        TV_TRY(unpack(buckets, i));
    }
    for (int i = 0; i < buckets->num_buckets; i++)
        buckets->buckets[i].is_started = 0;
    buckets->num_started = buckets->num_scattered = 0;
    return TV_OK;
}

enum { NUM_GATHERS = 2 }; /* in flight */

static tv_status_t gather_all(struct tv_comm *data, struct tv_stream *stream,
                              const struct tv_shards *shards, void *params, tv_dtype_t dtype,
                              struct tv_request *requests[NUM_GATHERS])
{
    for (int b = 0; b < shards->num_buckets; b++) {
        struct tv_request **request = &requests[b % NUM_GATHERS];
        TV_TRY(tv_request_wait(request));
        TV_TRY(tv_comm_all_gather_v(
            data, tv_at(params, tv_shards_of(shards, b, shards->rank).first, dtype),
            tv_at(params, shards->buckets[b].first, dtype), tv_shards_counts(shards, b), dtype,
            stream, request));
    }
    for (int i = 0; i < NUM_GATHERS; i++)
        TV_TRY(tv_request_wait(&requests[i]));
    return TV_OK;
}

tv_status_t tv_buckets_gather(struct tv_comm *data, struct tv_stream *stream,
                              const struct tv_shards *shards, void *params, tv_dtype_t dtype)
{
    struct tv_request *requests[NUM_GATHERS] = {NULL};
    const tv_status_t status = gather_all(data, stream, shards, params, dtype, requests);
    for (int i = 0; i < NUM_GATHERS; i++)
        tv_request_cancel(&requests[i]); /* in flight only after a failure */
    return status;
}
