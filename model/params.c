/* model/params.c -- the ONE parameter table: every weight of both families, in order of units. */
#include "model/config.h"
#include <stdio.h>
#include <stdlib.h>

/* Rows are appended in order; `unit` and `prefix` are those of the unit at hand. */
struct builder {
    struct tv_param *params;
    int num, unit, branch;
    char prefix[64];
};

static struct tv_param *add(struct builder *b, const char *name, int64_t rows, int64_t cols,
                            int split_dim, tv_init_t init)
{
    struct tv_param *param = &b->params[b->num++];
    *param = (struct tv_param){
        .unit = b->unit,
        .branch = b->branch,
        .tied_unit = -1,
        .num_dims = cols > 0 ? 2 : 1,
        .shape = {rows, cols > 0 ? cols : 1},
        .split_dim = split_dim,
        .num_blocks = 1,
        .is_for_rows = cols == 0 && split_dim<0, .init = init, .has_decay = cols> 0,
    };
    snprintf(param->name, sizeof(param->name), "%s%s", b->prefix, name);
    return param;
}

static void gpt2_layer(struct builder *b, const struct tv_model_config *c)
{
    const int64_t C = c->hidden_size, F = c->ffn_size;
    add(b, "ln_1.weight", C, 0, -1, TV_INIT_ONES);
    add(b, "ln_1.bias", C, 0, -1, TV_INIT_ZEROS);
    add(b, "attn.c_attn.weight", C, 3 * C, 1, TV_INIT_NORMAL)->num_blocks =
        3; /* query, key, value */
    add(b, "attn.c_attn.bias", 3 * C, 0, 0, TV_INIT_ZEROS)->num_blocks = 3;
    add(b, "attn.c_proj.weight", C, C, 0, TV_INIT_NORMAL_RESIDUAL);
    add(b, "attn.c_proj.bias", C, 0, -1, TV_INIT_ZEROS);
    b->branch = 1;
    add(b, "ln_2.weight", C, 0, -1, TV_INIT_ONES);
    add(b, "ln_2.bias", C, 0, -1, TV_INIT_ZEROS);
    add(b, "mlp.c_fc.weight", C, F, 1, TV_INIT_NORMAL);
    add(b, "mlp.c_fc.bias", F, 0, 0, TV_INIT_ZEROS);
    add(b, "mlp.c_proj.weight", F, C, 0, TV_INIT_NORMAL_RESIDUAL);
    add(b, "mlp.c_proj.bias", C, 0, -1, TV_INIT_ZEROS);
}

static void llama_layer(struct builder *b, const struct tv_model_config *c)
{
    const int64_t C = c->hidden_size, F = c->ffn_size;
    const int64_t kv = C / c->num_heads * c->num_kv_heads;
    add(b, "input_layernorm.weight", C, 0, -1, TV_INIT_ONES);
    add(b, "self_attn.q_proj.weight", C, C, 0, TV_INIT_NORMAL);
    add(b, "self_attn.k_proj.weight", kv, C, 0, TV_INIT_NORMAL)->num_parts = c->num_kv_heads;
    add(b, "self_attn.v_proj.weight", kv, C, 0, TV_INIT_NORMAL)->num_parts = c->num_kv_heads;
    add(b, "self_attn.o_proj.weight", C, C, 1, TV_INIT_NORMAL_RESIDUAL);
    b->branch = 1;
    add(b, "post_attention_layernorm.weight", C, 0, -1, TV_INIT_ONES);
    add(b, "mlp.gate_proj.weight", F, C, 0, TV_INIT_NORMAL);
    add(b, "mlp.up_proj.weight", F, C, 0, TV_INIT_NORMAL);
    add(b, "mlp.down_proj.weight", C, F, 1, TV_INIT_NORMAL_RESIDUAL);
}

static void add_vocabulary(struct builder *b, const struct tv_model_config *c, const char *name,
                           int tied_unit)
{
    struct tv_param *param = add(b, name, c->vocab_size, c->hidden_size, 0, TV_INIT_NORMAL);
    param->is_vocabulary = 1;
    param->tied_unit = tied_unit;
}

tv_status_t tv_model_param_table(const struct tv_model_config *c, struct tv_param_table *table_out)
{
    enum { PER_LAYER = 12, OTHERS = 5 };
    const int is_gpt2 = c->family == TV_GPT2;
    const int head = c->num_layers + 1;
    const size_t max = (size_t)c->num_layers * PER_LAYER + OTHERS;
    struct builder b = {.params = calloc(max, sizeof(*b.params))};
    if (b.params == NULL)
        return TV_ERR(TV_NO_MEMORY, "parameter table of %d layers", c->num_layers);
    add_vocabulary(&b, c, is_gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight",
                   c->is_tied ? head : -1);
    if (is_gpt2)
        add(&b, "transformer.wpe.weight", c->max_positions, c->hidden_size, -1, TV_INIT_NORMAL);
    for (b.unit = 1; b.unit < head; b.unit++) {
        snprintf(b.prefix, sizeof(b.prefix), is_gpt2 ? "transformer.h.%d." : "model.layers.%d.",
                 b.unit - 1);
        if (is_gpt2)
            gpt2_layer(&b, c);
        else
            llama_layer(&b, c);
        b.branch = 0;
    }
    b.prefix[0] = '\0';
    add(&b, is_gpt2 ? "transformer.ln_f.weight" : "model.norm.weight", c->hidden_size, 0, -1,
        TV_INIT_ONES);
    if (is_gpt2)
        add(&b, "transformer.ln_f.bias", c->hidden_size, 0, -1, TV_INIT_ZEROS);
    if (!c->is_tied)
        add_vocabulary(&b, c, "lm_head.weight", -1);
    *table_out = (struct tv_param_table){b.num, b.params, head + 1};
    return TV_OK;
}
