/* model/attention.c -- n1 -> query, key, value -> rotary -> attention: the part of a layer that
 * this rank's heads do.
 *
 * qkv [rows, q_cols + 2 kv_cols] holds query, key and value side by side; GPT-2 has one fused
 * matrix for them, Llama three. With fewer kv heads than tensor ranks, several ranks hold the same
 * key and value matrices and each computes a part of their gradients (model.c sums them). */
#include "model/model_internal.h"

/* Indices of the unit's weights, in table order. */
enum { GPT2_ATTN_WEIGHT = 2, GPT2_ATTN_BIAS = 3 };
enum { LLAMA_Q = 1, LLAMA_K = 2, LLAMA_V = 3 };

static struct tv_linear gpt2_fused(const struct tv_pass *pass)
{
    const struct tv_weight weight = tv_pass_weight(pass, GPT2_ATTN_WEIGHT),
                           bias = tv_pass_weight(pass, GPT2_ATTN_BIAS);
    return (struct tv_linear){.in = pass->sizes->C,
                              .out = pass->sizes->qkv_cols,
                              .layout = TV_WEIGHT_IN_OUT,
                              .weight = weight.value,
                              .bias = bias.value,
                              .dweight = weight.grad,
                              .dbias = bias.grad,
                              .accumulate = (pass->memory.given & TV_GIVEN_OTHERS) != 0};
}

static struct tv_linear llama_matrix(const struct tv_pass *pass, int index)
{
    const struct tv_weight weight = tv_pass_weight(pass, index);
    return (struct tv_linear){.in = pass->sizes->C,
                              .out = index == LLAMA_Q ? pass->sizes->q_cols : pass->sizes->kv_cols,
                              .layout = TV_WEIGHT_OUT_IN,
                              .weight = weight.value,
                              .dweight = weight.grad,
                              .accumulate = (pass->memory.given & TV_GIVEN_OTHERS) != 0};
}

/* First column of query, key or value in qkv. */
static int64_t column_of(const struct tv_model_sizes *s, int index)
{
    return index == LLAMA_Q ? 0 : s->q_cols + (index == LLAMA_V ? s->kv_cols : 0);
}

static tv_status_t rotate(const struct tv_pass *pass, void *qkv, int inverse)
{
    const struct tv_model_sizes *s = pass->sizes;
    struct tv_rotary_args args = {
        .rows = s->rows,
        .ld_x = s->ld_qkv,
        .seq_length = pass->model->args.seq_length,
        .num_heads = s->num_heads,
        .head_dim = s->head_dim,
        .inverse = inverse,
        .theta = pass->model->args.config.rope_theta,
        .x = qkv,
        .positions = pass->own_positions,
    };
    TV_TRY(pass->axis->kernels->rotary(pass->axis->stream, &args));
    args.num_heads = s->num_kv_heads;
    args.x = tv_pass_element(pass, qkv, s->q_cols);
    return pass->axis->kernels->rotary(pass->axis->stream, &args);
}

/* n1, qkv: of `rows` rows */
static tv_status_t multiply(const struct tv_pass *pass, int64_t rows, const void *n1, void *qkv)
{
    const struct tv_model_sizes *s = pass->sizes;
    if (pass->model->args.config.family == TV_GPT2) {
        const struct tv_linear fused = gpt2_fused(pass);
        return tv_column_linear_forward(pass->axis, &fused, rows, n1, qkv, s->ld_qkv);
    }
    for (int index = LLAMA_Q; index <= LLAMA_V; index++) {
        const struct tv_linear linear = llama_matrix(pass, index);
        TV_TRY(tv_column_linear_forward(pass->axis, &linear, rows, n1,
                                        tv_pass_element(pass, qkv, column_of(s, index)),
                                        s->ld_qkv));
    }
    return TV_OK;
}

/* The rows of n1 as they are gathered -> qkv */
static tv_status_t project(const struct tv_pass *pass, void *qkv)
{
    const struct tv_model_sizes *s = pass->sizes;
    struct tv_row_gather *n1 = &pass->model->gather;
    for (int i = 0; i < n1->num_parts; i++) {
        struct tv_row_shard part;
        TV_TRY(tv_row_gather_next(n1, &part));
        TV_TRY(multiply(pass, part.num,
                        tv_tensor_const_at(pass->axis, n1->whole, part.first * s->C),
                        tv_pass_element(pass, qkv, part.first * s->ld_qkv)));
    }
    return pass->model->args.config.family == TV_LLAMA ? rotate(pass, qkv, 0) : TV_OK;
}

/* dn1 = sum over the three matrices, partial over the tensor axis */
static tv_status_t project_backward(const struct tv_pass *pass, const void *d_qkv, void *dn1)
{
    const struct tv_model_sizes *s = pass->sizes;
    if (pass->model->args.config.family == TV_GPT2) {
        const struct tv_linear fused = gpt2_fused(pass);
        return tv_column_linear_backward_input(pass->axis, &fused, s->rows, d_qkv, s->ld_qkv, 0,
                                               dn1);
    }
    for (int index = LLAMA_Q; index <= LLAMA_V; index++) {
        const struct tv_linear linear = llama_matrix(pass, index);
        TV_TRY(tv_column_linear_backward_input(
            pass->axis, &linear, s->rows,
            tv_tensor_const_at(pass->axis, d_qkv, column_of(s, index)), s->ld_qkv, index != LLAMA_Q,
            dn1));
    }
    return TV_OK;
}

tv_status_t tv_attention_part_backward_weight(const struct tv_pass *pass, const void *d_qkv)
{
    const struct tv_model_sizes *s = pass->sizes;
    const void *n1 = tv_pass_at(pass, pass->unit->layer.norm1.y);
    if (pass->model->args.config.family == TV_GPT2) {
        const struct tv_linear fused = gpt2_fused(pass);
        return tv_column_linear_backward_weight(pass->axis, &fused, s->rows, n1, d_qkv, s->ld_qkv);
    }
    for (int index = LLAMA_Q; index <= LLAMA_V; index++) {
        const struct tv_linear linear = llama_matrix(pass, index);
        TV_TRY(tv_column_linear_backward_weight(
            pass->axis, &linear, s->rows, n1,
            tv_tensor_const_at(pass->axis, d_qkv, column_of(s, index)), s->ld_qkv));
    }
    return TV_OK;
}

tv_status_t tv_attention_part_forward(const struct tv_pass *pass)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_layer_places *l = &pass->unit->layer;
    void *qkv = tv_pass_at(pass, l->qkv);
    TV_TRY(project(pass, qkv));
    const struct tv_attention_args args = {
        .batch = pass->model->args.micro_batch,
        .seq_length = pass->model->args.seq_length,
        .num_heads = s->num_heads,
        .num_kv_heads = s->num_kv_heads,
        .head_dim = s->head_dim,
        .q = qkv,
        .k = tv_pass_element(pass, qkv, s->q_cols),
        .v = tv_pass_element(pass, qkv, s->q_cols + s->kv_cols),
        .ld_q = s->ld_qkv,
        .ld_k = s->ld_qkv,
        .ld_v = s->ld_qkv,
        .o = tv_pass_at(pass, l->att),
        .ld_o = s->ld_att,
        .lse = tv_pass_at(pass, l->lse),
        .dropout = tv_pass_dropout(pass, TV_DROPOUT_ATTENTION),
        .first_keys = pass->first_keys,
    };
    return pass->axis->kernels->attention_forward(pass->axis->stream, &args);
}

tv_status_t tv_attention_part_backward(const struct tv_pass *pass, const void *d_att, void *dn1)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_layer_places *l = &pass->unit->layer;
    void *qkv = tv_pass_at(pass, l->qkv);
    void *d_qkv = pass->scratch + pass->model->layout.d_qkv;
    const struct tv_attention_backward_args args = {
        .batch = pass->model->args.micro_batch,
        .seq_length = pass->model->args.seq_length,
        .num_heads = s->num_heads,
        .num_kv_heads = s->num_kv_heads,
        .head_dim = s->head_dim,
        .q = qkv,
        .k = tv_pass_element(pass, qkv, s->q_cols),
        .v = tv_pass_element(pass, qkv, s->q_cols + s->kv_cols),
        .ld_q = s->ld_qkv,
        .ld_k = s->ld_qkv,
        .ld_v = s->ld_qkv,
        .o = tv_pass_at(pass, l->att),
        .d_o = d_att,
        .ld_o = s->ld_att,
        .ld_do = s->ld_att,
        .lse = tv_pass_at(pass, l->lse),
        .dq = d_qkv,
        .dk = tv_pass_element(pass, d_qkv, s->q_cols),
        .dv = tv_pass_element(pass, d_qkv, s->q_cols + s->kv_cols),
        .ld_dq = s->ld_qkv,
        .ld_dk = s->ld_qkv,
        .ld_dv = s->ld_qkv,
        .dropout = tv_pass_dropout(pass, TV_DROPOUT_ATTENTION),
        .first_keys = pass->first_keys,
        .work = (float *)(void *)(pass->scratch + pass->model->layout.attention_work),
    };
    TV_TRY(pass->axis->kernels->attention_backward(pass->axis->stream, &args));
    if (pass->model->args.config.family == TV_LLAMA)
        TV_TRY(rotate(pass, d_qkv, 1));
    TV_TRY(project_backward(pass, d_qkv, dn1));
    if (!pass->is_split)
        return TV_OK;
    return tv_stream_copy(pass->axis->stream, qkv, d_qkv,
                          tv_tensor_bytes(pass->axis, s->rows * s->ld_qkv));
}
