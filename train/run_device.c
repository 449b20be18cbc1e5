/* train/run_device.c -- from --device to a device for each rank. */
#include "train/run_device.h"
#include "base/log.h"
#include "mesh/nccl.h"
#include "train/place.h"
#include <string.h>

/* A machine without a GPU driver opens no CUDA library to find that out. */
static int finds_gpu(void)
{
    int num = 0;
    if (!tv_gpu_has_driver())
        return 0;
    if (tv_gpu_count(&num) == TV_OK)
        return 1;
    tv_log(TV_LOG_WARN, "--device auto is the CPU: there is a GPU driver, but %s",
           tv_error_message());
    return 0;
}

static tv_status_t resolve_kind(struct tv_run *run)
{
    const char *word = run->options.device;
    int num = 0;
    run->device_kind = TV_DEVICE_CPU;
    if (strcmp(word, "cpu") == 0)
        return TV_OK;
    if (strcmp(word, "auto") == 0) {
        run->device_kind = finds_gpu() ? TV_DEVICE_CUDA : TV_DEVICE_CPU;
        return TV_OK;
    }
    if (strcmp(word, "cuda") != 0)
        return TV_ERR(TV_INVALID, "--device %s is not one of auto, cpu, cuda", word);
    run->device_kind = TV_DEVICE_CUDA;
    if (run->options.is_dry_run)
        return TV_OK; /* of a machine that need not be this one */
    if (tv_gpu_count(&num) != TV_OK)
        return TV_ERR(TV_UNSUPPORTED, "--device cuda: %s; --device cpu would work",
                      tv_error_message());
    return TV_OK;
}

static tv_status_t resolve_precision(struct tv_run *run)
{
    const char *word = run->options.precision;
    const int is_gpu = run->device_kind == TV_DEVICE_CUDA;
    run->dtype = is_gpu && word == NULL ? TV_BF16 : TV_F32;
    if (word == NULL || strcmp(word, "fp32") == 0)
        return TV_OK;
    if (strcmp(word, "bf16") == 0) {
        run->dtype = TV_BF16;
        return TV_OK;
    }
    if (strcmp(word, "tf32") != 0)
        return TV_ERR(TV_INVALID, "--precision %s is not one of fp32, bf16, tf32", word);
    if (!is_gpu)
        return TV_ERR(TV_INVALID, "--precision tf32 is how GPUs multiply; a CPU has fp32, bf16");
    run->uses_tf32 = 1;
    return TV_OK;
}

static tv_status_t resolve_move(struct tv_run *run)
{
    static const char *const words[] = {"auto", "nccl", "mpi"};
    const char *word = run->options.comm;
    for (int i = 0; i < 3; i++) {
        if (strcmp(word, words[i]) != 0)
            continue;
        run->move = (tv_move_t)i;
        if (run->move == TV_MOVE_NCCL && run->device_kind == TV_DEVICE_CPU)
            return TV_ERR(TV_INVALID, "--comm nccl is for --device cuda; a run on CPUs has --comm "
                                      "mpi, or none given");
        return TV_OK;
    }
    return TV_ERR(TV_INVALID, "--comm %s is not one of auto, nccl, mpi", word);
}

tv_status_t tv_run_resolve_device(struct tv_run *run)
{
    TV_TRY(resolve_kind(run));
    TV_TRY(resolve_move(run));
    return resolve_precision(run);
}

tv_status_t tv_run_check_devices(struct tv_comm *world, const struct tv_run *run)
{
    int num_gpus = run->device_kind == TV_DEVICE_CUDA;
    TV_TRY(tv_comm_all_reduce_now(world, &num_gpus, 1, TV_I32, TV_SUM));
    if (num_gpus == 0 || num_gpus == tv_comm_size(world))
        return TV_OK;
    return TV_ERR(
        TV_INVALID,
        "--device auto: %d of %d ranks have a GPU; say --device cpu, or start ranks where "
        "there are GPUs",
        num_gpus, tv_comm_size(world));
}

/* Ranks of the same node before this one. */
static int local_rank(const struct tv_comm *world, const struct tv_run *run)
{
    const int here = tv_comm_rank(world);
    if (run->place == NULL)
        return here;
    const int *node_of = run->place->nodes.node_of;
    int num = 0;
    for (int r = 0; r < here; r++)
        num += node_of[r] == node_of[here];
    return num;
}

tv_status_t tv_open_rank_cpu(const struct tv_comm *world, int num_threads,
                             struct tv_device **device_out)
{
    TV_TRY(tv_device_open(TV_DEVICE_CPU, num_threads, device_out));
    if (tv_comm_size(world) > 1 && strcmp(tv_comm_backend(world), "thread") != 0)
        tv_device_prefer_huge_pages(*device_out);
    return TV_OK;
}

tv_status_t tv_run_open_device(const struct tv_comm *world, const struct tv_run *run,
                               int num_threads, struct tv_device **device_out)
{
    struct tv_gpu_choice choice = {.num_threads = num_threads, .uses_tf32 = run->uses_tf32};
    if (run->device_kind == TV_DEVICE_CPU)
        return tv_open_rank_cpu(world, num_threads, device_out);
    choice.index = local_rank(world, run);
    if (run->place != NULL && run->place->gpus != NULL)
        memcpy(choice.pci, run->place->gpus[tv_comm_rank(world)], TV_TOPO_PCI);
    TV_TRY(tv_device_open_gpu(&choice, device_out));
    tv_log(TV_LOG_DEBUG, "rank %d: %s at %s", tv_comm_rank(world), tv_device_name(*device_out),
           tv_device_pci(*device_out));
    return TV_OK;
}

/* What other kernels want is less, unless a micro-batch has millions of tokens. */
int64_t tv_run_workspace_bytes(const struct tv_run *run)
{
    return run->device_kind == TV_DEVICE_CUDA ? TV_GPU_WORKSPACE_BYTES : 0;
}

/* Can NCCL join these ranks? The same verdict on all. */
static tv_status_t check_nccl(struct tv_comm *world, struct tv_device *device)
{
    tv_status_t status = TV_OK;
    int first_failed;
    if (tv_device_nccl(device) == NULL)
        status = TV_ERR(TV_UNSUPPORTED, "libtrivet_cuda.so is built without NCCL");
    TV_TRY(tv_comm_agree(world, status, &first_failed));
    return tv_nccl_check_gpus(world, device);
}

tv_status_t tv_run_connect_devices(struct tv_mesh *mesh, const struct tv_run *run,
                                   struct tv_device *device)
{
    struct tv_comm *world = tv_mesh_world(mesh);
    if (run->device_kind == TV_DEVICE_CPU || run->move == TV_MOVE_HOST || tv_comm_size(world) == 1)
        return TV_OK;
    const tv_status_t status = check_nccl(world, device);
    if (status == TV_OK) {
        TV_TRY(tv_mesh_use_nccl(mesh, device));
        return run->options.is_sequence_parallel /* rows go round the ring of tensor ranks */
                   ? tv_comm_use_nccl_messages(tv_mesh_comm(mesh, TV_TENSOR), TV_TO_NEXT)
                   : TV_OK;
    }
    if (status == TV_PEER)
        return status;
    if (run->move == TV_MOVE_NCCL)
        return TV_ERR(status, "--comm nccl: %s; --comm mpi would work", tv_error_message());
    if (tv_comm_rank(world) == 0)
        tv_log(TV_LOG_INFO, "--comm auto is mpi: %s", tv_error_message());
    return TV_OK;
}
