/* model/chunk.c -- one micro-batch through one chunk: forward, backward, backward in two parts. */
#include "model/model_internal.h"

static tv_status_t pass_of(struct tv_model *model, const struct tv_model_call *call,
                           struct tv_pass *pass_out)
{
    const struct tv_model_layout *layout = &model->layout;
    const int has_works = model->args.recompute != TV_RECOMPUTE_NONE;
    if (call->chunk < 0 || call->chunk >= layout->num_chunks)
        return TV_ERR(TV_INVALID, "chunk %d of %d", call->chunk, layout->num_chunks);
    const struct tv_chunk_layout *chunk = &layout->chunks[call->chunk];
    if (call->slot < 0 || call->slot >= chunk->args.num_slots)
        return TV_ERR(TV_INVALID, "slot %d of %d in chunk %d", call->slot, chunk->args.num_slots,
                      call->chunk);
    if (has_works && (call->work < 0 || call->work >= chunk->args.num_works))
        return TV_ERR(TV_INVALID, "working set %d of %d in chunk %d", call->work,
                      chunk->args.num_works, call->chunk);
    const int64_t rows = layout->sizes.rows;
    char *activations = model->activations.data;
    int32_t *tokens = model->tokens.data;
    int32_t *ids = tokens + chunk->first_tokens + layout->slot_tokens * call->slot;
    int32_t *own_positions = model->args.resets_positions ? ids + 2 * rows : NULL;
    int32_t *last = ids + layout->slot_tokens - rows;
    *pass_out = (struct tv_pass){
        .model = model,
        .axis = &model->args.axis,
        .sizes = &layout->sizes,
        .chunk = chunk,
        .slot = activations + chunk->first_slot + chunk->slot_bytes * call->slot,
        .work = has_works ? activations + chunk->first_work + chunk->work_bytes * call->work : NULL,
        .scratch = model->scratch.data,
        .positions = own_positions != NULL ? own_positions : tokens,
        .own_positions = own_positions,
        .first_keys = model->args.resets_attention ? last : NULL,
        .ids = ids,
        .targets = ids + rows,
        .step = call->step,
        .first_token = call->first_sequence * model->args.seq_length,
    };
    return TV_OK;
}

/* Keep the micro-batch's tokens where backward finds them. */
static tv_status_t keep_tokens(const struct tv_pass *pass, const struct tv_model_call *call)
{
    const struct {
        int32_t *to;
        const int32_t *from;
    } kept[] = {{pass->ids, call->ids},
                {pass->targets, call->targets},
                {pass->own_positions, call->positions},
                {pass->first_keys, call->first_keys}};
    if ((pass->own_positions != NULL && call->positions == NULL) ||
        (pass->first_keys != NULL && call->first_keys == NULL))
        return TV_ERR(TV_INVALID, "chunk %d: a call without the starts of its documents",
                      call->chunk);
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        if (kept[i].to != NULL && kept[i].from != NULL)
            TV_TRY(tv_stream_copy(pass->axis->stream, kept[i].to, kept[i].from,
                                  (size_t)pass->sizes->rows * sizeof(int32_t)));
    }
    return TV_OK;
}

static tv_status_t copy_activation(const struct tv_pass *pass, void *to, const void *from)
{
    return tv_stream_copy(pass->axis->stream, to, from,
                          tv_tensor_bytes(pass->axis, pass->sizes->own.num * pass->sizes->C));
}

static int is_head(const struct tv_pass *pass, const struct tv_unit *unit)
{
    return unit->index == pass->model->args.config.num_layers + 1;
}

static int is_layer(const struct tv_pass *pass, const struct tv_unit *unit)
{
    return unit->index > 0 && !is_head(pass, unit);
}

/* x: the chunk's own input */
static const void *input_of(const struct tv_pass *pass, int u, const void *x)
{
    return u == 0 ? x : tv_pass_at(pass, pass->chunk->units[u].input);
}

/* Unit u of the chunk and its memory; `next` is the one that follows in this pass, or negative. */
static tv_status_t enter(struct tv_pass *pass, int u, int next, tv_unit_use_t use)
{
    struct tv_model *model = pass->model;
    const struct tv_unit_store *store = model->args.store;
    const struct tv_unit *unit = pass->unit = &pass->chunk->units[u];
    if (store != NULL)
        return store->acquire(store->context, unit->index,
                              next >= 0 ? pass->chunk->units[next].index : -1, use, &pass->memory);
    void *params = model->params.data;
    float *grads = model->grads.data;
    const int is_tied = unit->tied_first >= 0;
    pass->memory =
        (struct tv_unit_memory){tv_pass_element(pass, params, unit->first), grads + unit->first,
                                is_tied ? tv_pass_element(pass, params, unit->tied_first) : NULL,
                                is_tied ? grads + unit->tied_first : NULL,
                                model->given[unit - model->layout.units] | model->given_tied};
    return TV_OK;
}

static tv_status_t leave(const struct tv_pass *pass, tv_unit_use_t use)
{
    static const unsigned char gives[] = {[TV_USE_BACKWARD] = TV_GIVEN_NORMS | TV_GIVEN_OTHERS,
                                          [TV_USE_BACKWARD_INPUT] = TV_GIVEN_NORMS,
                                          [TV_USE_BACKWARD_WEIGHT] = TV_GIVEN_OTHERS};
    struct tv_model *model = pass->model;
    const struct tv_unit_store *store = model->args.store;
    if (store != NULL)
        return store->release(store->context, pass->unit->index, use);
    model->given[pass->unit - model->layout.units] |= gives[use];
    if (!is_layer(pass, pass->unit) && gives[use] & TV_GIVEN_OTHERS)
        model->given_tied = TV_GIVEN_TIED;
    return TV_OK;
}

/* Without a loss the head has nothing to do, and its weights are not asked for. */
static int num_forward_units(const struct tv_pass *pass, int with_loss)
{
    const int num_units = pass->chunk->args.num_units;
    return num_units - (!with_loss && is_head(pass, &pass->chunk->units[num_units - 1]));
}

/* loss_sum_out NULL: no loss. */
static tv_status_t forward_units(struct tv_pass *pass, const void *x, void *y, double *loss_sum_out)
{
    const struct tv_chunk_layout *chunk = pass->chunk;
    const int num = num_forward_units(pass, loss_sum_out != NULL);
    struct tv_residual left = {0}; /* what a layer left to the next one to add */
    for (int u = 0; u < num; u++) {
        const int is_last = u + 1 == chunk->args.num_units;
        const void *in = input_of(pass, u, x);
        void *out = is_last ? y : tv_pass_at(pass, chunk->units[u + 1].input);
        const int leaves_sum = u + 1 < num && is_layer(pass, &chunk->units[u + 1]);
        TV_TRY(enter(pass, u, u + 1 < num ? u + 1 : -1, TV_USE_FORWARD));
        if (pass->unit->index == 0)
            TV_TRY(tv_embedding_unit_forward(pass, out));
        else if (is_head(pass, pass->unit))
            TV_TRY(tv_head_loss(pass, in, loss_sum_out));
        else
            TV_TRY(tv_layer_forward(pass, left.x != NULL ? left : tv_residual_of(in), leaves_sum,
                                    out));
        left = (struct tv_residual){0};
        if (leaves_sum && is_layer(pass, pass->unit))
            left = (struct tv_residual){tv_pass_at(pass, pass->unit->layer.mid), out, out};
        TV_TRY(leave(pass, TV_USE_FORWARD));
    }
    return TV_OK;
}

tv_status_t tv_model_forward(struct tv_model *model, const struct tv_model_call *call)
{
    struct tv_pass pass;
    TV_TRY(pass_of(model, call, &pass));
    TV_TRY(keep_tokens(&pass, call));
    return forward_units(&pass, call->x, call->y, call->step == 0 ? call->loss_sum_out : NULL);
}

/* Local tables follow each other in the vocabulary, so the padding is behind all of it. all: floats, in whose place
 * stored elements arrive. */
static tv_status_t gather_logits(const struct tv_pass *pass, const void *own, float *all,
                                 float *out)
{
    const struct tv_vocab_shard *vocab = &pass->sizes->vocab;
    struct tv_request *request = NULL;
    const tv_dtype_t dtype = tv_tensor_dtype(pass->axis);
    const struct tv_from_bf16_args unpack = {vocab->padded * pass->sizes->T, all, all};
    TV_TRY(tv_comm_all_gather(pass->axis->comm, own, all, vocab->padded, dtype, pass->axis->stream,
                              &request));
    TV_TRY(tv_request_wait(&request));
    if (dtype == TV_BF16)
        TV_TRY(pass->axis->kernels->from_bf16(pass->axis->stream, &unpack));
    TV_TRY(tv_stream_copy(pass->axis->stream, out, all, (size_t)vocab->vocab_size * sizeof(*out)));
    return tv_stream_synchronize(pass->axis->stream);
}

tv_status_t tv_model_read_logits(struct tv_model *model, const struct tv_model_call *call,
                                 int64_t row, float *out)
{
    struct tv_pass pass;
    TV_TRY(pass_of(model, call, &pass));
    const struct tv_vocab_shard *vocab = &pass.sizes->vocab;
    const int last = pass.chunk->args.num_units - 1;
    pass.unit = &pass.chunk->units[last];
    if (!is_head(&pass, pass.unit) || row < 0 || row >= pass.sizes->rows)
        return TV_ERR(TV_INVALID, "logits of row %lld of %lld in chunk %d, whose last unit is %d",
                      (long long)row, (long long)pass.sizes->rows, call->chunk, pass.unit->index);
    struct tv_buffer all = {0};
    const void *own;
    TV_TRY(enter(&pass, last, -1, TV_USE_FORWARD));
    TV_TRY(tv_head_logits(&pass, input_of(&pass, last, call->x), row, &own));
    TV_TRY(leave(&pass, TV_USE_FORWARD));
    TV_TRY(tv_buffer_create(tv_stream_device(pass.axis->stream),
                            (size_t)(vocab->padded * pass.sizes->T) * sizeof(float), TV_MEM_BUFFERS,
                            &all));
    const tv_status_t status = gather_logits(&pass, own, all.data, out);
    tv_buffer_destroy(&all);
    return status;
}

tv_status_t tv_pass_report(const struct tv_pass *pass, int branch)
{
    const struct tv_unit_done *done = pass->unit_done;
    return done == NULL ? TV_OK : done->function(done->context, pass->unit->index, branch);
}

/* grad: dy of the unit becomes its dx */
static tv_status_t backward_unit(const struct tv_pass *pass, const struct tv_model_call *call,
                                 const void *x, void *grad)
{
    if (is_head(pass, pass->unit))
        return tv_head_backward(pass, x, grad, call->loss_sum_out);
    if (pass->unit->index > 0)
        return tv_layer_backward(pass, x, grad);
    return pass->is_split ? TV_OK : tv_embedding_unit_backward_weight(pass, grad);
}

static tv_status_t backward_units(struct tv_pass *pass, const struct tv_model_call *call)
{
    const struct tv_chunk_layout *chunk = pass->chunk;
    /* gradient of the residual stream, in place through the units */
    void *grad = pass->scratch + pass->model->layout.grad;
    if (pass->model->args.recompute == TV_RECOMPUTE_FULL)
        TV_TRY(forward_units(pass, call->x, NULL, NULL));
    if (call->dy != NULL)
        TV_TRY(copy_activation(pass, grad, call->dy));
    for (int u = chunk->args.num_units - 1; u >= 0; u--) {
        /* The head is never split. */
        const int is_whole = !pass->is_split || is_head(pass, &chunk->units[u]);
        const tv_unit_use_t use = is_whole ? TV_USE_BACKWARD : TV_USE_BACKWARD_INPUT;
        TV_TRY(enter(pass, u, u - 1, use));
        TV_TRY(backward_unit(pass, call, input_of(pass, u, call->x), grad));
        TV_TRY(leave(pass, use));
        if (!pass->is_split)
            TV_TRY(tv_pass_report(pass, 0));
        else if (u > 0) /* dy of unit u - 1, for its weights */
            TV_TRY(copy_activation(pass, tv_pass_at(pass, pass->unit->input), grad));
    }
    return call->dx != NULL ? copy_activation(pass, call->dx, grad) : TV_OK;
}

tv_status_t tv_model_backward(struct tv_model *model, const struct tv_model_call *call)
{
    struct tv_pass pass;
    TV_TRY(pass_of(model, call, &pass));
    pass.unit_done = call->unit_done;
    return backward_units(&pass, call);
}

tv_status_t tv_model_backward_input(struct tv_model *model, const struct tv_model_call *call)
{
    struct tv_pass pass;
    TV_TRY(pass_of(model, call, &pass));
    pass.is_split = 1;
    return backward_units(&pass, call);
}

static tv_status_t backward_weight_unit(struct tv_pass *pass, int u, const void *dy)
{
    TV_TRY(enter(pass, u, u - 1, TV_USE_BACKWARD_WEIGHT));
    if (pass->unit->index == 0)
        TV_TRY(tv_embedding_unit_backward_weight(pass, dy));
    else
        TV_TRY(tv_layer_backward_weight(pass, dy));
    return leave(pass, TV_USE_BACKWARD_WEIGHT);
}

tv_status_t tv_model_backward_weight(struct tv_model *model, const struct tv_model_call *call)
{
    struct tv_pass pass;
    TV_TRY(pass_of(model, call, &pass));
    pass.unit_done = call->unit_done;
    for (int u = pass.chunk->args.num_units - 1; u >= 0; u--) {
        const int is_last = u + 1 == pass.chunk->args.num_units;
        const void *dy = is_last ? call->dy : tv_pass_at(&pass, pass.chunk->units[u + 1].input);
        pass.unit = &pass.chunk->units[u];
        if (!is_head(&pass, pass.unit))
            TV_TRY(backward_weight_unit(&pass, u, dy));
        TV_TRY(tv_pass_report(&pass, 0));
    }
    return TV_OK;
}
