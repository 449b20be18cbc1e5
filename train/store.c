/* train/store.c -- two buffers for gradients, two for weights, and the collectives between them and
 * the shards. */
#include "train/store.h"
#include <stdlib.h>
#include <string.h>

enum { NUM_BUFFERS = 2, MAX_PARTS = 2 };

/* A bucket of a unit, and its place in the unit's buffers. */
struct part {
    int bucket;
    int64_t offset;
};

/* A unit in a buffer: its own weights, as in the flat arrays from `first`; behind them a tied weight
 * that lies with another unit of this rank. */
struct lent_unit {
    int unit, num_parts;
    struct part parts[MAX_PARTS];
    int64_t first, own_count, count;
    int64_t tied_offset; /* of the head's tied weight, or -1 */
    int64_t kept_first;  /* of its norms' gradients */
};

struct lent_buffer {
    void *data;                   /* [the largest unit's count] */
    const struct lent_unit *unit; /* whose weights or gradients these are, or NULL */
    struct tv_request *requests[MAX_PARTS];
};

struct tv_store {
    struct tv_store_args args;
    struct tv_unit_store lender;
    int num_units;
    struct lent_unit *units;
    int64_t largest, kept_count;
    struct tv_buffer params, grads, params_room, grads_room, kept;
    struct lent_buffer weights[NUM_BUFFERS], gradients[NUM_BUFFERS];
    int oldest;             /* of the gradients' buffers */
    unsigned char *has_sum; /* [buckets] of this step, in the shard */
};

/* ---- places ---- */

static void add_part(struct lent_unit *unit, int bucket, int64_t offset, int64_t count)
{
    unit->parts[unit->num_parts++] = (struct part){bucket, offset};
    unit->count = offset + count;
}

/* The bucket of the tied weight, or -1 when no weight here is tied. */
static int tied_bucket(const struct tv_sharding *s)
{
    for (int i = 0; i < s->locals.num; i++) {
        for (int b = 0; s->locals.params[i].param->tied_unit >= 0; b++) {
            if (s->shards.buckets[b].first == s->locals.params[i].first)
                return b;
        }
    }
    return -1;
}

static void place_unit(struct tv_store *store, const struct tv_sharding *s, int index, int head)
{
    struct lent_unit *unit = &store->units[store->num_units++];
    const int tied = tied_bucket(s);
    *unit = (struct lent_unit){.unit = index, .tied_offset = -1, .kept_first = store->kept_count};
    for (int b = 0; b < s->shards.num_buckets; b++) {
        const struct tv_bucket_range *bucket = &s->shards.buckets[b];
        if (s->bucket_units[b].low != index)
            continue;
        if (unit->num_parts == 0)
            unit->first = bucket->first;
        if (b == tied && index == head)
            unit->tied_offset = bucket->first - unit->first;
        add_part(unit, b, bucket->first - unit->first, bucket->count);
    }
    unit->own_count = unit->count;
    if (index == head && tied >= 0 && unit->tied_offset < 0) {
        unit->tied_offset = unit->own_count;
        add_part(unit, tied, unit->tied_offset, s->shards.buckets[tied].count);
    }
    for (int i = 0; i < s->locals.num; i++) {
        const struct tv_local_param *local = &s->locals.params[i];
        store->kept_count += local->unit == index && local->param->is_for_rows ? local->count : 0;
    }
    store->largest = unit->count > store->largest ? unit->count : store->largest;
}

/* Fills units and counts; the rest of the store is not read. */
static tv_status_t place_units(struct tv_store *store, const struct tv_run *run,
                               const struct tv_sharding *s)
{
    const int head = run->model.num_layers + 1;
    store->units = calloc((size_t)s->shards.num_buckets + 1, sizeof(*store->units));
    if (store->units == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d units", s->shards.num_buckets);
    for (int b = 0; b < s->shards.num_buckets; b++) {
        const int index = s->bucket_units[b].low;
        if (b == 0 || index != s->bucket_units[b - 1].low)
            place_unit(store, s, index, head);
    }
    return TV_OK;
}

static size_t weight_bytes(const struct tv_run *run, int64_t count)
{
    return (size_t)count * tv_dtype_bytes(run->dtype);
}

static size_t bytes_of(int64_t count)
{
    return (size_t)count * sizeof(float);
}

static int has_weight_shards(const struct tv_run *run)
{
    return run->zero_stage >= 3;
}

static tv_status_t create_buffers(struct tv_store *store)
{
    const struct tv_sharding *s = store->args.sharding;
    const int is_sharded = has_weight_shards(store->args.run);
    struct tv_device *device = tv_stream_device(store->args.stream);
    const int64_t own = s->shards.own_count, room = NUM_BUFFERS * store->largest;
    const struct tv_run *run = store->args.run;
    TV_TRY(tv_buffer_create(device, weight_bytes(run, is_sharded ? own : s->locals.count),
                            TV_MEM_PARAMS, &store->params));
    TV_TRY(tv_buffer_create(device, bytes_of(own), TV_MEM_GRADS, &store->grads));
    TV_TRY(tv_buffer_create(device, bytes_of(room), TV_MEM_BUFFERS, &store->grads_room));
    TV_TRY(tv_buffer_create(device, weight_bytes(run, is_sharded ? room : 0), TV_MEM_BUFFERS,
                            &store->params_room));
    TV_TRY(tv_buffer_create(device, bytes_of(store->kept_count), TV_MEM_BUFFERS, &store->kept));
    store->has_sum = calloc((size_t)s->shards.num_buckets + 1, 1);
    if (store->has_sum == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d buckets", s->shards.num_buckets);
    for (int i = 0; i < NUM_BUFFERS; i++) {
        store->gradients[i].data = (float *)store->grads_room.data + i * store->largest;
        if (is_sharded)
            store->weights[i].data = tv_at(store->params_room.data, i * store->largest, run->dtype);
    }
    return TV_OK;
}

tv_status_t tv_store_bytes(const struct tv_run *run, const struct tv_sharding *s,
                           int64_t bytes_out[TV_NUM_MEM_KINDS], int64_t *room_out)
{
    struct tv_store store = {0};
    TV_TRY(place_units(&store, run, s));
    const int is_sharded = has_weight_shards(run);
    const int64_t f = sizeof(float), w = (int64_t)tv_dtype_bytes(run->dtype);
    const int64_t room = NUM_BUFFERS * store.largest * (f + (is_sharded ? w : 0));
    bytes_out[TV_MEM_PARAMS] += (is_sharded ? s->shards.own_count : s->locals.count) * w;
    bytes_out[TV_MEM_GRADS] += s->shards.own_count * f;
    bytes_out[TV_MEM_BUFFERS] += room + store.kept_count * f;
    if (room_out != NULL)
        *room_out = room;
    free(store.units);
    return TV_OK;
}

/* ---- weights ---- */

static const struct lent_unit *find_unit(const struct tv_store *store, int unit)
{
    int i = 0;
    while (i < store->num_units && store->units[i].unit != unit)
        i++;
    return i < store->num_units ? &store->units[i] : NULL;
}

static tv_status_t wait_all(struct lent_buffer *buffer)
{
    for (int i = 0; i < MAX_PARTS; i++)
        TV_TRY(tv_request_wait(&buffer->requests[i]));
    return TV_OK;
}

static tv_status_t start_gather(struct tv_store *store, const struct lent_unit *unit,
                                struct lent_buffer *buffer)
{
    const struct tv_shards *shards = &store->args.sharding->shards;
    const tv_dtype_t dtype = store->args.run->dtype;
    buffer->unit = unit;
    for (int i = 0; i < unit->num_parts; i++) {
        const struct part *part = &unit->parts[i];
        TV_TRY(tv_comm_all_gather_v(
            store->args.data,
            tv_at(store->params.data, tv_shards_place(shards, part->bucket), dtype),
            tv_at(buffer->data, part->offset, dtype), tv_shards_counts(shards, part->bucket), dtype,
            store->args.stream, &buffer->requests[i]));
    }
    return TV_OK;
}

/* The buffer that has the unit's weights, or will have them; NULL: none is free. */
static struct lent_buffer *weights_of(struct tv_store *store, const struct lent_unit *unit)
{
    for (int i = 0; i < NUM_BUFFERS; i++) {
        if (store->weights[i].unit == unit)
            return &store->weights[i];
    }
    return NULL;
}

static tv_status_t gather_weights(struct tv_store *store, const struct lent_unit *unit,
                                  const struct lent_unit *next, const void **weights_out)
{
    struct lent_buffer *buffer = weights_of(store, unit);
    if (buffer == NULL) {
        buffer = weights_of(store, NULL);
        if (buffer == NULL)
            return TV_ERR(TV_INTERNAL, "no room for the weights of unit %d", unit->unit);
        TV_TRY(start_gather(store, unit, buffer));
    }
    TV_TRY(wait_all(buffer));
    struct lent_buffer *other = weights_of(store, NULL);
    if (next != NULL && other != NULL)
        TV_TRY(start_gather(store, next, other));
    *weights_out = buffer->data;
    return TV_OK;
}

static tv_status_t lend_weights(struct tv_store *store, const struct lent_unit *unit, int next,
                                struct tv_unit_memory *memory)
{
    const tv_dtype_t dtype = store->args.run->dtype;
    if (has_weight_shards(store->args.run)) {
        TV_TRY(gather_weights(store, unit, find_unit(store, next), &memory->params));
        if (unit->tied_offset >= 0)
            memory->tied_params = tv_const_at(memory->params, unit->tied_offset, dtype);
        return TV_OK;
    }
    const struct tv_sharding *s = store->args.sharding;
    memory->params = tv_at(store->params.data, unit->first, dtype);
    if (unit->tied_offset >= 0)
        memory->tied_params =
            tv_at(store->params.data, s->shards.buckets[tied_bucket(s)].first, dtype);
    return TV_OK;
}

/* ---- gradients ---- */

/* Where a part's gradients lie in a buffer. */
static float *grads_of(const struct lent_buffer *buffer, const struct part *part)
{
    return (float *)buffer->data + part->offset;
}

/* Wait for a buffer's sums and add them to the shards, of which the first of a step take them as they are. */
static tv_status_t settle(struct tv_store *store, struct lent_buffer *buffer)
{
    const struct tv_shards *shards = &store->args.sharding->shards;
    TV_TRY(wait_all(buffer));
    for (int i = 0; buffer->unit != NULL && i < buffer->unit->num_parts; i++) {
        const struct part *part = &buffer->unit->parts[i];
        const struct tv_bucket_range own = tv_shards_of(shards, part->bucket, shards->rank);
        float *sum = (float *)store->grads.data + tv_shards_place(shards, part->bucket);
        const int64_t first = own.first - shards->buckets[part->bucket].first;
        float *grads = grads_of(buffer, part);
        const struct tv_from_bf16_args unpack = {own.count, tv_at(grads, first, TV_BF16),
                                                 grads + first};
        const struct tv_add_args add = {.count = own.count, .a = grads + first, .b = sum, .y = sum};
        unsigned char *has_sum = &store->has_sum[part->bucket];
        if (store->args.run->grad_dtype == TV_BF16)
            TV_TRY(store->args.kernels->from_bf16(store->args.stream, &unpack));
        TV_TRY(*has_sum ? store->args.kernels->add(store->args.stream, &add)
                        : tv_stream_copy(store->args.stream, sum, add.a, bytes_of(own.count)));
        *has_sum = 1;
    }
    buffer->unit = NULL;
    return TV_OK;
}

static tv_status_t start_reduce(struct tv_store *store, const struct lent_unit *unit,
                                struct lent_buffer *buffer)
{
    const struct tv_shards *shards = &store->args.sharding->shards;
    const tv_dtype_t dtype = store->args.run->grad_dtype;
    buffer->unit = unit;
    for (int i = 0; i < unit->num_parts; i++) {
        const struct part *part = &unit->parts[i];
        const struct tv_bucket_range own = tv_shards_of(shards, part->bucket, shards->rank);
        float *all = grads_of(buffer, part);
        const int64_t first = own.first - shards->buckets[part->bucket].first;
        const struct tv_to_bf16_args pack = {shards->buckets[part->bucket].count, all, all};
        if (dtype == TV_BF16)
            TV_TRY(store->args.kernels->to_bf16(store->args.stream, &pack));
        TV_TRY(tv_comm_reduce_scatter_v(store->args.data, all, tv_at(all, first, dtype),
                                        tv_shards_counts(shards, part->bucket), dtype,
                                        store->args.stream, &buffer->requests[i]));
    }
    return TV_OK;
}

/* The gradients of a backward in two parts that the first one gives, norms': zeros for it, of which biases of row
 * matrices keep theirs; its gradients added to what is kept; and that into the second part's buffer, which leaves
 * zeros. A sum of several micro-batches goes with the first that asks for it. */
enum kept_move { CLEAR, KEEP, TAKE };

static tv_status_t move_kept(struct tv_store *store, const struct lent_unit *unit, float *grads,
                             enum kept_move move)
{
    struct tv_stream *stream = store->args.stream;
    const struct tv_local_params *locals = &store->args.sharding->locals;
    float *kept = store->kept.data;
    int64_t place = unit->kept_first;
    for (int i = 0; i < locals->num; i++) {
        const struct tv_local_param *local = &locals->params[i];
        if (local->unit != unit->unit || !local->param->is_for_rows)
            continue;
        float *grad = grads + local->first - unit->first;
        const struct tv_add_args add = {local->count, grad, kept + place, kept + place};
        if (move == KEEP)
            TV_TRY(store->args.kernels->add(stream, &add));
        if (move == TAKE)
            TV_TRY(tv_stream_copy(stream, grad, kept + place, bytes_of(local->count)));
        if (move != KEEP)
            TV_TRY(
                tv_stream_zero(stream, move == TAKE ? kept + place : grad, bytes_of(local->count)));
        place += local->count;
    }
    return TV_OK;
}

static tv_status_t lend_grads(struct tv_store *store, const struct lent_unit *unit,
                              tv_unit_use_t use, struct tv_unit_memory *memory)
{
    struct lent_buffer *buffer = &store->gradients[store->oldest];
    TV_TRY(settle(store, buffer));
    if (use != TV_USE_BACKWARD)
        TV_TRY(move_kept(store, unit, buffer->data, use == TV_USE_BACKWARD_INPUT ? CLEAR : TAKE));
    memory->grads = buffer->data;
    memory->tied_grads = unit->tied_offset >= 0 ? (float *)buffer->data + unit->tied_offset : NULL;
    return TV_OK;
}

static tv_status_t take_back_grads(struct tv_store *store, const struct lent_unit *unit,
                                   tv_unit_use_t use)
{
    struct lent_buffer *buffer = &store->gradients[store->oldest];
    if (use == TV_USE_BACKWARD_INPUT)
        return move_kept(store, unit, buffer->data, KEEP);
    store->oldest = (store->oldest + 1) % NUM_BUFFERS;
    return start_reduce(store, unit, buffer);
}

/* ---- the store ---- */

static tv_status_t acquire(void *context, int unit, int next, tv_unit_use_t use,
                           struct tv_unit_memory *memory_out)
{
    struct tv_store *store = context;
    const struct lent_unit *lent = find_unit(store, unit);
    struct tv_unit_memory memory = {0};
    if (lent == NULL)
        return TV_ERR(TV_INTERNAL, "unit %d is not on this rank", unit);
    if (use != TV_USE_BACKWARD_WEIGHT) /* products of activations and gradients alone */
        TV_TRY(lend_weights(store, lent, next, &memory));
    if (use != TV_USE_FORWARD)
        TV_TRY(lend_grads(store, lent, use, &memory));
    *memory_out = memory;
    return TV_OK;
}

static tv_status_t release(void *context, int unit, tv_unit_use_t use)
{
    struct tv_store *store = context;
    const struct lent_unit *lent = find_unit(store, unit);
    struct lent_buffer *weights = weights_of(store, lent);
    if (use != TV_USE_BACKWARD_WEIGHT && weights != NULL)
        weights->unit = NULL;
    return use == TV_USE_FORWARD ? TV_OK : take_back_grads(store, lent, use);
}

tv_status_t tv_store_create(const struct tv_store_args *args, struct tv_store **store_out)
{
    struct tv_store *store = calloc(1, sizeof(*store));
    if (store == NULL)
        return TV_ERR(TV_NO_MEMORY, "store: %zu bytes", sizeof(*store));
    store->args = *args;
    store->lender = (struct tv_unit_store){store, acquire, release};
    tv_status_t status = place_units(store, args->run, args->sharding);
    if (status == TV_OK)
        status = create_buffers(store);
    if (status != TV_OK) {
        tv_store_destroy(store);
        return status;
    }
    *store_out = store;
    return TV_OK;
}

void tv_store_destroy(struct tv_store *store)
{
    if (store == NULL)
        return;
    for (int i = 0; i < NUM_BUFFERS * MAX_PARTS; i++) { /* in flight only after a failure */
        tv_request_cancel(&store->weights[i / MAX_PARTS].requests[i % MAX_PARTS]);
        tv_request_cancel(&store->gradients[i / MAX_PARTS].requests[i % MAX_PARTS]);
    }
    tv_buffer_destroy(&store->params);
    tv_buffer_destroy(&store->grads);
    tv_buffer_destroy(&store->params_room);
    tv_buffer_destroy(&store->grads_room);
    tv_buffer_destroy(&store->kept);
    free(store->has_sum);
    free(store->units);
    free(store);
}

const struct tv_unit_store *tv_store_lender(struct tv_store *store)
{
    return &store->lender;
}

struct tv_stored_weights tv_store_params(struct tv_store *store)
{
    const struct tv_run *run = store->args.run;
    const int is_sharded = has_weight_shards(run);
    return (struct tv_stored_weights){store->params.data, run->dtype, is_sharded, !is_sharded};
}

struct tv_weight_array tv_store_grads(struct tv_store *store)
{
    return (struct tv_weight_array){store->grads.data, 1, 0};
}

void tv_store_begin_step(struct tv_store *store)
{
    memset(store->has_sum, 0, (size_t)store->args.sharding->shards.num_buckets);
}

/* The shards of all groups, as the gradients of a step travel. */
static tv_status_t sum_copies(struct tv_store *store)
{
    const struct tv_kernels *kernels = store->args.kernels;
    const tv_dtype_t dtype = store->args.run->grad_dtype;
    const int64_t count = store->args.sharding->shards.own_count;
    const struct tv_to_bf16_args pack = {count, store->grads.data, store->grads.data};
    const struct tv_from_bf16_args unpack = {count, store->grads.data, store->grads.data};
    if (dtype == TV_BF16)
        TV_TRY(kernels->to_bf16(store->args.stream, &pack));
    TV_TRY(tv_comm_all_reduce_wait(store->args.copies, store->grads.data, count, dtype, TV_SUM,
                                   store->args.stream));
    return dtype == TV_BF16 ? kernels->from_bf16(store->args.stream, &unpack) : TV_OK;
}

tv_status_t tv_store_finish(struct tv_store *store)
{
    for (int i = 0; i < NUM_BUFFERS; i++) {
        TV_TRY(settle(store, &store->gradients[store->oldest]));
        store->oldest = (store->oldest + 1) % NUM_BUFFERS;
    }
    return store->args.copies != NULL ? sum_copies(store) : TV_OK;
}
