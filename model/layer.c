/* model/layer.c -- one transformer layer, pre-norm: mid = x + drop(proj(attention(norm(x))));
 * y = mid + drop(ff(norm(mid))).
 *
 * Sums over the tensor axis: two in forward (behind the row matrices), two in backward (before the
 * norms). Under sequence parallelism x, y, mid and their gradients are this rank's own rows; a sum
 * scatters its rows, and rows are gathered behind the norms and, in backward, before the row
 * matrices. */
#include "model/model_internal.h"

/* Indices of the unit's weights, in table order (model/params.c). */
enum {
    GPT2_LN1,
    GPT2_LN1_BIAS,
    GPT2_ATTN,
    GPT2_ATTN_BIAS,
    GPT2_PROJ,
    GPT2_PROJ_BIAS,
    GPT2_LN2,
    GPT2_LN2_BIAS,
    GPT2_FC,
    GPT2_FC_BIAS,
    GPT2_DOWN,
    GPT2_DOWN_BIAS
};
enum {
    LLAMA_NORM1,
    LLAMA_Q,
    LLAMA_K,
    LLAMA_V,
    LLAMA_O,
    LLAMA_NORM2,
    LLAMA_GATE,
    LLAMA_UP,
    LLAMA_DOWN
};

static int is_llama(const struct tv_pass *pass)
{
    return pass->model->args.config.family == TV_LLAMA;
}

static struct tv_norm_use norm1(const struct tv_pass *pass)
{
    return (struct tv_norm_use){.weight = is_llama(pass) ? (int)LLAMA_NORM1 : (int)GPT2_LN1,
                                .bias = GPT2_LN1_BIAS,
                                .places = pass->unit->layer.norm1};
}

static struct tv_norm_use norm2(const struct tv_pass *pass)
{
    return (struct tv_norm_use){.weight = is_llama(pass) ? (int)LLAMA_NORM2 : (int)GPT2_LN2,
                                .bias = GPT2_LN2_BIAS,
                                .places = pass->unit->layer.norm2};
}

/* A matrix of the unit: weight index, and bias index or -1. */
static struct tv_linear matrix(const struct tv_pass *pass, int64_t in, int64_t out, int weight,
                               int bias)
{
    const struct tv_weight w = tv_pass_weight(pass, weight);
    struct tv_linear linear = {.in = in,
                               .out = out,
                               .layout = is_llama(pass) ? TV_WEIGHT_OUT_IN : TV_WEIGHT_IN_OUT,
                               .weight = w.value,
                               .dweight = w.grad,
                               .accumulate = (pass->memory.given & TV_GIVEN_OTHERS) != 0};
    if (bias >= 0) {
        linear.bias = tv_pass_weight(pass, bias).value;
        linear.dbias = tv_pass_weight(pass, bias).grad;
    }
    return linear;
}

static struct tv_linear attention_out(const struct tv_pass *pass)
{
    return is_llama(pass)
               ? matrix(pass, pass->sizes->q_cols, pass->sizes->C, LLAMA_O, -1)
               : matrix(pass, pass->sizes->q_cols, pass->sizes->C, GPT2_PROJ, GPT2_PROJ_BIAS);
}

static struct tv_linear ff_down(const struct tv_pass *pass)
{
    return is_llama(pass) ? matrix(pass, pass->sizes->F, pass->sizes->C, LLAMA_DOWN, -1)
                          : matrix(pass, pass->sizes->F, pass->sizes->C, GPT2_DOWN, GPT2_DOWN_BIAS);
}

/* ff -> act [rows, F] */
static tv_status_t activate(const struct tv_pass *pass)
{
    const struct tv_model_sizes *s = pass->sizes;
    void *ff = tv_pass_at(pass, pass->unit->layer.ff),
         *act = tv_pass_at(pass, pass->unit->layer.act);
    if (!is_llama(pass)) {
        const struct tv_gelu_args gelu = {.count = s->rows * s->F, .x = ff, .y = act};
        return pass->axis->kernels->gelu_forward(pass->axis->stream, &gelu);
    }
    const struct tv_swiglu_args swiglu = {.rows = s->rows,
                                          .cols = s->F,
                                          .ld_gate = 2 * s->F,
                                          .ld_up = 2 * s->F,
                                          .ld_y = s->F,
                                          .gate = ff,
                                          .up = tv_pass_element(pass, ff, s->F),
                                          .y = act};
    return pass->axis->kernels->swiglu_forward(pass->axis->stream, &swiglu);
}

/* d_act -> d_ff, in the place of ff; of a whole backward also the gradient of the first matrix's bias */
static tv_status_t activate_backward(const struct tv_pass *pass, const void *d_act)
{
    const struct tv_model_sizes *s = pass->sizes;
    void *ff = tv_pass_at(pass, pass->unit->layer.ff), *up = tv_pass_element(pass, ff, s->F);
    if (!is_llama(pass)) {
        const struct tv_gelu_backward_args gelu = {
            .count = s->rows * s->F,
            .x = ff,
            .dy = d_act,
            .dx = ff,
            .dbias = pass->is_split ? NULL : tv_pass_weight(pass, GPT2_FC_BIAS).grad,
            .cols = s->F,
            .accumulate = (pass->memory.given & TV_GIVEN_OTHERS) != 0};
        return pass->axis->kernels->gelu_backward(pass->axis->stream, &gelu);
    }
    const struct tv_swiglu_backward_args swiglu = {.rows = s->rows,
                                                   .cols = s->F,
                                                   .ld_gate = 2 * s->F,
                                                   .ld_up = 2 * s->F,
                                                   .ld_dy = s->F,
                                                   .ld_dgate = 2 * s->F,
                                                   .ld_dup = 2 * s->F,
                                                   .gate = ff,
                                                   .up = up,
                                                   .dy = d_act,
                                                   .d_gate = ff,
                                                   .d_up = up};
    return pass->axis->kernels->swiglu_backward(pass->axis->stream, &swiglu);
}

/* The matrices of n2 -> ff; Llama has two, side by side. */
struct ff_up {
    int num;
    struct tv_linear linears[2];
};
static struct ff_up ff_up(const struct tv_pass *pass)
{
    const int64_t C = pass->sizes->C, F = pass->sizes->F;
    if (!is_llama(pass))
        return (struct ff_up){1, {matrix(pass, C, F, GPT2_FC, GPT2_FC_BIAS)}};
    return (struct ff_up){2,
                          {matrix(pass, C, F, LLAMA_GATE, -1), matrix(pass, C, F, LLAMA_UP, -1)}};
}

/* The rows of n2 as they are gathered -> ff */
static tv_status_t ff_up_forward(const struct tv_pass *pass)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct ff_up up = ff_up(pass);
    struct tv_row_gather *n2 = &pass->model->gather;
    const int64_t ld = up.num * s->F;
    for (int part = 0; part < n2->num_parts; part++) {
        struct tv_row_shard rows;
        TV_TRY(tv_row_gather_next(n2, &rows));
        void *ff = tv_pass_at(pass, pass->unit->layer.ff);
        for (int i = 0; i < up.num; i++)
            TV_TRY(tv_column_linear_forward(
                pass->axis, &up.linears[i], rows.num,
                tv_tensor_const_at(pass->axis, n2->whole, rows.first * s->C),
                tv_pass_element(pass, ff, rows.first * ld + i * s->F), ld));
    }
    return TV_OK;
}

/* d_ff -> dn2, partial over the tensor axis */
static tv_status_t ff_up_backward(const struct tv_pass *pass, void *dn2)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct ff_up up = ff_up(pass);
    void *d_ff = tv_pass_at(pass, pass->unit->layer.ff);
    for (int i = 0; i < up.num; i++)
        TV_TRY(tv_column_linear_backward_input(pass->axis, &up.linears[i], s->rows,
                                               tv_pass_element(pass, d_ff, i * s->F), up.num * s->F,
                                               i > 0, dn2));
    return TV_OK;
}

/* has_bias: its gradient, too */
static tv_status_t ff_up_backward_weight(const struct tv_pass *pass, int has_bias)
{
    const struct tv_model_sizes *s = pass->sizes;
    struct ff_up up = ff_up(pass);
    const void *n2 = tv_pass_at(pass, pass->unit->layer.norm2.y);
    void *d_ff = tv_pass_at(pass, pass->unit->layer.ff);
    if (!has_bias)
        up.linears[0].dbias = NULL;
    for (int i = 0; i < up.num; i++)
        TV_TRY(tv_column_linear_backward_weight(pass->axis, &up.linears[i], s->rows, n2,
                                                tv_pass_element(pass, d_ff, i * s->F),
                                                up.num * s->F));
    return TV_OK;
}

/* The rows of dy as they are gathered -> dx [rows, in], of a row matrix */
static tv_status_t row_backward_input(const struct tv_pass *pass, const struct tv_linear *linear,
                                      void *dx, int64_t ld_dx)
{
    struct tv_row_gather *dy = &pass->model->gather;
    for (int i = 0; i < dy->num_parts; i++) {
        struct tv_row_shard part;
        TV_TRY(tv_row_gather_next(dy, &part));
        TV_TRY(tv_row_linear_backward_input(
            pass->axis, linear, part.num,
            tv_tensor_const_at(pass->axis, dy->whole, part.first * pass->sizes->C),
            tv_pass_element(pass, dx, part.first * ld_dx), ld_dx));
    }
    return TV_OK;
}

/* dy: whole */
static tv_status_t down_backward_weight(const struct tv_pass *pass, const void *dy)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_linear down = ff_down(pass);
    return tv_row_linear_backward_weight(pass->axis, &down, s->rows,
                                         tv_pass_at(pass, pass->unit->layer.act), s->F, dy);
}

/* d_mid: whole */
static tv_status_t proj_backward_weight(const struct tv_pass *pass, const void *d_mid)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_linear proj = attention_out(pass);
    return tv_row_linear_backward_weight(pass->axis, &proj, s->rows,
                                         tv_pass_at(pass, pass->unit->layer.att), s->ld_att, d_mid);
}

static tv_status_t add(const struct tv_pass *pass, const void *a, void *y)
{
    const struct tv_add_args args = {
        .count = pass->sizes->own.num * pass->sizes->C, .a = a, .b = y, .y = y};
    return pass->axis->kernels->add(pass->axis->stream, &args);
}

tv_status_t tv_layer_forward(const struct tv_pass *pass, struct tv_residual x, int leaves_sum,
                             void *y)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_layer_places *l = &pass->unit->layer;
    void *mid = tv_pass_at(pass, l->mid), *room = pass->scratch + pass->model->layout.whole;
    const struct tv_linear proj = attention_out(pass), down = ff_down(pass);

    TV_TRY(tv_unit_norm_forward(pass, norm1(pass), x));
    TV_TRY(tv_attention_part_forward(pass));
    TV_TRY(tv_row_linear_forward(pass->axis, &proj, s->rows, tv_pass_at(pass, l->att), s->ld_att,
                                 room, mid));
    TV_TRY(tv_unit_drop(pass, TV_DROPOUT_MID, mid));

    const struct tv_residual sum = {x.added != NULL ? x.sum : x.x, mid, mid};
    TV_TRY(tv_unit_norm_forward(pass, norm2(pass), sum));
    TV_TRY(ff_up_forward(pass));
    TV_TRY(activate(pass));
    if (y == NULL)
        return TV_OK;
    TV_TRY(
        tv_row_linear_forward(pass->axis, &down, s->rows, tv_pass_at(pass, l->act), s->F, room, y));
    TV_TRY(tv_unit_drop(pass, TV_DROPOUT_FF, y));
    return leaves_sum ? TV_OK : add(pass, mid, y);
}

/* What selective recomputation did not keep. */
static tv_status_t recompute(const struct tv_pass *pass, const void *x)
{
    struct tv_row_gather *gather = &pass->model->gather;
    const void *mid = tv_pass_at(pass, pass->unit->layer.mid);
    TV_TRY(tv_unit_norm_forward(pass, norm1(pass), tv_residual_of(x)));
    TV_TRY(tv_row_gather_finish(gather));
    TV_TRY(tv_unit_norm_forward(pass, norm2(pass), tv_residual_of(mid)));
    TV_TRY(activate(pass));
    return tv_row_gather_finish(gather);
}

tv_status_t tv_layer_backward(const struct tv_pass *pass, const void *x, void *grad)
{
    const struct tv_model_sizes *s = pass->sizes;
    void *mid = tv_pass_at(pass, pass->unit->layer.mid);
    void *dn = pass->scratch + pass->model->layout.whole; /* partial */
    /* its rows are dead before dn is written: under sequence parallelism both lie there */
    const struct tv_row_gather *branch = &pass->model->gather;
    void *d_act = pass->scratch + pass->model->layout.d_act,
         *d_att = pass->scratch + pass->model->layout.d_att;
    const struct tv_linear proj = attention_out(pass), down = ff_down(pass);
    if (pass->model->args.recompute == TV_RECOMPUTE_SELECTIVE)
        TV_TRY(recompute(pass, x));

    /* grad is dy, and stays in place as the residual's share of d(mid). */
    TV_TRY(tv_unit_branch_gradient(pass, TV_DROPOUT_FF, grad));
    TV_TRY(row_backward_input(pass, &down, d_act, s->F));
    if (!pass->is_split)
        TV_TRY(down_backward_weight(pass, branch->whole));
    TV_TRY(activate_backward(pass, d_act));
    TV_TRY(ff_up_backward(pass, dn));
    TV_TRY(tv_unit_start_norm_sum(pass));
    if (!pass->is_split)
        TV_TRY(ff_up_backward_weight(pass, 0));
    TV_TRY(tv_unit_norm_backward(pass, norm2(pass), mid, 1, grad));
    if (!pass->is_split)
        TV_TRY(tv_pass_report(pass, 1));

    /* grad is d(mid), and stays as the residual's share of dx. */
    TV_TRY(tv_unit_branch_gradient(pass, TV_DROPOUT_MID, grad));
    TV_TRY(row_backward_input(pass, &proj, d_att, s->ld_att));
    if (pass->is_split)
        TV_TRY(tv_stream_copy(pass->axis->stream, mid, grad,
                              tv_tensor_bytes(pass->axis, s->own.num * s->C)));
    else
        TV_TRY(proj_backward_weight(pass, branch->whole));
    TV_TRY(tv_attention_part_backward(pass, d_att, dn));
    TV_TRY(tv_unit_start_norm_sum(pass));
    if (!pass->is_split)
        TV_TRY(tv_attention_part_backward_weight(pass, pass->scratch + pass->model->layout.d_qkv));
    return tv_unit_norm_backward(pass, norm1(pass), x, 1, grad);
}

tv_status_t tv_layer_backward_weight(const struct tv_pass *pass, const void *dy)
{
    const struct tv_layer_places *l = &pass->unit->layer;
    struct tv_row_gather *gather = &pass->model->gather;
    /* Column matrices do not need the rows that are gathered beside them. */
    TV_TRY(tv_unit_branch_gradient(pass, TV_DROPOUT_FF, dy));
    TV_TRY(ff_up_backward_weight(pass, 1));
    TV_TRY(tv_row_gather_finish(gather));
    TV_TRY(down_backward_weight(pass, gather->whole));
    TV_TRY(tv_pass_report(pass, 1));
    TV_TRY(tv_unit_branch_gradient(pass, TV_DROPOUT_MID, tv_pass_at(pass, l->mid)));
    TV_TRY(tv_attention_part_backward_weight(pass, tv_pass_at(pass, l->qkv)));
    TV_TRY(tv_row_gather_finish(gather));
    return proj_backward_weight(pass, gather->whole);
}
