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

/* This rank's local piece of `param`, or NULL. */
static const float *local_piece(const struct tv_trainer *tr, const struct tv_param *param,
                                const float *flat)
{
    for (int i = 0; i < tv_model_num_local_params(tr->model); i++) {
        const struct tv_local_param local = tv_model_local_param(tr->model, i);
        if (local.param == param && !local.is_copy)
            return flat + local.first;
    }
    return NULL;
}

/* Bring piece t to `buffer` on the root. */
static tv_status_t move_piece(struct tv_trainer *tr, const struct tv_param *param, int t,
                              const float *flat, float *buffer)
{
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    const int64_t count = tv_param_local_count(param, tr->run->extent.at[TV_TENSOR]);
    const int from = holder_of(tr, param, t);
    struct tv_request *send = NULL, *recv = NULL;
    if (tv_mesh_rank(tr->mesh) == from)
        TV_TRY(
            tv_comm_send(world, local_piece(tr, param, flat), count, TV_F32, 0, tr->stream, &send));
    if (tv_mesh_rank(tr->mesh) == 0) {
        TV_TRY(tv_comm_recv(world, buffer, count, TV_F32, from, tr->stream, &recv));
        TV_TRY(tv_request_wait(&recv));
    }
    return tv_request_wait(&send);
}

static tv_status_t gather_tensor(struct tv_trainer *tr, const struct tv_param *param,
                                 const float *flat, float *piece, float *whole)
{
    const int T = tr->run->extent.at[TV_TENSOR];
    for (int t = 0; t < T; t++) {
        int first, num;
        tv_param_holders(param, T, t, &first, &num);
        if (t != first)
            continue; /* the same elements as an earlier rank's */
        TV_TRY(move_piece(tr, param, t, flat, piece));
        if (tv_mesh_rank(tr->mesh) == 0)
            tv_param_gather(param, T, t, piece, whole);
    }
    return TV_OK;
}

static tv_status_t write_all(struct tv_trainer *tr, struct tv_hf_export *file, const float *flat,
                             double scale, float *piece, float *whole)
{
    const struct tv_param_table *table = tv_model_table(tr->model);
    for (int i = 0; i < table->num_params; i++) {
        TV_TRY(gather_tensor(tr, &table->params[i], flat, piece, whole));
        if (file == NULL)
            continue;
        const int64_t count = tv_param_count(&table->params[i]);
        for (int64_t e = 0; scale != 1 && e < count; e++)
            whole[e] = (float)(whole[e] * scale);
        TV_TRY(tv_hf_export_tensor(file, whole));
    }
    return TV_OK;
}

static int64_t largest_tensor(const struct tv_param_table *table)
{
    int64_t largest = 0;
    for (int i = 0; i < table->num_params; i++) {
        const int64_t count = tv_param_local_count(&table->params[i], 1);
        largest = count > largest ? count : largest;
    }
    return largest;
}

tv_status_t tv_trainer_write_tensors(struct tv_trainer *tr, const char *folder, const float *flat,
                                     double scale)
{
    const struct tv_param_table *table = tv_model_table(tr->model);
    struct tv_hf_export *file = NULL;
    float *piece = NULL, *whole = NULL;
    tv_status_t status = TV_OK;
    if (tv_mesh_rank(tr->mesh) == 0) {
        const size_t bytes = (size_t)largest_tensor(table) * sizeof(float);
        piece = malloc(bytes);
        whole = calloc(1, bytes);
        if (piece == NULL || whole == NULL)
            status =
                TV_ERR(TV_NO_MEMORY, "%s: %zu bytes for its largest tensor", folder, 2 * bytes);
        else
            status = tv_hf_export_begin(folder, &tr->run->model, table, &file);
    }
    if (status == TV_OK)
        status = write_all(tr, file, flat, scale, piece, whole);
    if (file != NULL && status == TV_OK)
        status = tv_hf_export_finish(&file);
    tv_hf_export_abandon(&file);
    free(piece);
    free(whole);
    return status;
}

tv_status_t tv_trainer_export(struct tv_trainer *tr, const char *folder)
{
    return tv_trainer_write_tensors(tr, folder, tv_model_params(tr->model), 1);
}
