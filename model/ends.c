/* model/ends.c -- the first and the last unit: embedding, and final norm + output matrix + loss.
 * Also the norm that layers and head share. */
#include "model/model_internal.h"

void *tv_pass_at(const struct tv_pass *pass, struct tv_place place)
{
    return (place.in_work ? pass->work : pass->slot) + place.first;
}

struct tv_weight tv_pass_weight(const struct tv_pass *pass, int index)
{
    const struct tv_unit_memory *memory = &pass->memory;
    const int64_t place = pass->unit->weight_first[index] - pass->unit->first;
    return (struct tv_weight){
        memory->params != NULL ? tv_tensor_const_at(pass->axis, memory->params, place) : NULL,
        memory->grads != NULL ? memory->grads + place : NULL};
}

struct tv_weight tv_pass_output_matrix(const struct tv_pass *pass)
{
    if (pass->unit->tied_first < 0)
        return tv_pass_weight(pass, pass->unit->num_weights - 1);
    return (struct tv_weight){pass->memory.tied_params, pass->memory.tied_grads};
}

tv_status_t tv_unit_norm_forward(const struct tv_pass *pass, struct tv_norm_use use, const void *x)
{
    const struct tv_model_sizes *s = pass->sizes;
    void *y = tv_pass_at(pass, use.places.y);
    struct tv_norm_args args = {
        .rows = s->own.num,
        .cols = s->C,
        .eps = pass->model->args.config.norm_eps,
        .x = x,
        .weight = tv_pass_weight(pass, use.weight).value,
        .y = tv_pass_element(pass, y, s->own.first * s->C),
        .rstd = tv_pass_at(pass, use.places.rstd),
    };
    if (pass->model->args.config.family == TV_LLAMA) {
        TV_TRY(pass->axis->kernels->rmsnorm_forward(pass->axis->stream, &args));
    } else {
        args.bias = tv_pass_weight(pass, use.bias).value;
        args.mean = tv_pass_at(pass, use.places.mean);
        TV_TRY(pass->axis->kernels->layernorm_forward(pass->axis->stream, &args));
    }
    return tv_row_gather_start(pass->axis, s->rows, s->C, args.y, y, &pass->model->gather);
}

/* Where a norm finds the sum of its dy. */
static void *norm_dy(const struct tv_pass *pass)
{
    const struct tv_model_layout *layout = &pass->model->layout;
    return pass->scratch + (pass->axis->is_sequence_parallel ? layout->own : layout->whole);
}

tv_status_t tv_unit_start_norm_sum(const struct tv_pass *pass)
{
    void *partial = pass->scratch + pass->model->layout.whole;
    return tv_tensor_sum_rows_start(pass->axis, pass->sizes->rows, pass->sizes->C, partial,
                                    norm_dy(pass), &pass->model->sum);
}

tv_status_t tv_unit_norm_backward(const struct tv_pass *pass, struct tv_norm_use use, const void *x,
                                  int add_dx, void *dx)
{
    const struct tv_model_sizes *s = pass->sizes;
    const int is_llama = pass->model->args.config.family == TV_LLAMA;
    TV_TRY(tv_request_wait(&pass->model->sum));
    const struct tv_weight weight = tv_pass_weight(pass, use.weight);
    struct tv_norm_backward_args args = {
        .rows = s->own.num,
        .cols = s->C,
        .dy = norm_dy(pass),
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

static struct tv_vocab_lookup lookup_of(const struct tv_pass *pass)
{
    return (struct tv_vocab_lookup){pass->sizes->vocab, pass->sizes->rows, pass->sizes->C,
                                    pass->ids};
}

tv_status_t tv_embedding_unit_forward(const struct tv_pass *pass, void *y)
{
    const struct tv_model_sizes *s = pass->sizes;
    if (y == NULL)
        return TV_OK;
    const struct tv_vocab_lookup lookup = lookup_of(pass);
    TV_TRY(tv_vocab_embedding_forward(pass->axis, &lookup, tv_pass_weight(pass, 0).value,
                                      pass->scratch + pass->model->layout.whole, y));
    if (pass->model->args.config.family == TV_GPT2) {
        const struct tv_embedding_args positions = {
            .rows = s->own.num,
            .cols = s->C,
            .num = pass->model->args.config.max_positions,
            .ids = pass->positions + s->own.first,
            .table = tv_pass_weight(pass, 1).value,
            .accumulate = 1,
            .y = y,
        };
        TV_TRY(pass->axis->kernels->embedding_forward(pass->axis->stream, &positions));
    }
    return tv_unit_drop(pass, TV_DROPOUT_EMBEDDING, y);
}

tv_status_t tv_embedding_unit_backward_weight(const struct tv_pass *pass, const void *dy)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_vocab_lookup lookup = lookup_of(pass);
    struct tv_row_gather *gather = &pass->model->gather;
    TV_TRY(tv_unit_branch_gradient(pass, TV_DROPOUT_EMBEDDING, dy));
    TV_TRY(tv_row_gather_finish(gather));
    const void *whole = gather->whole;
    TV_TRY(tv_vocab_embedding_backward(pass->axis, &lookup, whole, tv_pass_weight(pass, 0).grad));
    if (pass->model->args.config.family == TV_LLAMA)
        return TV_OK;
    const struct tv_embedding_backward_args positions = {
        .rows = s->rows,
        .cols = s->C,
        .num = pass->model->args.config.max_positions,
        .ids = pass->positions,
        .dy = whole,
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

static struct tv_vocab_loss loss_of(const struct tv_pass *pass)
{
    const struct tv_head_places *h = &pass->unit->head;
    return (struct tv_vocab_loss){
        .shard = pass->sizes->vocab,
        .rows = pass->sizes->rows,
        .logits = tv_pass_at(pass, h->logits),
        .targets = pass->targets,
        .row_lse = tv_pass_at(pass, h->lse),
        .label_smoothing = pass->step > 0 ? pass->model->args.label_smoothing : 0,
    };
}

tv_status_t tv_head_forward(const struct tv_pass *pass, const void *x, double *loss_sum_out)
{
    const struct tv_model_sizes *s = pass->sizes;
    struct tv_row_gather *gather = &pass->model->gather;
    const struct tv_linear linear = output_linear(pass);
    const struct tv_vocab_loss loss = loss_of(pass);
    TV_TRY(tv_unit_norm_forward(pass, final_norm(pass), x));
    for (int i = 0; i < gather->num_parts; i++) {
        struct tv_row_shard part;
        TV_TRY(tv_row_gather_next(gather, &part));
        TV_TRY(tv_column_linear_forward(
            pass->axis, &linear, part.num,
            tv_tensor_const_at(pass->axis, gather->whole, part.first * s->C),
            tv_pass_element(pass, loss.logits, part.first * s->vocab.padded), s->vocab.padded));
    }
    return tv_vocab_cross_entropy_forward(
        pass->axis, &loss, (float *)(void *)(pass->scratch + pass->model->layout.loss_work),
        loss_sum_out);
}

tv_status_t tv_head_backward(const struct tv_pass *pass, const void *x, void *grad)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_linear linear = output_linear(pass);
    const struct tv_vocab_loss loss = loss_of(pass);
    void *dn = pass->scratch + pass->model->layout.whole;
    if (pass->model->args.recompute == TV_RECOMPUTE_SELECTIVE) {
        TV_TRY(tv_unit_norm_forward(pass, final_norm(pass), x));
        TV_TRY(tv_row_gather_finish(&pass->model->gather));
    }
    TV_TRY(tv_vocab_cross_entropy_backward(pass->axis, &loss));
    TV_TRY(tv_column_linear_backward_input(pass->axis, &linear, s->rows, loss.logits,
                                           s->vocab.padded, 0, dn));
    TV_TRY(tv_unit_start_norm_sum(pass));
    if (!pass->is_split)
        TV_TRY(tv_head_backward_weight(pass));
    return tv_unit_norm_backward(pass, final_norm(pass), x, 0, grad);
}

/* The logits have become their gradient. */
tv_status_t tv_head_backward_weight(const struct tv_pass *pass)
{
    const struct tv_head_places *h = &pass->unit->head;
    const struct tv_linear linear = output_linear(pass);
    return tv_column_linear_backward_weight(pass->axis, &linear, pass->sizes->rows,
                                            tv_pass_at(pass, h->norm.y),
                                            tv_pass_at(pass, h->logits), pass->sizes->vocab.padded);
}
