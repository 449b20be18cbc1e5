/* model/ends.c -- the first and the last unit: embedding, and final norm + output matrix + loss.
 * Also the norm that layers and head share. */
#include "model/model_internal.h"

float *tv_pass_at(const struct tv_pass *pass, struct tv_place place)
{
    return (place.in_work ? pass->work : pass->slot) + place.first;
}

struct tv_weight tv_pass_weight(const struct tv_pass *pass, int index)
{
    const int64_t first = pass->unit->weight_first[index];
    return (struct tv_weight){(const float *)pass->model->params.data + first,
                              (float *)pass->model->grads.data + first};
}

struct tv_weight tv_pass_output_matrix(const struct tv_pass *pass)
{
    const int64_t first = pass->unit->tied_first;
    if (first < 0)
        return tv_pass_weight(pass, pass->unit->num_weights - 1);
    return (struct tv_weight){(const float *)pass->model->params.data + first,
                              (float *)pass->model->grads.data + first};
}

tv_status_t tv_unit_norm_forward(const struct tv_pass *pass, struct tv_norm_use use, const float *x)
{
    const int is_llama = pass->model->args.config.family == TV_LLAMA;
    struct tv_norm_args args = {
        .rows = pass->sizes->rows,
        .cols = pass->sizes->C,
        .eps = pass->model->args.config.norm_eps,
        .x = x,
        .weight = tv_pass_weight(pass, use.weight).value,
        .y = tv_pass_at(pass, use.places.y),
        .rstd = tv_pass_at(pass, use.places.rstd),
    };
    if (is_llama)
        return pass->axis->kernels->rmsnorm_forward(pass->axis->stream, &args);
    args.bias = tv_pass_weight(pass, use.bias).value;
    args.mean = tv_pass_at(pass, use.places.mean);
    return pass->axis->kernels->layernorm_forward(pass->axis->stream, &args);
}

tv_status_t tv_unit_norm_backward(const struct tv_pass *pass, struct tv_norm_use use,
                                  const float *x, const float *dy, int add_dx, float *dx)
{
    const int is_llama = pass->model->args.config.family == TV_LLAMA;
    const struct tv_weight weight = tv_pass_weight(pass, use.weight);
    struct tv_norm_backward_args args = {
        .rows = pass->sizes->rows,
        .cols = pass->sizes->C,
        .dy = dy,
        .x = x,
        .weight = weight.value,
        .rstd = tv_pass_at(pass, use.places.rstd),
        .add_dx = add_dx,
        .dx = dx,
        .dweight = weight.grad,
    };
    if (is_llama)
        return pass->axis->kernels->rmsnorm_backward(pass->axis->stream, &args);
    args.mean = tv_pass_at(pass, use.places.mean);
    args.dbias = tv_pass_weight(pass, use.bias).grad;
    return pass->axis->kernels->layernorm_backward(pass->axis->stream, &args);
}

tv_status_t tv_embedding_unit_forward(const struct tv_pass *pass, float *y)
{
    const struct tv_model_sizes *s = pass->sizes;
    if (y == NULL)
        return TV_OK;
    TV_TRY(tv_vocab_embedding_forward(pass->axis, s->vocab, s->rows, s->C, pass->ids,
                                      tv_pass_weight(pass, 0).value, y));
    if (pass->model->args.config.family == TV_LLAMA)
        return TV_OK;
    const struct tv_embedding_args positions = {
        .rows = s->rows,
        .cols = s->C,
        .num = pass->model->args.config.max_positions,
        .ids = pass->positions,
        .table = tv_pass_weight(pass, 1).value,
        .accumulate = 1,
        .y = y,
    };
    return pass->axis->kernels->embedding_forward(pass->axis->stream, &positions);
}

tv_status_t tv_embedding_unit_backward_weight(const struct tv_pass *pass, const float *dy)
{
    const struct tv_model_sizes *s = pass->sizes;
    TV_TRY(tv_vocab_embedding_backward(pass->axis, s->vocab, s->rows, s->C, pass->ids, dy,
                                       tv_pass_weight(pass, 0).grad));
    if (pass->model->args.config.family == TV_LLAMA)
        return TV_OK;
    const struct tv_embedding_backward_args positions = {
        .rows = s->rows,
        .cols = s->C,
        .num = pass->model->args.config.max_positions,
        .ids = pass->positions,
        .dy = dy,
        .dtable = tv_pass_weight(pass, 1).grad,
    };
    return pass->axis->kernels->embedding_backward(pass->axis->stream, &positions);
}

static struct tv_norm_use final_norm(const struct tv_pass *pass)
{
    return (struct tv_norm_use){.weight = 0, .bias = 1, .places = pass->unit->head.norm};
}

/* logits = n W^T: the table [padded, C] is a column-parallel matrix stored [out, in]. */
static struct tv_linear output_linear(const struct tv_pass *pass)
{
    const struct tv_weight matrix = tv_pass_output_matrix(pass);
    return (struct tv_linear){.in = pass->sizes->C,
                              .out = pass->sizes->vocab.padded,
                              .layout = TV_WEIGHT_OUT_IN,
                              .weight = matrix.value,
                              .dweight = matrix.grad};
}

tv_status_t tv_head_forward(const struct tv_pass *pass, const float *x, double *loss_sum_out)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_head_places *h = &pass->unit->head;
    const struct tv_linear linear = output_linear(pass);
    float *logits = tv_pass_at(pass, h->logits);
    TV_TRY(tv_unit_norm_forward(pass, final_norm(pass), x));
    TV_TRY(tv_column_linear_forward(pass->axis, &linear, s->rows, tv_pass_at(pass, h->norm.y),
                                    logits, s->vocab.padded));
    return tv_vocab_cross_entropy_forward(
        pass->axis, s->vocab, s->rows, logits, pass->targets, tv_pass_at(pass, h->lse),
        pass->scratch + pass->model->layout.loss_work, loss_sum_out);
}

tv_status_t tv_head_backward(const struct tv_pass *pass, const float *x, float *grad)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_head_places *h = &pass->unit->head;
    const struct tv_linear linear = output_linear(pass);
    float *logits = tv_pass_at(pass, h->logits);
    float *dn = pass->scratch + pass->model->layout.tmp;
    if (pass->model->args.recompute == TV_RECOMPUTE_SELECTIVE)
        TV_TRY(tv_unit_norm_forward(pass, final_norm(pass), x));
    TV_TRY(tv_vocab_cross_entropy_backward(pass->axis, s->vocab, s->rows, logits, pass->targets,
                                           tv_pass_at(pass, h->lse)));
    TV_TRY(tv_column_linear_backward_input(pass->axis, &linear, s->rows, logits, s->vocab.padded, 0,
                                           dn));
    if (!pass->is_split)
        TV_TRY(tv_head_backward_weight(pass));
    TV_TRY(tv_tensor_sum(pass->axis, dn, s->rows * s->C));
    return tv_unit_norm_backward(pass, final_norm(pass), x, dn, 0, grad);
}

/* The logits have become their gradient. */
tv_status_t tv_head_backward_weight(const struct tv_pass *pass)
{
    const struct tv_head_places *h = &pass->unit->head;
    const struct tv_linear linear = output_linear(pass);
    return tv_linear_backward_weight(pass->axis, &linear, pass->sizes->rows,
                                     tv_pass_at(pass, h->norm.y), pass->sizes->C,
                                     tv_pass_at(pass, h->logits), pass->sizes->vocab.padded);
}
