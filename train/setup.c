/* train/setup.c -- how many threads a rank may use, and where its first weights come from. */
#include "train/hf.h"
#include "train/trainer_internal.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* Ranks on this rank's host: those whose host name and boot identity hash alike. */
static tv_status_t ranks_on_host(struct tv_trainer *tr, int *num_out)
{
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    const int size = tv_comm_size(world);
    char name[512] = "";
    (void)gethostname(name, 256);
    FILE *boot = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (boot != NULL) {
        const size_t used = strlen(name);
        name[used + fread(name + used, 1, sizeof(name) - used - 1, boot)] = '\0';
        fclose(boot);
    }
    const int64_t mine = (int64_t)XXH64(name, strlen(name), 0);
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
    free(all);
    return status;
}

tv_status_t tv_trainer_fair_threads(struct tv_trainer *tr, int *num_threads_out)
{
    int ranks = 1;
    cpu_set_t allowed;
    TV_TRY(ranks_on_host(tr, &ranks));
    const int cores =
        sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
    const int fair = ranks > 0 && cores / ranks > 1 ? cores / ranks : 1;
    *num_threads_out = tr->run->options.num_threads > 0 ? tr->run->options.num_threads : fair;
    return TV_OK;
}

tv_status_t tv_trainer_read_weights(struct tv_trainer *tr, const char *path)
{
    struct tv_comm *tensor = tv_mesh_comm(tr->mesh, TV_TENSOR);
    struct tv_hf *file = NULL;
    TV_TRY(tv_hf_open(path, &tr->run->model, tv_model_table(tr->model), &file));
    tv_status_t status = TV_OK;
    for (int i = 0; i < tv_model_num_local_params(tr->model) && status == TV_OK; i++) {
        const struct tv_local_param local = tv_model_local_param(tr->model, i);
        float *host = calloc((size_t)local.count, sizeof(*host));
        if (host == NULL) {
            status = TV_ERR(TV_NO_MEMORY, "%s: %s", path, local.param->name);
            break;
        }
        status =
            tv_hf_read_piece(file, local.param, tv_comm_size(tensor), tv_comm_rank(tensor), host);
        if (status == TV_OK)
            status = tv_stream_copy(tr->stream, tv_model_params(tr->model) + local.first, host,
                                    (size_t)local.count * sizeof(*host));
        if (status == TV_OK)
            status = tv_stream_synchronize(tr->stream);
        free(host);
    }
    tv_hf_close(file);
    return status;
}
