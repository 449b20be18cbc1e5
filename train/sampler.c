/* train/sampler.c -- sorts, cuts, draws. */
#include "train/sampler.h"
#include "base/rng.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    const struct tv_candidate *a = left, *b = right;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static tv_status_t fill(const float *scores, int64_t num, struct tv_candidate *room,
                        const struct tv_candidate **best_out)
{
    const struct tv_candidate *best = room;
    for (int64_t i = 0; i < num; i++) {
        room[i] = (struct tv_candidate){(int32_t)i, scores[i], 0};
        if (isnan(scores[i]))
            return TV_ERR(TV_NUMERIC, "the score of id %" PRId64 " is not a number", i);
        best = scores[i] > best->score ? &room[i] : best;
    }
    if (!isfinite(best->score))
        return TV_ERR(TV_NUMERIC, "the highest score, of id %d, is %g", best->id,
                      (double)best->score);
    *best_out = best;
    return TV_OK;
}

/* How many of the sorted candidates stay; their weights are filled in. */
static int64_t cut(const struct tv_sampler_args *args, struct tv_candidate *sorted, int64_t num)
{
    double sum = 0, share = 0;
    const double highest = (double)sorted[0].score;
    if (args->top_k > 0 && args->top_k < num)
        num = args->top_k;
    for (int64_t i = 0; i < num; i++) {
        sorted[i].weight = exp(((double)sorted[i].score - highest) / args->temperature);
        sum += sorted[i].weight;
    }
    for (int64_t i = 0; args->top_p < 1 && i < num; i++) {
        share += sorted[i].weight;
        if (share >= args->top_p * sum)
            return i + 1;
    }
    return num;
}

static double uniform(const struct tv_sampler_args *args, int64_t index)
{
    char name[48];
    snprintf(name, sizeof(name), "sample.%" PRId64, args->stream);
    return (double)(tv_rng_bits(tv_rng_key(args->seed, name), (uint64_t)index) >> 11) * 0x1p-53;
}

tv_status_t tv_sample(const struct tv_sampler_args *args, int64_t index, const float *scores,
                      int64_t num, struct tv_candidate *room, int32_t *id_out)
{
    const struct tv_candidate *best = NULL;
    TV_TRY(fill(scores, num, room, &best));
    if (args->temperature == 0) {
        *id_out = best->id;
        return TV_OK;
    }
    qsort(room, (size_t)num, sizeof(*room), compare);
    const int64_t kept = cut(args, room, num);
    double sum = 0, running = 0;
    for (int64_t i = 0; i < kept; i++)
        sum += room[i].weight;
    const double target = uniform(args, index) * sum;
    int64_t i = 0;
    for (running = room[0].weight; running <= target && i + 1 < kept; running += room[i].weight)
        i++;
    *id_out = room[i].id;
    return TV_OK;
}
