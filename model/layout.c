/* model/layout.c -- where everything of a rank's units lies: pure arithmetic on the arguments. */
#include "model/model_internal.h"
#include <stdlib.h>

enum { ALIGN_ELEMENTS = 16, ALIGN_BYTES = 64 };

/* Takes `num` from the running end, rounded up to a multiple of `align`, and returns their place. */
static int64_t take(int64_t *end, int64_t num, int64_t align)
{
    const int64_t place = *end;
    *end += (num + align - 1) / align * align;
    return place;
}

static int64_t take_bytes(int64_t *end, int64_t count, tv_dtype_t dtype)
{
    return take(end, count * (int64_t)tv_dtype_bytes(dtype), ALIGN_BYTES);
}

/* Room for the gradients that tensor ranks sum because each has its own rows' part. */
static int64_t place_row_sums(const struct tv_model_args *args, struct tv_model_layout *layout)
{
    const int64_t place = layout->scratch_bytes;
    for (int i = 0; i < layout->num_local && args->is_sequence_parallel; i++) {
        if (layout->local[i].param->is_for_rows)
            take_bytes(&layout->scratch_bytes, layout->local[i].count, TV_F32);
    }
    return place;
}

static struct tv_model_sizes sizes_of(const struct tv_model_args *args, int T, int t,
                                      tv_dtype_t dtype)
{
    const struct tv_model_config *c = &args->config;
    struct tv_model_sizes s = {.T = T, .t = t, .C = c->hidden_size};
    s.rows = (int64_t)args->micro_batch * args->seq_length;
    s.own = tv_row_shard_of(s.rows, args->is_sequence_parallel, T, t);
    s.F = c->ffn_size / T;
    s.head_dim = c->hidden_size / c->num_heads;
    s.num_heads = c->num_heads / T;
    s.num_kv_heads = c->num_kv_heads > T ? c->num_kv_heads / T : 1;
    s.q_cols = (int64_t)s.num_heads * s.head_dim;
    s.kv_cols = (int64_t)s.num_kv_heads * s.head_dim;
    s.qkv_cols = s.q_cols + 2 * s.kv_cols;
    s.ld_att = tv_attention_row_stride(dtype, args->device, s.q_cols);
    s.ld_qkv = tv_attention_row_stride(dtype, args->device, s.qkv_cols);
    s.vocab = tv_vocab_shard_of(c->vocab_size, T, t);
    return s;
}

/* `from`: the weakest recomputation that does not keep it in the slot. */
static struct tv_place take_place(const struct tv_model_args *args, struct tv_chunk_layout *chunk,
                                  int64_t count, tv_dtype_t dtype, tv_recompute_t from)
{
    const int in_work = args->recompute >= from;
    int64_t *end = in_work ? &chunk->work_bytes : &chunk->slot_bytes;
    return (struct tv_place){take_bytes(end, count, dtype), in_work ? TV_IN_WORK : TV_IN_SLOT};
}

static struct tv_place take_scratch(int64_t *end, int64_t count, tv_dtype_t dtype)
{
    return (struct tv_place){take_bytes(end, count, dtype), TV_IN_SCRATCH};
}

/* A mean and a reciprocal deviation of each own row; RMSNorm has no mean. */
static int64_t num_means(const struct tv_model_args *args, const struct tv_model_layout *layout)
{
    return args->config.family == TV_LLAMA ? 0 : layout->sizes.own.num;
}

static struct tv_norm_places place_norm(const struct tv_model_args *args,
                                        const struct tv_model_layout *layout,
                                        struct tv_chunk_layout *chunk)
{
    const struct tv_model_sizes *s = &layout->sizes;
    struct tv_norm_places n;
    n.y = take_place(args, chunk, s->rows * s->C, layout->dtype, TV_RECOMPUTE_SELECTIVE);
    n.mean = take_place(args, chunk, num_means(args, layout), TV_F32, TV_RECOMPUTE_SELECTIVE);
    n.rstd = take_place(args, chunk, s->own.num, TV_F32, TV_RECOMPUTE_SELECTIVE);
    return n;
}

static void place_layer(const struct tv_model_args *args, const struct tv_model_layout *layout,
                        struct tv_chunk_layout *chunk, struct tv_layer_places *l)
{
    const struct tv_model_sizes *s = &layout->sizes;
    const tv_dtype_t dtype = layout->dtype;
    const int64_t ff_cols = s->F * (args->config.family == TV_LLAMA ? 2 : 1);
    l->norm1 = place_norm(args, layout, chunk);
    l->qkv = take_place(args, chunk, s->rows * s->ld_qkv, dtype, TV_RECOMPUTE_FULL);
    l->att = take_place(args, chunk, s->rows * s->ld_att, dtype, TV_RECOMPUTE_FULL);
    l->lse = take_place(args, chunk, s->rows * s->num_heads, TV_F32, TV_RECOMPUTE_FULL);
    l->mid = take_place(args, chunk, s->own.num * s->C, dtype, TV_RECOMPUTE_FULL);
    l->norm2 = place_norm(args, layout, chunk);
    l->ff = take_place(args, chunk, s->rows * ff_cols, dtype, TV_RECOMPUTE_FULL);
    l->act = take_place(args, chunk, s->rows * s->F, dtype, TV_RECOMPUTE_SELECTIVE);
}

static void place_layer_scratch(struct tv_model_layout *layout, int64_t *end)
{
    const struct tv_model_sizes *s = &layout->sizes;
    const tv_dtype_t dtype = layout->dtype;
    layout->d_act = take_bytes(end, s->rows * s->F, dtype);
    layout->d_qkv = take_bytes(end, s->rows * s->ld_qkv, dtype);
    layout->d_att = take_bytes(end, s->rows * s->ld_att, dtype);
    layout->attention_work =
        take_bytes(end, tv_attention_work_count(dtype, s->rows, s->q_cols), TV_F32);
}

static void place_head_scratch(const struct tv_model_args *args, struct tv_model_layout *layout,
                               int64_t *end)
{
    const struct tv_model_sizes *s = &layout->sizes;
    struct tv_head_places *h = &layout->head;
    h->norm.y = take_scratch(end, s->rows * s->C, layout->dtype);
    h->norm.mean = take_scratch(end, num_means(args, layout), TV_F32);
    h->norm.rstd = take_scratch(end, s->own.num, TV_F32);
    h->chunks = tv_vocab_chunks_of(s->rows, s->vocab.padded, layout->dtype, args->device);
    h->logits = take_scratch(end, h->chunks.rows * s->vocab.padded, layout->dtype);
    h->lse = take_scratch(end, h->chunks.rows, TV_F32);
    h->work = take_scratch(end, tv_vocab_work_count(h->chunks.rows, args->label_smoothing), TV_F32);
    h->losses = take_scratch(end, 2 * s->rows, TV_F32); /* doubles */
}

/* Every rank has a layer's, whatever its units. */
static void place_scratch(const struct tv_model_args *args, struct tv_model_layout *layout)
{
    const struct tv_model_sizes *s = &layout->sizes;
    const int needs_own = args->is_sequence_parallel || args->hidden_dropout > 0;
    const tv_dtype_t dtype = layout->dtype;
    int64_t *end = &layout->scratch_bytes;
    layout->grad = take_bytes(end, s->own.num * s->C, dtype);
    layout->whole = take_bytes(end, s->rows * s->C, dtype);
    layout->own = take_bytes(end, needs_own ? s->own.num * s->C : 0, dtype);
    int64_t layer_end = *end, head_end = *end;
    place_layer_scratch(layout, &layer_end);
    layout->has_head = layout->units[layout->num_units - 1].index == args->config.num_layers + 1;
    if (layout->has_head)
        place_head_scratch(args, layout, &head_end);
    *end = head_end > layer_end ? head_end : layer_end;
    layout->row_sums = place_row_sums(args, layout);
}

static void add_local(struct tv_model_layout *layout, const struct tv_param *param,
                      struct tv_unit *unit, int is_copy)
{
    const int64_t count = tv_param_local_count(param, layout->sizes.T);
    const int64_t first = take(&layout->param_count, count, ALIGN_ELEMENTS);
    layout->local[layout->num_local++] =
        (struct tv_local_param){param, first, count, unit->index, is_copy};
    if (is_copy)
        unit->tied_first = first;
    else
        unit->weight_first[unit->num_weights++] = first;
}

/* Weights in descending order of units: the order in which backward completes their gradients. */
static void place_weights(const struct tv_model_args *args, const struct tv_param_table *table,
                          struct tv_model_layout *layout)
{
    const int head = args->config.num_layers + 1;
    const int has_embedding = layout->units[0].index == 0;
    for (int u = layout->num_units - 1; u >= 0; u--) {
        struct tv_unit *unit = &layout->units[u];
        unit->first = layout->param_count;
        for (int i = 0; i < table->num_params; i++) {
            const struct tv_param *param = &table->params[i];
            if (param->unit == unit->index)
                add_local(layout, param, unit, 0);
            else if (param->tied_unit == unit->index && !has_embedding)
                add_local(layout, param, unit, 1);
        }
    }
    struct tv_unit *last = &layout->units[layout->num_units - 1];
    if (args->config.is_tied && has_embedding && last->index == head)
        last->tied_first = layout->units[0].weight_first[0]; /* one tensor for both units */
}

/* What selective recomputation makes is for one unit at a time, where no later part needs it. */
static int shares_work(const struct tv_model_args *args)
{
    return args->is_backward_whole && args->recompute == TV_RECOMPUTE_SELECTIVE;
}

static void place_units(const struct tv_model_args *args, const struct tv_model_layout *layout,
                        struct tv_chunk_layout *chunk)
{
    const struct tv_model_sizes *s = &layout->sizes;
    const int head = args->config.num_layers + 1;
    int64_t most = 0; /* of the units that take turns */
    for (int u = 0; u < chunk->args.num_units; u++) {
        struct tv_unit *unit = &chunk->units[u];
        unit->index = chunk->args.first_unit + u;
        unit->tied_first = -1;
        if (u > 0)
            unit->input =
                take_place(args, chunk, s->own.num * s->C, layout->dtype, TV_RECOMPUTE_FULL);
        if (unit->index > 0 && unit->index < head)
            place_layer(args, layout, chunk, &unit->layer);
        most = chunk->work_bytes > most ? chunk->work_bytes : most;
        if (shares_work(args))
            chunk->work_bytes = 0;
    }
    chunk->work_bytes = most;
}

/* Behind everything else. */
static void place_shared_work(struct tv_model_layout *layout)
{
    int64_t most = 0;
    for (int c = 0; c < layout->num_chunks; c++) {
        struct tv_chunk_layout *chunk = &layout->chunks[c];
        chunk->first_work = layout->activation_bytes;
        chunk->args.num_works = 1;
        most = chunk->work_bytes > most ? chunk->work_bytes : most;
    }
    layout->activation_bytes += most;
}

static void place_chunks(const struct tv_model_args *args, struct tv_model_layout *layout)
{
    struct tv_unit *units = layout->units;
    layout->tokens_count = layout->sizes.rows; /* positions */
    layout->slot_tokens =
        (2 + !!args->resets_positions + !!args->resets_attention) * layout->sizes.rows;
    for (int c = 0; c < layout->num_chunks; c++) {
        struct tv_chunk_layout *chunk = &layout->chunks[c];
        chunk->args = args->chunks[c];
        chunk->units = units;
        units += chunk->args.num_units;
        place_units(args, layout, chunk);
        chunk->first_slot = layout->activation_bytes;
        chunk->first_work = chunk->first_slot + chunk->slot_bytes * chunk->args.num_slots;
        layout->activation_bytes = chunk->first_work;
        if (!shares_work(args))
            layout->activation_bytes += chunk->work_bytes * chunk->args.num_works;
        chunk->first_tokens = layout->tokens_count;
        layout->tokens_count += layout->slot_tokens * chunk->args.num_slots;
    }
    if (shares_work(args))
        place_shared_work(layout);
}

tv_status_t tv_model_layout_create(const struct tv_model_args *args,
                                   const struct tv_param_table *table, int T, int t,
                                   tv_dtype_t dtype, struct tv_model_layout *layout_out)
{
    struct tv_model_layout layout = {
        .sizes = sizes_of(args, T, t, dtype), .dtype = dtype, .num_chunks = args->num_chunks};
    for (int c = 0; c < args->num_chunks; c++)
        layout.num_units += args->chunks[c].num_units;
    layout.chunks = calloc((size_t)layout.num_chunks, sizeof(*layout.chunks));
    layout.units = calloc((size_t)layout.num_units, sizeof(*layout.units));
    layout.local = calloc((size_t)table->num_params, sizeof(*layout.local));
    if (layout.chunks == NULL || layout.units == NULL || layout.local == NULL) {
        tv_model_layout_destroy(&layout);
        return TV_ERR(TV_NO_MEMORY, "layout of %d units", layout.num_units);
    }
    place_chunks(args, &layout);
    place_weights(args, table, &layout);
    place_scratch(args, &layout);
    *layout_out = layout;
    return TV_OK;
}

void tv_model_layout_destroy(struct tv_model_layout *layout)
{
    free(layout->chunks);
    free(layout->units);
    free(layout->local);
    layout->chunks = NULL;
    layout->units = NULL;
    layout->local = NULL;
}
