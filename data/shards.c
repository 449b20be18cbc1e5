/* data/shards.c -- cuts by blocks, moved off what must stay whole. */
#include "data/shards.h"
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 16 }; /* as the model aligns its weights */

/* Where rank d's shard of a bucket begins; d = D: the bucket's end. Both steps keep the order. */
static int64_t cut_of(const struct tv_shards_args *args, const struct tv_bucket_range *bucket,
                      int d)
{
    const int64_t blocks = (bucket->count + BLOCK - 1) / BLOCK;
    int64_t cut = blocks * d / args->num_ranks * BLOCK;
    cut = bucket->first + (cut < bucket->count ? cut : bucket->count);
    for (int i = 0; i < args->num_whole; i++) {
        const int64_t first = args->whole[i].first, end = first + args->whole[i].count;
        if (cut > first && cut < end)
            return cut - first < end - cut ? first : end;
    }
    return cut;
}

tv_status_t tv_shards_create(const struct tv_shards_args *args, struct tv_shards *shards_out)
{
    const size_t num = (size_t)args->num_buckets, D = (size_t)args->num_ranks;
    struct tv_shards shards = {.num_ranks = args->num_ranks,
                               .num_buckets = args->num_buckets,
                               .buckets = calloc(num + 1, sizeof(*shards.buckets)),
                               .firsts = calloc(num * D + 1, sizeof(*shards.firsts)),
                               .counts = calloc(num * D + 1, sizeof(*shards.counts))};
    if (shards.buckets == NULL || shards.firsts == NULL || shards.counts == NULL) {
        tv_shards_destroy(&shards);
        return TV_ERR(TV_NO_MEMORY, "shards of %d buckets", args->num_buckets);
    }
    for (int b = 0; b < args->num_buckets; b++) {
        const struct tv_bucket_range *bucket = &args->buckets[b];
        int64_t *firsts = shards.firsts + (size_t)b * D, *counts = shards.counts + (size_t)b * D;
        shards.buckets[b] = *bucket;
        for (int d = 0; d < args->num_ranks; d++) {
            firsts[d] = cut_of(args, bucket, d);
            counts[d] = cut_of(args, bucket, d + 1) - firsts[d];
        }
    }
    tv_shards_become(&shards, args->rank);
    *shards_out = shards;
    return TV_OK;
}

void tv_shards_become(struct tv_shards *shards, int rank)
{
    shards->rank = rank;
    shards->own_count = tv_shards_place(shards, shards->num_buckets);
}

void tv_shards_destroy(struct tv_shards *shards)
{
    free(shards->buckets);
    free(shards->firsts);
    free(shards->counts);
    memset(shards, 0, sizeof(*shards));
}

const int64_t *tv_shards_counts(const struct tv_shards *shards, int bucket)
{
    return shards->counts + (size_t)bucket * (size_t)shards->num_ranks;
}

struct tv_bucket_range tv_shards_of(const struct tv_shards *shards, int bucket, int rank)
{
    const size_t at = (size_t)bucket * (size_t)shards->num_ranks + (size_t)rank;
    return (struct tv_bucket_range){shards->firsts[at], shards->counts[at]};
}

int64_t tv_shards_place(const struct tv_shards *shards, int bucket)
{
    int64_t place = 0;
    for (int before = 0; before < bucket; before++)
        place += tv_shards_counts(shards, before)[shards->rank];
    return place;
}
