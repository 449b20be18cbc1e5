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

static struct tv_model_sizes sizes_of(const struct tv_model_args *args, int T, int t)
{
    const struct tv_model_config *c = &args->config;
    struct tv_model_sizes s = {.T = T, .t = t, .C = c->hidden_size};
    s.rows = (int64_t)args->micro_batch * args->seq_length;
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

static void place_layer(const struct tv_model_args *args, const struct tv_model_sizes *s,
                        struct tv_layer_places *l, int64_t *end)
{
    const int is_llama = args->config.family == TV_LLAMA;
    l->n1 = take(end, s->rows * s->C);
    l->mean1 = take(end, is_llama ? 0 : s->rows);
    l->rstd1 = take(end, s->rows);
    l->qkv = take(end, s->rows * s->qkv_cols);
    l->att = take(end, s->rows * s->q_cols);
    l->lse = take(end, s->rows * s->num_heads);
    l->mid = take(end, s->rows * s->C);
    l->n2 = take(end, s->rows * s->C);
    l->mean2 = take(end, is_llama ? 0 : s->rows);
    l->rstd2 = take(end, s->rows);
    l->ff = take(end, s->rows * s->F * (is_llama ? 2 : 1));
    l->act = take(end, s->rows * s->F);
}

static void place_head(const struct tv_model_args *args, const struct tv_model_sizes *s,
                       struct tv_head_places *h, int64_t *end)
{
    h->norm = take(end, s->rows * s->C);
    h->mean = take(end, args->config.family == TV_LLAMA ? 0 : s->rows);
    h->rstd = take(end, s->rows);
    h->logits = take(end, s->rows * s->vocab.padded);
    h->lse = take(end, s->rows);
}

static void place_scratch(const struct tv_model_args *args, struct tv_model_layout *layout)
{
    const struct tv_model_sizes *s = &layout->sizes;
    int64_t *end = &layout->scratch_count;
    layout->grad = take(end, s->rows * s->C);
    layout->tmp = take(end, s->rows * s->C);
    layout->d_ff = take(end, s->rows * s->F * (args->config.family == TV_LLAMA ? 2 : 1));
    layout->d_act = take(end, s->rows * s->F);
    layout->d_qkv = take(end, s->rows * s->qkv_cols);
    layout->d_att = take(end, s->rows * s->q_cols);
    layout->work = take(end, 3 * s->rows);
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
    const int has_embedding = args->first_unit == 0;
    for (int u = layout->num_units - 1; u >= 0; u--) {
        struct tv_unit *unit = &layout->units[u];
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

static void place_units(const struct tv_model_args *args, struct tv_model_layout *layout)
{
    const int head = args->config.num_layers + 1;
    for (int u = 0; u < layout->num_units; u++) {
        struct tv_unit *unit = &layout->units[u];
        unit->index = args->first_unit + u;
        unit->tied_first = -1;
        unit->input = u == 0 ? -1 : take(&layout->slot_count, layout->sizes.rows * layout->sizes.C);
        if (unit->index == head)
            place_head(args, &layout->sizes, &unit->head, &layout->slot_count);
        else if (unit->index > 0)
            place_layer(args, &layout->sizes, &unit->layer, &layout->slot_count);
    }
}

tv_status_t tv_model_layout_create(const struct tv_model_args *args,
                                   const struct tv_param_table *table, int T, int t,
                                   struct tv_model_layout *layout_out)
{
    struct tv_model_layout layout = {.sizes = sizes_of(args, T, t), .num_units = args->num_units};
    layout.units = calloc((size_t)args->num_units, sizeof(*layout.units));
    layout.local = calloc((size_t)table->num_params, sizeof(*layout.local));
    if (layout.units == NULL || layout.local == NULL) {
        tv_model_layout_destroy(&layout);
        return TV_ERR(TV_NO_MEMORY, "layout of %d units", args->num_units);
    }
    place_units(args, &layout);
    place_weights(args, table, &layout);
    place_scratch(args, &layout);
    *layout_out = layout;
    return TV_OK;
}

void tv_model_layout_destroy(struct tv_model_layout *layout)
{
    free(layout->units);
    free(layout->local);
    layout->units = NULL;
    layout->local = NULL;
}

int64_t tv_model_tokens_count(const struct tv_model_args *args)
{
    return (int64_t)args->micro_batch * args->seq_length * (1 + 2 * (int64_t)args->num_slots);
}
