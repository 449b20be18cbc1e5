/* model/ends.c -- the first and the last unit: embedding, and final norm + output matrix + loss.
 * Also the norm that layers and head share.
 *
 * The head's work of a training micro-batch is all in its backward, chunk of rows by chunk of rows:
 * logits, loss, their gradient in place, dn, dW. So logits of more than a chunk never exist, and
 * nothing but x is kept from the forward (docs/decisions/0018). */
#include "model/model_internal.h"

void *tv_pass_at(const struct tv_pass *pass, struct tv_place place)
{
    char *const rooms[] = {
        [TV_IN_SLOT] = pass->slot, [TV_IN_WORK] = pass->work, [TV_IN_SCRATCH] = pass->scratch};
    return rooms[place.room] + place.first;
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

int tv_pass_adds_table(const struct tv_pass *pass)
{
    const int given = pass->model->args.config.is_tied ? TV_GIVEN_TIED : TV_GIVEN_OTHERS;
    return (pass->memory.given & given) != 0;
}

tv_status_t tv_unit_norm_forward(const struct tv_pass *pass, struct tv_norm_use use,
                                 struct tv_residual x)
{
    const struct tv_model_sizes *s = pass->sizes;
    void *y = tv_pass_at(pass, use.places.y);
    struct tv_norm_args args = {
        .rows = s->own.num,
        .cols = s->C,
        .eps = pass->model->args.config.norm_eps,
        .x = x.x,
        .added = x.added,
        .sum = x.sum,
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
        .accumulate = (pass->memory.given & TV_GIVEN_NORMS) != 0,
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

/* A table's gradient can only be added to, here and there: zeros first, unless it holds something. */
static tv_status_t clear_table(const struct tv_pass *pass, int adds, float *grad, int64_t rows)
{
    const size_t bytes = (size_t)(rows * pass->sizes->C) * sizeof(*grad);
    return adds ? TV_OK : tv_stream_zero(pass->axis->stream, grad, bytes);
}

tv_status_t tv_embedding_unit_backward_weight(const struct tv_pass *pass, const void *dy)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_vocab_lookup lookup = lookup_of(pass);
    const int64_t max_positions = pass->model->args.config.max_positions;
    struct tv_row_gather *gather = &pass->model->gather;
    float *table = tv_pass_weight(pass, 0).grad;
    TV_TRY(tv_unit_branch_gradient(pass, TV_DROPOUT_EMBEDDING, dy));
    TV_TRY(tv_row_gather_finish(gather));
    const void *whole = gather->whole;
    TV_TRY(clear_table(pass, tv_pass_adds_table(pass), table, lookup.shard.padded));
    TV_TRY(tv_vocab_embedding_backward(pass->axis, &lookup, whole, table));
    if (pass->model->args.config.family == TV_LLAMA)
        return TV_OK;
    const struct tv_embedding_backward_args positions = {
        .rows = s->rows,
        .cols = s->C,
        .num = max_positions,
        .ids = pass->positions,
        .dy = whole,
        .dtable = tv_pass_weight(pass, 1).grad,
    };
    TV_TRY(
        clear_table(pass, pass->memory.given & TV_GIVEN_OTHERS, positions.dtable, max_positions));
    return pass->axis->kernels->embedding_backward(pass->axis->stream, &positions);
}

static struct tv_norm_use final_norm(const struct tv_pass *pass)
{
    return (struct tv_norm_use){.weight = 0, .bias = 1, .places = pass->model->layout.head.norm};
}

/* x -> all rows of its norm. Chunks of the loss are the same rows on all ranks, so nobody begins
 * with the rows that it has already. */
static tv_status_t head_norm(const struct tv_pass *pass, const void *x)
{
    TV_TRY(tv_unit_norm_forward(pass, final_norm(pass), tv_residual_of(x)));
    return tv_row_gather_finish(&pass->model->gather);
}

/* logits = n W^T: the table [padded, C] is a column-parallel matrix stored [out, in]. */
static struct tv_linear output_linear(const struct tv_pass *pass)
{
    const struct tv_weight matrix = tv_pass_output_matrix(pass);
    return (struct tv_linear){.in = pass->sizes->C,
                              .out = pass->sizes->vocab.padded,
                              .layout = TV_WEIGHT_OUT_IN,
                              .weight = matrix.value,
                              .dweight = matrix.grad,
                              .accumulate = tv_pass_adds_table(pass)};
}

/* A chunk of rows: their n, and what is made of them. */
struct head_chunk {
    struct tv_row_shard rows;
    const void *n;
    struct tv_linear linear;
    struct tv_vocab_loss loss;
};

/* Of all rows of the micro-batch. */
static double *row_losses(const struct tv_pass *pass)
{
    return tv_pass_at(pass, pass->model->layout.head.losses);
}

static struct head_chunk chunk_at(const struct tv_pass *pass, int index)
{
    const struct tv_model_sizes *s = pass->sizes;
    const struct tv_head_places *h = &pass->model->layout.head;
    const int64_t first = index * h->chunks.rows, left = s->rows - first;
    const struct tv_row_shard rows = {first, left < h->chunks.rows ? left : h->chunks.rows};
    struct tv_linear linear = output_linear(pass);
    linear.accumulate |= index > 0; /* to the part of the chunks before */
    return (struct head_chunk){
        .rows = rows,
        .n = tv_pass_element(pass, tv_pass_at(pass, h->norm.y), first * s->C),
        .linear = linear,
        .loss = {.shard = s->vocab,
                 .rows = rows.num,
                 .logits = tv_pass_at(pass, h->logits),
                 .targets = pass->targets + first,
                 .row_lse = tv_pass_at(pass, h->lse),
                 .row_loss = row_losses(pass) + first,
                 .label_smoothing = pass->step > 0 ? pass->model->args.label_smoothing : 0,
                 .work = tv_pass_at(pass, h->work)}};
}

static tv_status_t chunk_logits(const struct tv_pass *pass, const struct head_chunk *chunk)
{
    return tv_column_linear_forward(pass->axis, &chunk->linear, chunk->rows.num, chunk->n,
                                    chunk->loss.logits, pass->sizes->vocab.padded);
}

static tv_status_t sum_losses(const struct tv_pass *pass, double *loss_sum_out)
{
    return tv_vocab_loss_sum(pass->axis, pass->sizes->rows, row_losses(pass),
                             pass->model->host_losses, loss_sum_out);
}

tv_status_t tv_head_loss(const struct tv_pass *pass, const void *x, double *loss_sum_out)
{
    TV_TRY(head_norm(pass, x));
    for (int i = 0; i < pass->model->layout.head.chunks.num; i++) {
        const struct head_chunk chunk = chunk_at(pass, i);
        TV_TRY(chunk_logits(pass, &chunk));
        TV_TRY(tv_vocab_cross_entropy_forward(pass->axis, &chunk.loss));
    }
    return sum_losses(pass, loss_sum_out);
}

/* The logits give the loss and become their gradient, and that dn of the chunk's rows and a part of dW. The sum of all
 * dn starts as soon as they are there. */
static tv_status_t backward_chunk(const struct tv_pass *pass, const struct head_chunk *chunk)
{
    const struct tv_model_sizes *s = pass->sizes;
    void *dn =
        tv_pass_element(pass, pass->scratch + pass->model->layout.whole, chunk->rows.first * s->C);
    TV_TRY(tv_vocab_cross_entropy(pass->axis, &chunk->loss));
    TV_TRY(tv_column_linear_backward_input(pass->axis, &chunk->linear, chunk->rows.num,
                                           chunk->loss.logits, s->vocab.padded, 0, dn));
    if (chunk->rows.first + chunk->rows.num == s->rows)
        TV_TRY(tv_unit_start_norm_sum(pass));
    return tv_column_linear_backward_weight(pass->axis, &chunk->linear, chunk->rows.num, chunk->n,
                                            chunk->loss.logits, s->vocab.padded);
}

tv_status_t tv_head_backward(const struct tv_pass *pass, const void *x, void *grad,
                             double *loss_sum_out)
{
    TV_TRY(head_norm(pass, x));
    for (int i = 0; i < pass->model->layout.head.chunks.num; i++) {
        const struct head_chunk chunk = chunk_at(pass, i);
        TV_TRY(chunk_logits(pass, &chunk));
        TV_TRY(backward_chunk(pass, &chunk));
    }
    TV_TRY(tv_unit_norm_backward(pass, final_norm(pass), x, 0, grad));
    return loss_sum_out != NULL ? sum_losses(pass, loss_sum_out) : TV_OK;
}

tv_status_t tv_head_logits(const struct tv_pass *pass, const void *x, int64_t row,
                           const void **own_out)
{
    const struct tv_head_places *h = &pass->model->layout.head;
    const struct tv_linear linear = output_linear(pass);
    void *logits = tv_pass_at(pass, h->logits);
    TV_TRY(head_norm(pass, x));
    TV_TRY(tv_column_linear_forward(
        pass->axis, &linear, 1,
        tv_pass_element(pass, tv_pass_at(pass, h->norm.y), row * pass->sizes->C), logits,
        pass->sizes->vocab.padded));
    *own_out = logits;
    return TV_OK;
}
