/* model/layer.c -- one transformer layer, pre-norm: mid = x + proj(attention(norm(x)));
 * y = mid + ff(norm(mid)).
 *
 * Sums over the tensor axis: two in forward (behind the row matrices), two in backward (before the
 * norms). */
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
    const struct tv_layer_places *l = &pass->unit->layer;
    return (struct tv_norm_use){.weight = is_llama(pass) ? (int)LLAMA_NORM1 : (int)GPT2_LN1,
                                .bias = GPT2_LN1_BIAS,
                                .y = l->n1,
                                .mean = l->mean1,
                                .rstd = l->rstd1};
}

static struct tv_norm_use norm2(const struct tv_pass *pass)
{
    const struct tv_layer_places *l = &pass->unit->layer;
    return (struct tv_norm_use){.weight = is_llama(pass) ? (int)LLAMA_NORM2 : (int)GPT2_LN2,
                                .bias = GPT2_LN2_BIAS,
                                .y = l->n2,
                                .mean = l->mean2,
                                .rstd = l->rstd2};
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
                               .dweight = w.grad};
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

/* n2 -> act [rows, F] */
static tv_status_t ff_up_forward(const struct tv_pass *pass)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_layer_places *l = &pass->unit->layer;
    const float *n2 = pass->slot + l->n2;
    float *ff = pass->slot + l->ff, *act = pass->slot + l->act;
    if (!is_llama(pass)) {
        const struct tv_linear fc = matrix(pass, s->C, s->F, GPT2_FC, GPT2_FC_BIAS);
        TV_TRY(tv_column_linear_forward(pass->axis, &fc, s->rows, n2, ff, s->F));
        const struct tv_gelu_args gelu = {.count = s->rows * s->F, .x = ff, .y = act};
        return pass->axis->kernels->gelu_forward(pass->axis->stream, &gelu);
    }
    const struct tv_linear gate = matrix(pass, s->C, s->F, LLAMA_GATE, -1),
                           up = matrix(pass, s->C, s->F, LLAMA_UP, -1);
    TV_TRY(tv_column_linear_forward(pass->axis, &gate, s->rows, n2, ff, 2 * s->F));
    TV_TRY(tv_column_linear_forward(pass->axis, &up, s->rows, n2, ff + s->F, 2 * s->F));
    const struct tv_swiglu_args swiglu = {.rows = s->rows,
                                          .cols = s->F,
                                          .ld_gate = 2 * s->F,
                                          .ld_up = 2 * s->F,
                                          .ld_y = s->F,
                                          .gate = ff,
                                          .up = ff + s->F,
                                          .y = act};
    return pass->axis->kernels->swiglu_forward(pass->axis->stream, &swiglu);
}

/* d_act -> dn2, partial over the tensor axis */
static tv_status_t ff_up_backward(const struct tv_pass *pass, float *d_act, float *dn2)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_layer_places *l = &pass->unit->layer;
    const float *n2 = pass->slot + l->n2, *ff = pass->slot + l->ff;
    float *d_ff = pass->scratch + pass->model->layout.d_ff;
    if (!is_llama(pass)) {
        const struct tv_linear fc = matrix(pass, s->C, s->F, GPT2_FC, GPT2_FC_BIAS);
        const struct tv_gelu_backward_args gelu = {
            .count = s->rows * s->F, .x = ff, .dy = d_act, .dx = d_ff};
        TV_TRY(pass->axis->kernels->gelu_backward(pass->axis->stream, &gelu));
        return tv_column_linear_backward(pass->axis, &fc, s->rows, n2, d_ff, s->F, 0, dn2);
    }
    const struct tv_linear gate = matrix(pass, s->C, s->F, LLAMA_GATE, -1),
                           up = matrix(pass, s->C, s->F, LLAMA_UP, -1);
    const int64_t ld = 2 * s->F;
    const struct tv_swiglu_backward_args swiglu = {.rows = s->rows,
                                                   .cols = s->F,
                                                   .ld_gate = ld,
                                                   .ld_up = ld,
                                                   .ld_dy = s->F,
                                                   .ld_dgate = ld,
                                                   .ld_dup = ld,
                                                   .gate = ff,
                                                   .up = ff + s->F,
                                                   .dy = d_act,
                                                   .d_gate = d_ff,
                                                   .d_up = d_ff + s->F};
    TV_TRY(pass->axis->kernels->swiglu_backward(pass->axis->stream, &swiglu));
    TV_TRY(tv_column_linear_backward(pass->axis, &gate, s->rows, n2, d_ff, ld, 0, dn2));
    return tv_column_linear_backward(pass->axis, &up, s->rows, n2, d_ff + s->F, ld, 1, dn2);
}

static tv_status_t add(const struct tv_pass *pass, const float *a, float *y)
{
    const struct tv_add_args args = {
        .count = pass->sizes->rows * pass->sizes->C, .a = a, .b = y, .y = y};
    return pass->axis->kernels->add(pass->axis->stream, &args);
}

tv_status_t tv_layer_forward(const struct tv_pass *pass, const float *x, float *y)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_layer_places *l = &pass->unit->layer;
    float *mid = pass->slot + l->mid;
    const struct tv_linear proj = attention_out(pass), down = ff_down(pass);

    TV_TRY(tv_unit_norm_forward(pass, norm1(pass), x));
    TV_TRY(tv_attention_part_forward(pass));
    TV_TRY(tv_row_linear_forward(pass->axis, &proj, s->rows, pass->slot + l->att, s->q_cols, mid));
    TV_TRY(add(pass, x, mid));

    TV_TRY(tv_unit_norm_forward(pass, norm2(pass), mid));
    TV_TRY(ff_up_forward(pass));
    TV_TRY(tv_row_linear_forward(pass->axis, &down, s->rows, pass->slot + l->act, s->F, y));
    return add(pass, mid, y);
}

tv_status_t tv_layer_backward(const struct tv_pass *pass, const float *x, float *grad)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_layer_places *l = &pass->unit->layer;
    float *dn = pass->scratch + pass->model->layout.tmp;
    float *d_act = pass->scratch + pass->model->layout.d_act,
          *d_att = pass->scratch + pass->model->layout.d_att;
    const struct tv_linear proj = attention_out(pass), down = ff_down(pass);

    /* grad is dy, and stays in place as the residual's share of d(mid). */
    TV_TRY(tv_row_linear_backward(pass->axis, &down, s->rows, pass->slot + l->act, s->F, grad,
                                  d_act, s->F));
    TV_TRY(ff_up_backward(pass, d_act, dn));
    TV_TRY(tv_tensor_sum(pass->axis, dn, s->rows * s->C));
    TV_TRY(tv_unit_norm_backward(pass, norm2(pass), pass->slot + l->mid, dn, 1, grad));

    /* grad is d(mid), and stays as the residual's share of dx. */
    TV_TRY(tv_row_linear_backward(pass->axis, &proj, s->rows, pass->slot + l->att, s->q_cols, grad,
                                  d_att, s->q_cols));
    TV_TRY(tv_attention_part_backward(pass, d_att, dn));
    TV_TRY(tv_tensor_sum(pass->axis, dn, s->rows * s->C));
    return tv_unit_norm_backward(pass, norm1(pass), x, dn, 1, grad);
}
