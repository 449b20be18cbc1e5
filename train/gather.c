/* train/gather.c -- the pieces of every weight, from the ranks that hold them to mesh rank 0, one tensor at a time.
 *
 * Mesh rank 0 never holds more than one whole tensor; the file is the same whatever mesh writes it. */
#include "train/hf.h"
#include "train/trainer_internal.h"
#include <stdlib.h>

/* Mesh rank of tensor coordinate t on the stage that holds the unit of `param`, replica 0. */
static int holder_of(const struct tv_trainer *tr, const struct tv_param *param, int t)
{
    const int stage = tv_run_stage_of_unit(tr->run, param->unit);
    return tv_mesh_rank_of(tr->run->extent, (struct tv_mesh_coord){{stage, 0, t}});
}

/* Index of `param` among this rank's local weights, or -1. */
static int local_index(const struct tv_trainer *tr, const struct tv_param *param)
{
    for (int i = 0; i < tv_model_num_local_params(tr->model); i++) {
        const struct tv_local_param local = tv_model_local_param(tr->model, i);
        if (local.param == param && !local.is_copy)
            return i;
    }
    return -1;
}

/* The part of a local weight that this rank has, in `array`, on the device; elements of the whole from *first_out. */
static const float *own_part(const struct tv_trainer *tr, const struct tv_weight_array *array,
                             int local, int64_t *first_out, int64_t *count_out)
{
    const struct tv_local_param whole = tv_model_local_param(tr->model, local);
    *first_out = *count_out = 0;
    if (array->is_whole) {
        *count_out = whole.count;
        return array->data + whole.first;
    }
    for (int i = 0; i < tr->sharding.num_pieces; i++) {
        const struct tv_owned_piece *piece = &tr->sharding.pieces[i];
        if (piece->local != local)
            continue;
        *first_out = piece->first - whole.first;
        *count_out = piece->count;
        return array->data + tv_piece_offset(array, piece);
    }
    return NULL;
}

/* Of a weight's local piece what this rank has, into its place in `piece`; range_out: first, count. */
static tv_status_t copy_own_part(struct tv_trainer *tr, const struct tv_weight_array *array,
                                 int local, float *piece, int64_t range_out[2])
{
    const float *part = own_part(tr, array, local, &range_out[0], &range_out[1]);
    TV_TRY(tv_stream_copy(tr->stream, piece + range_out[0], part,
                          (size_t)range_out[1] * sizeof(*piece)));
    return tv_stream_synchronize(tr->stream);
}

/* The replica d of this rank's stage and tensor coordinate. */
static int replica_rank(const struct tv_trainer *tr, int d)
{
    struct tv_mesh_coord at = tr->here;
    at.at[TV_DATA] = d;
    return tv_mesh_rank_of(tr->run->extent, at);
}

/* What replica d owns of a weight, [first, count] ahead of it, to replica 0, which puts it into `piece`: host memory,
 * so it goes over the world. */
static tv_status_t collect_from(struct tv_trainer *tr, const struct tv_weight_array *array,
                                int local, int d, float *piece)
{
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    struct tv_request *request = NULL;
    int64_t range[2];
    if (tr->here.at[TV_DATA] == d)
        TV_TRY(copy_own_part(tr, array, local, piece, range));
    if (d == 0)
        return TV_OK;
    if (tr->here.at[TV_DATA] == d) {
        const int to = replica_rank(tr, 0);
        TV_TRY(tv_comm_send(world, range, 2, TV_I64, to, NULL, &request));
        TV_TRY(tv_request_wait(&request));
        TV_TRY(tv_comm_send(world, piece + range[0], range[1], TV_F32, to, NULL, &request));
        return tv_request_wait(&request);
    }
    if (tr->here.at[TV_DATA] != 0)
        return TV_OK;
    const int from = replica_rank(tr, d);
    TV_TRY(tv_comm_recv(world, range, 2, TV_I64, from, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    TV_TRY(tv_comm_recv(world, piece + range[0], range[1], TV_F32, from, NULL, &request));
    return tv_request_wait(&request);
}

/* Of ranks that hold `param`: its local piece in host memory, complete on replica 0. */
static tv_status_t complete_piece(struct tv_trainer *tr, const struct tv_weight_array *array,
                                  const struct tv_param *param, float *piece)
{
    const int local = local_index(tr, param);
    /* Of whole arrays every replica has one, of shards the groups behind the first have copies. */
    const int num_owners = array->is_whole ? 1 : tr->run->zero_group;
    for (int d = 0; d < num_owners; d++)
        TV_TRY(collect_from(tr, array, local, d, piece));
    return TV_OK;
}

/* Bring piece t to `buffer` on the root. */
static tv_status_t move_piece(struct tv_trainer *tr, const struct tv_param *param, int t,
                              const struct tv_weight_array *array, float *room, float *buffer)
{
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    const int64_t count = tv_param_local_count(param, tr->run->extent.at[TV_TENSOR]);
    const int from = holder_of(tr, param, t);
    const int holds = tr->here.at[TV_TENSOR] == t &&
                      tr->here.at[TV_PIPE] == tv_run_stage_of_unit(tr->run, param->unit);
    struct tv_request *send = NULL, *recv = NULL;
    if (holds)
        TV_TRY(complete_piece(tr, array, param, room));
    if (tv_mesh_rank(tr->mesh) == from)
        TV_TRY(tv_comm_send(world, room, count, TV_F32, 0, NULL, &send));
    if (tv_mesh_rank(tr->mesh) == 0) {
        TV_TRY(tv_comm_recv(world, buffer, count, TV_F32, from, NULL, &recv));
        TV_TRY(tv_request_wait(&recv));
    }
    return tv_request_wait(&send);
}

/* Host memory of the largest tensor each: a local piece in the making; on the root one that came, and all of it. */
struct gather_room {
    float *local, *piece, *whole;
};

static tv_status_t gather_tensor(struct tv_trainer *tr, const struct tv_param *param,
                                 const struct tv_weight_array *array,
                                 const struct gather_room *room)
{
    const int T = tr->run->extent.at[TV_TENSOR];
    for (int t = 0; t < T; t++) {
        int first, num;
        tv_param_holders(param, T, t, &first, &num);
        if (t != first)
            continue; /* the same elements as an earlier rank's */
        TV_TRY(move_piece(tr, param, t, array, room->local, room->piece));
        if (tv_mesh_rank(tr->mesh) == 0)
            tv_param_gather(param, T, t, room->piece, room->whole);
    }
    return TV_OK;
}

static tv_status_t write_all(struct tv_trainer *tr, struct tv_hf_export *file,
                             const struct tv_weight_array *array, double scale,
                             const struct gather_room *room)
{
    const struct tv_param_table *table = tv_model_table(tr->model);
    for (int i = 0; i < table->num_params; i++) {
        TV_TRY(gather_tensor(tr, &table->params[i], array, room));
        if (file == NULL)
            continue;
        const int64_t count = tv_param_count(&table->params[i]);
        for (int64_t e = 0; scale != 1 && e < count; e++)
            room->whole[e] = (float)(room->whole[e] * scale);
        TV_TRY(tv_hf_export_numbers(file, room->whole, count));
    }
    return TV_OK;
}

/* Elements of the largest tensor's piece among T. */
static int64_t largest_tensor(const struct tv_param_table *table, int T)
{
    int64_t largest = 0;
    for (int i = 0; i < table->num_params; i++) {
        const int64_t count = tv_param_local_count(&table->params[i], T);
        largest = count > largest ? count : largest;
    }
    return largest;
}

static tv_status_t create_room(const struct tv_trainer *tr, const char *folder,
                               struct gather_room *room)
{
    const struct tv_param_table *table = tv_model_table(tr->model);
    const size_t bytes = (size_t)largest_tensor(table, 1) * sizeof(float);
    const size_t own = (size_t)largest_tensor(table, tr->run->extent.at[TV_TENSOR]) * sizeof(float);
    const int is_root = tv_mesh_rank(tr->mesh) == 0;
    room->local = malloc(own);
    if (is_root) {
        room->piece = malloc(bytes);
        room->whole = calloc(1, bytes);
    }
    if (room->local == NULL || (is_root && (!room->piece || !room->whole)))
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes for its largest tensor", folder,
                      own + 2 * bytes);
    return TV_OK;
}

tv_status_t tv_trainer_write_tensors(struct tv_trainer *tr, const char *folder,
                                     const struct tv_weight_array *array, double scale)
{
    struct tv_hf_export *file = NULL;
    struct gather_room room = {0};
    tv_status_t status = create_room(tr, folder, &room);
    if (status == TV_OK && tv_mesh_rank(tr->mesh) == 0)
        status = tv_hf_export_begin(folder, &tr->run->model, tv_model_table(tr->model),
                                    (struct tv_hf_export_form){0}, &file);
    if (status == TV_OK)
        status = write_all(tr, file, array, scale, &room);
    if (file != NULL && status == TV_OK)
        status = tv_hf_export_finish(&file);
    tv_hf_export_abandon(&file);
    free(room.local);
    free(room.piece);
    free(room.whole);
    return status;
}

tv_status_t tv_trainer_export(struct tv_trainer *tr, const char *folder)
{
    return tv_trainer_write_tensors(tr, folder, &tr->params, 1);
}
