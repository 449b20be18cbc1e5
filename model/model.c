/* model/model.c -- a rank's chunks: made, measured, and what belongs to their gradients. */
#include "model/model_internal.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const recompute_names[] = {[TV_RECOMPUTE_NONE] = "none",
                                              [TV_RECOMPUTE_SELECTIVE] = "selective",
                                              [TV_RECOMPUTE_FULL] = "full"};

const char *tv_recompute_name(tv_recompute_t recompute)
{
    return recompute_names[recompute];
}

tv_status_t tv_recompute_parse(const char *name, tv_recompute_t *recompute_out)
{
    for (int i = TV_RECOMPUTE_NONE; i <= TV_RECOMPUTE_FULL; i++) {
        if (strcmp(name, recompute_names[i]) == 0) {
            *recompute_out = (tv_recompute_t)i;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "recomputation '%s' is not one of none, selective, full", name);
}

/* free_unit: the first that no earlier chunk holds. */
static tv_status_t check_chunk(const struct tv_model_args *args, const struct tv_model_chunk *chunk,
                               int free_unit)
{
    const int num_units = args->config.num_layers + 2;
    if (chunk->first_unit < 0 || chunk->num_units < 1 ||
        chunk->first_unit > num_units - chunk->num_units)
        return TV_ERR(TV_INVALID, "units %d..%d of a model that has %d", chunk->first_unit,
                      chunk->first_unit + chunk->num_units - 1, num_units);
    if (chunk->first_unit < free_unit)
        return TV_ERR(TV_INVALID, "a chunk from unit %d behind one that ends with unit %d",
                      chunk->first_unit, free_unit - 1);
    if (chunk->num_slots < 1)
        return TV_ERR(TV_INVALID, "a chunk with %d slots", chunk->num_slots);
    if (args->recompute != TV_RECOMPUTE_NONE && chunk->num_works < 1)
        return TV_ERR(TV_INVALID, "a chunk with %d working sets, recomputation %s",
                      chunk->num_works, tv_recompute_name(args->recompute));
    return TV_OK;
}

static tv_status_t check_share(const char *name, double share)
{
    if (!(share >= 0 && share < 1))
        return TV_ERR(TV_INVALID, "%s %g is not in [0, 1)", name, share);
    return TV_OK;
}

static tv_status_t check_args(const struct tv_model_args *args, int T)
{
    TV_TRY(tv_model_config_check(&args->config));
    TV_TRY(tv_model_config_check_tensor(&args->config, T));
    if (args->micro_batch < 1 || args->seq_length < 1 || args->num_chunks < 1)
        return TV_ERR(TV_INVALID, "a model with micro-batch %d, sequence %d, %d chunks",
                      args->micro_batch, args->seq_length, args->num_chunks);
    if (args->seq_length > args->config.max_positions)
        return TV_ERR(TV_INVALID, "sequence length %d is beyond the model's context of %d",
                      args->seq_length, args->config.max_positions);
    if (args->is_sequence_parallel && (int64_t)args->micro_batch * args->seq_length % T != 0)
        return TV_ERR(TV_INVALID,
                      "sequence parallelism cuts the rows of a micro-batch: %d x %d is not a "
                      "multiple of %d tensor ranks",
                      args->micro_batch, args->seq_length, T);
    TV_TRY(check_share("attention dropout", args->attention_dropout));
    TV_TRY(check_share("hidden dropout", args->hidden_dropout));
    TV_TRY(check_share("label smoothing", args->label_smoothing));
    if (args->label_smoothing > 0 && args->config.vocab_size < 2)
        return TV_ERR(TV_INVALID, "label smoothing %g over a vocabulary of one",
                      args->label_smoothing);
    int free_unit = 0;
    for (int c = 0; c < args->num_chunks; c++) {
        TV_TRY(check_chunk(args, &args->chunks[c], free_unit));
        free_unit = args->chunks[c].first_unit + args->chunks[c].num_units;
    }
    return TV_OK;
}

static tv_status_t fill_params(struct tv_model *model)
{
    const struct tv_model_args *args = &model->args;
    const struct tv_model_sizes *s = &model->layout.sizes;
    for (int i = 0; i < model->layout.num_local; i++) {
        const struct tv_local_param *local = &model->layout.local[i];
        float *host = malloc((size_t)local->count * sizeof(*host));
        if (host == NULL)
            return TV_ERR(TV_NO_MEMORY, "initial values of %s", local->param->name);
        tv_param_init(local->param, s->T, s->t, args->seed, args->config.init_std,
                      args->config.num_layers,
                      tv_device_num_threads(tv_stream_device(args->axis.stream)), host);
        tv_round_f32(host, local->count, model->layout.dtype, host);
        tv_status_t status = tv_stream_copy(
            args->axis.stream, tv_at(model->params.data, local->first, model->layout.dtype), host,
            tv_tensor_bytes(&args->axis, local->count));
        if (status == TV_OK)
            status = tv_stream_synchronize(args->axis.stream);
        free(host);
        TV_TRY(status);
    }
    return TV_OK;
}

static tv_status_t fill_positions(struct tv_model *model)
{
    const int64_t rows = model->layout.sizes.rows;
    int32_t *positions = malloc((size_t)rows * sizeof(*positions));
    if (positions == NULL)
        return TV_ERR(TV_NO_MEMORY, "%" PRId64 " positions", rows);
    for (int64_t r = 0; r < rows; r++)
        positions[r] = (int32_t)(r % model->args.seq_length);
    tv_status_t status = tv_stream_copy(model->args.axis.stream, model->tokens.data, positions,
                                        (size_t)rows * sizeof(*positions));
    if (status == TV_OK)
        status = tv_stream_synchronize(model->args.axis.stream);
    free(positions);
    return status;
}

static tv_status_t create_buffers(struct tv_model *model)
{
    struct tv_device *device = tv_stream_device(model->args.axis.stream);
    const struct tv_model_layout *l = &model->layout;
    const size_t params = model->args.store != NULL ? 0 : (size_t)l->param_count;
    TV_TRY(
        tv_buffer_create(device, params * tv_dtype_bytes(l->dtype), TV_MEM_PARAMS, &model->params));
    TV_TRY(tv_buffer_create(device, params * sizeof(float), TV_MEM_GRADS, &model->grads));
    TV_TRY(tv_buffer_create(device, (size_t)l->activation_bytes, TV_MEM_ACTIVATIONS,
                            &model->activations));
    TV_TRY(tv_buffer_create(device, (size_t)l->scratch_bytes, TV_MEM_BUFFERS, &model->scratch));
    TV_TRY(tv_buffer_create(device, (size_t)l->tokens_count * sizeof(int32_t), TV_MEM_BUFFERS,
                            &model->tokens));
    const size_t num = (size_t)l->num_local + 1;
    model->squared = malloc(num * sizeof(*model->squared));
    model->squares = malloc(num * sizeof(*model->squares));
    model->given = calloc((size_t)l->num_units, 1);
    if (model->squared == NULL || model->squares == NULL || model->given == NULL)
        return TV_ERR(TV_NO_MEMORY, "sums of squares of %d weights", l->num_local);
    if (!l->has_head)
        return TV_OK;
    model->host_losses = calloc((size_t)l->sizes.rows, sizeof(*model->host_losses));
    return model->host_losses != NULL
               ? TV_OK
               : TV_ERR(TV_NO_MEMORY, "losses of %" PRId64 " rows", l->sizes.rows);
}

/* Tensor ranks that hold the same kv heads; collective. */
static tv_status_t create_kv_holders(struct tv_model *model)
{
    const struct tv_model_sizes *s = &model->layout.sizes;
    const int num_kv_heads = model->args.config.num_kv_heads;
    if (num_kv_heads >= s->T)
        return TV_OK;
    TV_TRY(
        tv_comm_split(model->args.axis.comm, s->t * num_kv_heads / s->T, s->t, &model->kv_holders));
    tv_comm_set_name(model->kv_holders, "tensor (shared kv heads)");
    return TV_OK;
}

tv_status_t tv_model_create(const struct tv_model_args *args, struct tv_model **model_out)
{
    const int T = tv_comm_size(args->axis.comm), t = tv_comm_rank(args->axis.comm);
    TV_TRY(check_args(args, T));
    struct tv_model_args placed = *args;
    placed.device = tv_device_kind(tv_stream_device(args->axis.stream));
    struct tv_model *model = calloc(1, sizeof(*model));
    if (model == NULL)
        return TV_ERR(TV_NO_MEMORY, "model: %zu bytes", sizeof(*model));
    model->args = placed;
    model->args.chunks = NULL;
    model->args.axis.is_sequence_parallel = args->is_sequence_parallel;
    model->args.axis.is_overlapped = args->is_tensor_overlapped;
    tv_status_t status = tv_model_param_table(&args->config, &model->table);
    if (status == TV_OK)
        status = tv_model_layout_create(&placed, &model->table, T, t, tv_tensor_dtype(&args->axis),
                                        &model->layout);
    if (status == TV_OK)
        status = create_buffers(model);
    if (status == TV_OK && args->store == NULL && !args->leaves_params)
        status = fill_params(model);
    if (status == TV_OK)
        status = fill_positions(model);
    if (status == TV_OK)
        status = create_kv_holders(model);
    if (status != TV_OK) {
        tv_model_destroy(model);
        return status;
    }
    *model_out = model;
    return TV_OK;
}

void tv_model_destroy(struct tv_model *model)
{
    if (model == NULL)
        return;
    tv_row_gather_cancel(&model->gather); /* in flight only after a failure */
    tv_request_cancel(&model->sum);
    tv_comm_destroy(model->kv_holders);
    tv_buffer_destroy(&model->params);
    tv_buffer_destroy(&model->grads);
    tv_buffer_destroy(&model->activations);
    tv_buffer_destroy(&model->scratch);
    tv_buffer_destroy(&model->tokens);
    free(model->given);
    free(model->host_losses);
    free(model->squared);
    free(model->squares);
    tv_model_layout_destroy(&model->layout);
    tv_param_table_destroy(&model->table);
    free(model);
}

const struct tv_param_table *tv_model_table(const struct tv_model *model)
{
    return &model->table;
}

int tv_model_num_local_params(const struct tv_model *model)
{
    return model->layout.num_local;
}

struct tv_local_param tv_model_local_param(const struct tv_model *model, int index)
{
    return model->layout.local[index];
}

int64_t tv_model_param_count(const struct tv_model *model)
{
    return model->layout.param_count;
}

void *tv_model_params(struct tv_model *model)
{
    return model->params.data;
}

float *tv_model_grads(struct tv_model *model)
{
    return model->grads.data;
}

void tv_model_begin_step(struct tv_model *model)
{
    memset(model->given, 0, (size_t)model->layout.num_units);
    model->given_tied = 0;
}

tv_status_t tv_model_memory(const struct tv_model_args *args, int T, tv_dtype_t dtype,
                            int64_t bytes_out[TV_NUM_MEM_KINDS])
{
    struct tv_param_table table = {0};
    struct tv_model_layout layout = {0};
    TV_TRY(check_args(args, T));
    TV_TRY(tv_model_param_table(&args->config, &table));
    const tv_status_t status = tv_model_layout_create(args, &table, T, 0, dtype, &layout);
    if (status == TV_OK) {
        for (int k = 0; k < TV_NUM_MEM_KINDS; k++)
            bytes_out[k] = 0;
        if (args->store == NULL) {
            bytes_out[TV_MEM_PARAMS] = layout.param_count * (int64_t)tv_dtype_bytes(dtype);
            bytes_out[TV_MEM_GRADS] = layout.param_count * (int64_t)sizeof(float);
        }
        bytes_out[TV_MEM_ACTIVATIONS] = layout.activation_bytes;
        bytes_out[TV_MEM_BUFFERS] =
            layout.scratch_bytes + layout.tokens_count * (int64_t)sizeof(int32_t);
    }
    tv_model_layout_destroy(&layout);
    tv_param_table_destroy(&table);
    return status;
}

tv_status_t tv_model_place_params(const struct tv_model_args *args,
                                  const struct tv_param_table *table, int T,
                                  struct tv_local_params *params_out)
{
    struct tv_model_layout layout = {0};
    TV_TRY(check_args(args, T));
    TV_TRY(tv_model_layout_create(args, table, T, 0, TV_F32, &layout)); /* elements, of any type */
    *params_out = (struct tv_local_params){layout.num_local, layout.local, layout.param_count};
    layout.local = NULL;
    tv_model_layout_destroy(&layout);
    return TV_OK;
}

void tv_local_params_destroy(struct tv_local_params *params)
{
    free(params->params);
    *params = (struct tv_local_params){0};
}

/* pieces NULL: the i-th local weight's whole gradient */
static struct tv_grad_piece piece_at(struct tv_model *model, const struct tv_grad_piece *pieces,
                                     int i)
{
    if (pieces != NULL)
        return pieces[i];
    const struct tv_local_param *local = &model->layout.local[i];
    return (struct tv_grad_piece){i, local->count, (float *)model->grads.data + local->first};
}

/* Each weight is counted by one of the ranks that hold it. */
static int is_counted_here(const struct tv_model *model, int index)
{
    const struct tv_model_sizes *s = &model->layout.sizes;
    const struct tv_local_param *local = &model->layout.local[index];
    int first, holders;
    tv_param_holders(local->param, s->T, s->t, &first, &holders);
    return !local->is_copy && first == s->t;
}

/* The sums of the arrays in model->squared, in their order. */
static tv_status_t add_squares(struct tv_model *model, int num, double *total)
{
    const struct tv_square_sum_args args = {num, model->squared, model->squares};
    TV_TRY(model->args.axis.kernels->square_sum(model->args.axis.stream, &args));
    for (int i = 0; i < num; i++)
        *total += model->squares[i];
    return TV_OK;
}

tv_status_t tv_model_grad_square_sum(struct tv_model *model, int num_pieces,
                                     const struct tv_grad_piece *pieces, double *sum_out)
{
    const int num = pieces != NULL ? num_pieces : model->layout.num_local;
    const int most = model->layout.num_local;
    double total = 0;
    for (int i = 0; i < num;) {
        int counted = 0;
        for (; i < num && counted < most; i++) {
            const struct tv_grad_piece piece = piece_at(model, pieces, i);
            if (is_counted_here(model, piece.local))
                model->squared[counted++] = (struct tv_square_sum_array){piece.count, piece.grad};
        }
        TV_TRY(add_squares(model, counted, &total));
    }
    *sum_out = total;
    return TV_OK;
}

/* Replicated kv heads: a sum for each weight, large ones, over the ranks that hold it. */
static tv_status_t sum_kv_heads(struct tv_model *model, int num, const struct tv_grad_piece *pieces)
{
    for (int i = 0; i < num && model->kv_holders != NULL; i++) {
        const struct tv_grad_piece piece = piece_at(model, pieces, i);
        if (model->layout.local[piece.local].param->num_parts > 0)
            TV_TRY(tv_comm_all_reduce_wait(model->kv_holders, piece.grad, piece.count, TV_F32,
                                           TV_SUM, model->args.axis.stream));
    }
    return TV_OK;
}

static float *row_sums_of(const struct tv_model *model)
{
    return (float *)(void *)((char *)model->scratch.data + model->layout.row_sums);
}

/* The gradients of weights `is_for_rows` to the room side by side, or back. */
static tv_status_t move_row_sums(struct tv_model *model, int num,
                                 const struct tv_grad_piece *pieces, int is_back,
                                 int64_t *count_out)
{
    float *room = row_sums_of(model);
    int64_t count = 0;
    for (int i = 0; i < num; i++) {
        const struct tv_grad_piece piece = piece_at(model, pieces, i);
        if (!model->layout.local[piece.local].param->is_for_rows)
            continue;
        TV_TRY(tv_stream_copy(model->args.axis.stream, is_back ? piece.grad : room + count,
                              is_back ? room + count : piece.grad,
                              (size_t)piece.count * sizeof(*room)));
        count += piece.count;
    }
    *count_out = count;
    return TV_OK;
}

tv_status_t tv_model_sync_replicated(struct tv_model *model, int num_pieces,
                                     const struct tv_grad_piece *pieces)
{
    const int num = pieces != NULL ? num_pieces : model->layout.num_local;
    int64_t count;
    TV_TRY(sum_kv_heads(model, num, pieces));
    if (!model->args.is_sequence_parallel)
        return TV_OK;
    TV_TRY(move_row_sums(model, num, pieces, 0, &count));
    TV_TRY(tv_comm_all_reduce_wait(model->args.axis.comm, row_sums_of(model), count, TV_F32, TV_SUM,
                                   model->args.axis.stream));
    return move_row_sums(model, num, pieces, 1, &count);
}

struct tv_comm_stats tv_model_comm_stats(const struct tv_model *model)
{
    if (model->kv_holders == NULL)
        return (struct tv_comm_stats){0};
    return tv_comm_get_stats(model->kv_holders);
}
