/* train/setup.c -- the mesh of a run, the threads a rank may use, the clock it is measured by, its first weights. */
#include "train/setup.h"
#include "base/clock.h"
#include "train/hf.h"
#include "train/place.h"
#include "train/trainer_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* Text that ranks of one boot of one machine share, and no others. */
static void boot_identity(char *text, size_t bytes)
{
    text[0] = '\0';
    FILE *boot = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (boot == NULL)
        return;
    text[fread(text, 1, bytes - 1, boot)] = '\0';
    fclose(boot);
}

/* How many ranks of `world` have this rank's hash; is_root_out: whether rank 0 has it. */
static tv_status_t count_alike(struct tv_comm *world, int64_t mine, int *num_out, int *is_root_out)
{
    const int size = tv_comm_size(world);
    int64_t *all = calloc((size_t)size, sizeof(*all));
    if (all == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d host names", size);
    struct tv_request *request = NULL;
    tv_status_t status = tv_comm_all_gather(world, &mine, all, 1, TV_I64, NULL, &request);
    if (status == TV_OK)
        status = tv_request_wait(&request);
    *num_out = 0;
    for (int r = 0; r < size; r++)
        *num_out += all[r] == mine;
    *is_root_out = all[0] == mine;
    free(all);
    return status;
}

tv_status_t tv_fair_threads(struct tv_comm *world, int num_asked, int *num_threads_out)
{
    int ranks = 1, is_root;
    struct tv_cpu_mask allowed = {0};
    char name[512] = "";
    (void)gethostname(name, 256);
    boot_identity(name + strlen(name), 256);
    const int cores = tv_cpu_mask_now(&allowed) == TV_OK ? tv_cpu_mask_count(&allowed) : 1;
    /* Ranks that are bound have their CPUs to themselves. */
    const uint64_t host = XXH64(name, strlen(name), 0);
    TV_TRY(count_alike(world, (int64_t)XXH64(&allowed, sizeof(allowed), host), &ranks, &is_root));
    const int fair = ranks > 0 && cores / ranks > 1 ? cores / ranks : 1;
    *num_threads_out = num_asked > 0 ? num_asked : fair;
    return TV_OK;
}

/* Rank 0 asks each other rank for its clock, several times; the quickest answer is the best. */
static tv_status_t ask_clock(struct tv_comm *world, int rank, double *offset)
{
    enum { ROUNDS = 16 };
    double best = 1e300, theirs = 0;
    for (int i = 0; i < ROUNDS; i++) {
        struct tv_request *send = NULL, *recv = NULL;
        const double asked = tv_clock_seconds();
        TV_TRY(tv_comm_send(world, &asked, 1, TV_F64, rank, NULL, &send));
        TV_TRY(tv_comm_recv(world, &theirs, 1, TV_F64, rank, NULL, &recv));
        TV_TRY(tv_request_wait(&recv));
        TV_TRY(tv_request_wait(&send));
        const double answered = tv_clock_seconds();
        if (answered - asked < best) {
            best = answered - asked;
            *offset = (asked + answered) / 2 - theirs;
        }
    }
    return TV_OK;
}

static tv_status_t answer_clock(struct tv_comm *world)
{
    enum { ROUNDS = 16 };
    for (int i = 0; i < ROUNDS; i++) {
        struct tv_request *send = NULL, *recv = NULL;
        double asked;
        TV_TRY(tv_comm_recv(world, &asked, 1, TV_F64, 0, NULL, &recv));
        TV_TRY(tv_request_wait(&recv));
        const double mine = tv_clock_seconds();
        TV_TRY(tv_comm_send(world, &mine, 1, TV_F64, 0, NULL, &send));
        TV_TRY(tv_request_wait(&send));
    }
    return TV_OK;
}

tv_status_t tv_clock_offset(struct tv_comm *world, double *offset_out)
{
    int num, is_root;
    char boot[256];
    boot_identity(boot, sizeof(boot));
    TV_TRY(count_alike(world, (int64_t)XXH64(boot, strlen(boot), 1), &num, &is_root));
    *offset_out = 0; /* one boot, one monotonic clock */
    int num_far = !is_root;
    TV_TRY(tv_comm_all_reduce_now(world, &num_far, 1, TV_I32, TV_SUM));
    for (int r = 1; num_far > 0 && r < tv_comm_size(world); r++) {
        double offset = 0;
        if (tv_comm_rank(world) == 0)
            TV_TRY(ask_clock(world, r, &offset));
        else if (tv_comm_rank(world) == r)
            TV_TRY(answer_clock(world));
        TV_TRY(tv_comm_broadcast_now(world, &offset, 1, TV_F64, 0));
        if (tv_comm_rank(world) == r && !is_root)
            *offset_out = offset;
    }
    return TV_OK;
}

tv_status_t tv_run_mesh_create(struct tv_comm *world, const struct tv_run *run,
                               struct tv_mesh **mesh_out)
{
    return tv_mesh_create(world, run->extent, run->place != NULL ? &run->place->placement : NULL,
                          mesh_out);
}

/* What an array of this rank keeps of a local weight, from host memory of the array's type. */
static tv_status_t keep_in(struct tv_trainer *tr, int index, const struct tv_stored_weights *array,
                           const void *host)
{
    const struct tv_local_param local = tv_model_local_param(tr->model, index);
    const tv_dtype_t dtype = array->dtype;
    if (array->is_whole)
        TV_TRY(tv_stream_copy(tr->stream, tv_at(array->data, local.first, dtype), host,
                              (size_t)local.count * tv_dtype_bytes(dtype)));
    for (int i = 0; i < tr->sharding.num_pieces && !array->is_whole; i++) {
        const struct tv_owned_piece *piece = &tr->sharding.pieces[i];
        if (piece->local == index)
            TV_TRY(tv_stream_copy(tr->stream,
                                  tv_at(array->data, tv_stored_offset(array, piece), dtype),
                                  tv_const_at(host, piece->first - local.first, dtype),
                                  (size_t)piece->count * tv_dtype_bytes(dtype)));
    }
    return tv_stream_synchronize(tr->stream);
}

/* What this rank keeps of a local weight; host is overwritten. */
static tv_status_t keep_local(struct tv_trainer *tr, int index, float *host)
{
    const struct tv_weight_array *p = &tr->params;
    const struct tv_stored_weights params = {p->data, TV_F32, p->is_compact, p->is_whole};
    TV_TRY(keep_in(tr, index, &params, host));
    if (tr->weights.dtype == TV_F32)
        return TV_OK; /* the same array */
    tv_round_f32(host, tv_model_local_param(tr->model, index).count, tr->weights.dtype, host);
    return keep_in(tr, index, &tr->weights, host);
}

/* The stored weights of what this rank owns, from their masters. */
static tv_status_t round_masters(struct tv_trainer *tr)
{
    const struct tv_kernels *kernels;
    TV_TRY(tv_trainer_kernels(tr, TV_F32, &kernels));
    for (int i = 0; i < tr->sharding.num_pieces; i++) {
        const struct tv_owned_piece *piece = &tr->sharding.pieces[i];
        const struct tv_to_bf16_args round = {
            piece->count, tr->params.data + tv_piece_offset(&tr->params, piece),
            tv_at(tr->weights.data, tv_stored_offset(&tr->weights, piece), TV_BF16)};
        TV_TRY(kernels->to_bf16(tr->stream, &round));
    }
    return TV_OK;
}

tv_status_t tv_trainer_publish_params(struct tv_trainer *tr)
{
    if (tr->weights.dtype == TV_BF16)
        TV_TRY(round_masters(tr));
    return tv_trainer_gather_weights(tr);
}

tv_status_t tv_trainer_gather_weights(struct tv_trainer *tr)
{
    if (tr->run->zero_stage == 0 || !tr->weights.is_whole)
        return TV_OK;
    return tv_buckets_gather(tr->zero.shards, tr->stream, &tr->sharding.shards, tr->weights.data,
                             tr->weights.dtype);
}

/* file NULL: of the seed */
static tv_status_t fill_local(struct tv_trainer *tr, struct tv_hf *file, int index)
{
    const struct tv_run *run = tr->run;
    const struct tv_param *param = tv_model_local_param(tr->model, index).param;
    const int T = run->extent.at[TV_TENSOR], t = tr->here.at[TV_TENSOR];
    float *host = calloc((size_t)tv_param_local_count(param, T), sizeof(*host));
    if (host == NULL)
        return TV_ERR(TV_NO_MEMORY, "initial values of %s", param->name);
    tv_status_t status = TV_OK;
    if (file != NULL)
        status = tv_hf_read_piece(file, param, T, t, host);
    else
        tv_param_init(param, T, t, (uint64_t)run->options.seed, run->model.init_std,
                      run->model.num_layers, tv_device_num_threads(tr->device), host);
    if (status == TV_OK)
        status = keep_local(tr, index, host);
    free(host);
    return status;
}

tv_status_t tv_trainer_fill_weights(struct tv_trainer *tr, const char *path)
{
    struct tv_hf *file = NULL;
    if (path != NULL)
        TV_TRY(tv_hf_open(path, &tr->run->model, tv_model_table(tr->model), &file));
    tv_status_t status = TV_OK;
    for (int i = 0; i < tv_model_num_local_params(tr->model) && status == TV_OK; i++)
        status = fill_local(tr, file, i);
    tv_hf_close(file);
    return status;
}
