/* train/sharding.c -- buckets along the flat arrays, and what a replica owns of them. */
#include "train/sharding.h"
#include <stdlib.h>
#include <string.h>

/* The buckets while they are found. */
struct builder {
    const struct tv_run *run;
    struct tv_sharding *sharding;
    struct tv_bucket_range *buckets, *whole; /* [locals.num] each */
    int num_buckets, num_whole, is_tied_here;
};

static int is_sharded_tied(const struct builder *b, const struct tv_local_param *local)
{
    return b->run->zero_stage > 0 && local->param->tied_unit >= 0;
}

static int64_t end_of(const struct tv_local_params *locals, int i)
{
    return i + 1 < locals->num ? locals->params[i + 1].first : locals->count;
}

/* Does a bucket that began at element `first` end with local weight i? Not inside a unit where the store lends whole
 * units (--zero-stage 2 and 3). */
static int ends_bucket(const struct builder *b, int i, int64_t first)
{
    const struct tv_local_params *locals = &b->sharding->locals;
    /* 1 MiB: below it a message costs more than its bytes. Sharded gradients move unit by unit. */
    const int is_by_unit = b->run->zero_stage >= 2;
    const int64_t min_count = is_by_unit ? 0 : 1 << 18;
    if (i + 1 == locals->num)
        return 1;
    const struct tv_local_param *local = &locals->params[i], *next = local + 1;
    if (is_sharded_tied(b, local) || is_sharded_tied(b, next))
        return 1;
    const int is_boundary =
        next->unit != local->unit || (!is_by_unit && next->param->branch != local->param->branch);
    return is_boundary && end_of(locals, i) - first >= min_count;
}

/* Buckets follow the flat gradients, which are in descending order of units; small units share one, and
 * the branches of a large layer have one each. */
static void find_buckets(struct builder *b)
{
    const struct tv_local_params *locals = &b->sharding->locals;
    struct tv_bucket_units *units = b->sharding->bucket_units;
    int64_t first = 0;
    int is_new = 1;
    for (int i = 0; i < locals->num; i++) {
        const struct tv_local_param *local = &locals->params[i];
        if (is_new) {
            units->high = local->unit;
            units->high_branch = local->param->branch;
        }
        units->low = local->unit;
        units->needs_head |= local->param->tied_unit >= 0 && !local->is_copy && b->is_tied_here;
        if (tv_run_is_matrix(b->run, local->param))
            b->whole[b->num_whole++] = (struct tv_bucket_range){local->first, local->count};
        is_new = ends_bucket(b, i, first);
        if (!is_new)
            continue;
        b->buckets[b->num_buckets++] = (struct tv_bucket_range){first, end_of(locals, i) - first};
        first = end_of(locals, i);
        units++;
    }
}

/* The own shards, weight by weight; gaps between weights are nobody's. */
static void find_pieces(struct tv_sharding *s)
{
    s->num_pieces = 0;
    for (int b = 0; b < s->shards.num_buckets; b++) {
        const struct tv_bucket_range shard = tv_shards_of(&s->shards, b, s->shards.rank);
        const int64_t place = tv_shards_place(&s->shards, b), end = shard.first + shard.count;
        for (int i = 0; i < s->locals.num; i++) {
            const struct tv_local_param *local = &s->locals.params[i];
            const int64_t from = local->first > shard.first ? local->first : shard.first;
            const int64_t local_end = local->first + local->count;
            const int64_t to = local_end < end ? local_end : end;
            if (from < to)
                s->pieces[s->num_pieces++] =
                    (struct tv_owned_piece){i, from, to - from, place + from - shard.first};
        }
    }
}

static int holds_unit(int num_chunks, const struct tv_model_chunk *chunks, int unit)
{
    int c = 0;
    while (c < num_chunks &&
           (unit < chunks[c].first_unit || unit >= chunks[c].first_unit + chunks[c].num_units))
        c++;
    return c < num_chunks;
}

static tv_status_t divide(const struct tv_run *run, int d, struct builder *b)
{
    struct tv_sharding *s = b->sharding;
    const size_t n = (size_t)s->locals.num;
    b->buckets = calloc(n, sizeof(*b->buckets));
    b->whole = calloc(n, sizeof(*b->whole));
    s->bucket_units = calloc(n, sizeof(*s->bucket_units));
    s->pieces = calloc(n, sizeof(*s->pieces));
    if (!b->buckets || !b->whole || !s->bucket_units || !s->pieces)
        return TV_ERR(TV_NO_MEMORY, "%zu gradient buckets", n);
    find_buckets(b);
    const struct tv_shards_args args = {.num_ranks = run->zero_group,
                                        .rank = d % run->zero_group,
                                        .num_buckets = b->num_buckets,
                                        .num_whole = b->num_whole,
                                        .buckets = b->buckets,
                                        .whole = b->whole};
    TV_TRY(tv_shards_create(&args, &s->shards));
    find_pieces(s);
    return TV_OK;
}

tv_status_t tv_sharding_create_of(const struct tv_run *run, int num_chunks,
                                  const struct tv_model_chunk *chunks, int d,
                                  struct tv_sharding *sharding_out)
{
    const struct tv_model_args args = tv_run_args_of(run, num_chunks, chunks);
    struct tv_sharding sharding = {0};
    struct builder b = {.run = run, .sharding = &sharding};
    b.is_tied_here = holds_unit(num_chunks, chunks, 0) &&
                     holds_unit(num_chunks, chunks, run->model.num_layers + 1);
    tv_status_t status = tv_model_param_table(&run->model, &sharding.table);
    if (status == TV_OK)
        status = tv_model_place_params(&args, &sharding.table, run->extent.at[TV_TENSOR],
                                       &sharding.locals);
    if (status == TV_OK)
        status = divide(run, d, &b);
    free(b.buckets);
    free(b.whole);
    if (status != TV_OK) {
        tv_sharding_destroy(&sharding);
        return status;
    }
    *sharding_out = sharding;
    return TV_OK;
}

tv_status_t tv_sharding_create(const struct tv_run *run, int stage, int d,
                               struct tv_sharding *sharding_out)
{
    struct tv_model_chunk *chunks = calloc((size_t)run->num_chunks, sizeof(*chunks));
    if (chunks == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d chunks", run->num_chunks);
    const struct tv_model_args args = tv_run_model_args(run, stage, chunks);
    const tv_status_t status =
        tv_sharding_create_of(run, args.num_chunks, args.chunks, d, sharding_out);
    free(chunks);
    return status;
}

void tv_sharding_become(struct tv_sharding *sharding, int d)
{
    tv_shards_become(&sharding->shards, d % sharding->shards.num_ranks);
    find_pieces(sharding);
}

void tv_sharding_destroy(struct tv_sharding *sharding)
{
    tv_shards_destroy(&sharding->shards);
    tv_local_params_destroy(&sharding->locals);
    tv_param_table_destroy(&sharding->table);
    free(sharding->bucket_units);
    free(sharding->pieces);
    memset(sharding, 0, sizeof(*sharding));
}

int64_t tv_piece_offset(const struct tv_weight_array *array, const struct tv_owned_piece *piece)
{
    return array->is_compact ? piece->place : piece->first;
}

int64_t tv_stored_offset(const struct tv_stored_weights *array, const struct tv_owned_piece *piece)
{
    return array->is_compact ? piece->place : piece->first;
}

int64_t tv_run_master_bytes(const struct tv_run *run, int64_t count)
{
    return run->dtype == TV_F32 ? 0 : count * (int64_t)sizeof(float);
}

tv_status_t tv_sharding_optimizer_bytes(const struct tv_run *run,
                                        const struct tv_sharding *sharding, int64_t bytes_out[2])
{
    const int T = run->extent.at[TV_TENSOR], num_pieces = sharding->num_pieces;
    const struct tv_param **matrices = calloc((size_t)num_pieces + 1, sizeof(*matrices));
    if (matrices == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d matrices", num_pieces);
    int num = 0;
    for (int i = 0; i < num_pieces; i++) {
        const struct tv_param *param = sharding->locals.params[sharding->pieces[i].local].param;
        if (tv_run_is_matrix(run, param))
            matrices[num++] = param;
    }
    const tv_optimizer_kind_t kind = run->optimizer.kind;
    const int64_t count = sharding->shards.own_count;
    bytes_out[0] =
        tv_optimizer_state_bytes(kind, count, T, num, matrices) + tv_run_master_bytes(run, count);
    bytes_out[1] = tv_optimizer_work_bytes(kind, T, num, matrices);
    free(matrices);
    return TV_OK;
}
