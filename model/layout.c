/* model/layout.c -- where everything of a rank's units lies: pure arithmetic on the arguments. */
#include "model/model_internal.h"
#include <stdlib.h>

enum { ALIGN_ELEMENTS = 16 };

/* Takes `count` floats from the running end and returns their place. */
static int64_t take(int64_t *end, int64_t count)
{
    const int64_t place = *end;
    *end += (count + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    return place;
}

/* Room for the gradients that tensor ranks sum because each has its own rows' part. */
static int64_t place_row_sums(const struct tv_model_args *args, struct tv_model_layout *layout)
{
    const int64_t place = layout->scratch_count;
    for (int i = 0; i < layout->num_local && args->is_sequence_parallel; i++) {
        if (layout->local[i].param->is_for_rows)
            take(&layout->scratch_count, layout->local[i].count);
    }
    return place;
}

static struct tv_model_sizes sizes_of(const struct tv_model_args *args, int T, int t)
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
    s.vocab = tv_vocab_shard_of(c->vocab_size, T, t);
    return s;
}

/* `from`: the weakest recomputation that does not keep it in the slot. */
static struct tv_place take_place(const struct tv_model_args *args, struct tv_chunk_layout *chunk,
                                  int64_t count, tv_recompute_t from)
{
    const int in_work = args->recompute >= from;
    return (struct tv_place){take(in_work ? &chunk->work_count : &chunk->slot_count, count),
                             in_work};
}

static struct tv_norm_places place_norm(const struct tv_model_args *args,
                                        const struct tv_model_sizes *s,
                                        struct tv_chunk_layout *chunk)
{
    const int64_t means = args->config.family == TV_LLAMA ? 0 : s->own.num;
    struct tv_norm_places n;
    n.y = take_place(args, chunk, s->rows * s->C, TV_RECOMPUTE_SELECTIVE);
    n.mean = take_place(args, chunk, means, TV_RECOMPUTE_SELECTIVE);
    n.rstd = take_place(args, chunk, s->own.num, TV_RECOMPUTE_SELECTIVE);
    return n;
}

static void place_layer(const struct tv_model_args *args, const struct tv_model_sizes *s,
                        struct tv_chunk_layout *chunk, struct tv_layer_places *l)
{
    const int64_t ff_cols = s->F * (args->config.family == TV_LLAMA ? 2 : 1);
    l->norm1 = place_norm(args, s, chunk);
    l->qkv = take_place(args, chunk, s->rows * s->qkv_cols, TV_RECOMPUTE_FULL);
    l->att = take_place(args, chunk, s->rows * s->q_cols, TV_RECOMPUTE_FULL);
    l->lse = take_place(args, chunk, s->rows * s->num_heads, TV_RECOMPUTE_FULL);
    l->mid = take_place(args, chunk, s->own.num * s->C, TV_RECOMPUTE_FULL);
    l->norm2 = place_norm(args, s, chunk);
    l->ff = take_place(args, chunk, s->rows * ff_cols, TV_RECOMPUTE_FULL);
    l->act = take_place(args, chunk, s->rows * s->F, TV_RECOMPUTE_SELECTIVE);
}

static void place_head(const struct tv_model_args *args, const struct tv_model_sizes *s,
                       struct tv_chunk_layout *chunk, struct tv_head_places *h)
{
    h->norm = place_norm(args, s, chunk);
    h->logits = take_place(args, chunk, s->rows * s->vocab.padded, TV_RECOMPUTE_FULL);
    h->lse = take_place(args, chunk, s->rows, TV_RECOMPUTE_FULL);
}

static void place_scratch(const struct tv_model_args *args, struct tv_model_layout *layout)
{
    const struct tv_model_sizes *s = &layout->sizes;
    const int needs_own = args->is_sequence_parallel || args->hidden_dropout > 0;
    int64_t *end = &layout->scratch_count;
    layout->grad = take(end, s->own.num * s->C);
    layout->whole = take(end, s->rows * s->C);
    layout->own = take(end, needs_own ? s->own.num * s->C : 0);
    layout->d_act = take(end, s->rows * s->F);
    layout->d_qkv = take(end, s->rows * s->qkv_cols);
    layout->d_att = take(end, s->rows * s->q_cols);
    layout->loss_work = take(end, (args->label_smoothing > 0 ? 4 : 3) * s->rows);
    layout->row_sums = place_row_sums(args, layout);
}

static void add_local(struct tv_model_layout *layout, const struct tv_param *param,
                      struct tv_unit *unit, int is_copy)
{
    const int64_t count = tv_param_local_count(param, layout->sizes.T);
    const int64_t first = take(&layout->param_count, count);
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

static void place_units(const struct tv_model_args *args, const struct tv_model_sizes *s,
                        struct tv_chunk_layout *chunk)
{
    const int head = args->config.num_layers + 1;
    for (int u = 0; u < chunk->args.num_units; u++) {
        struct tv_unit *unit = &chunk->units[u];
        unit->index = chunk->args.first_unit + u;
        unit->tied_first = -1;
        if (u > 0)
            unit->input = take_place(args, chunk, s->own.num * s->C, TV_RECOMPUTE_FULL);
        if (unit->index == head)
            place_head(args, s, chunk, &unit->head);
        else if (unit->index > 0)
            place_layer(args, s, chunk, &unit->layer);
    }
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
        place_units(args, &layout->sizes, chunk);
        chunk->first_slot = layout->activation_count;
        chunk->first_work = chunk->first_slot + chunk->slot_count * chunk->args.num_slots;
        layout->activation_count = chunk->first_work + chunk->work_count * chunk->args.num_works;
        chunk->first_tokens = layout->tokens_count;
        layout->tokens_count += layout->slot_tokens * chunk->args.num_slots;
    }
}

tv_status_t tv_model_layout_create(const struct tv_model_args *args,
                                   const struct tv_param_table *table, int T, int t,
                                   struct tv_model_layout *layout_out)
{
    struct tv_model_layout layout = {.sizes = sizes_of(args, T, t), .num_chunks = args->num_chunks};
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
