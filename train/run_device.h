/* train/run_device.h -- which device a run is for, and each rank's own. */
#ifndef TV_TRAIN_RUN_DEVICE_H
#define TV_TRAIN_RUN_DEVICE_H
#include "mesh/mesh.h"
#include "train/run.h"

TV_BEGIN_C
/* --device, --comm and --precision: run->device_kind, move, dtype, uses_tf32. --device auto is a GPU where driver,
 * library and GPU are there, and says why not where only some of them are. Errors: TV_INVALID (no such word; tf32 or
 * nccl on a CPU), TV_UNSUPPORTED (cuda where there is none). */
TV_MUST_CHECK tv_status_t tv_run_resolve_device(struct tv_run *run);
/* All ranks of a run have the same sort of device. Collective over world. Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_run_check_devices(struct tv_comm *world, const struct tv_run *run);
/* This rank's CPU. Its large buffers ask for huge pages where the ranks are processes, which may read each other's
 * (docs/decisions/0020-sums-through-peers-memory.md). */
TV_MUST_CHECK tv_status_t tv_open_rank_cpu(const struct tv_comm *world, int num_threads,
                                           struct tv_device **device_out);
/* This rank's: the GPU that the mapper has given it (run->place), else the one with its number among the ranks of its
 * node, counted round. num_threads: of a CPU. Errors: as tv_device_open_gpu. */
TV_MUST_CHECK tv_status_t tv_run_open_device(const struct tv_comm *world, const struct tv_run *run,
                                             int num_threads, struct tv_device **device_out);
/* The mesh's messages as --comm says: with NCCL where that is possible; auto says why not. The device must outlive the
 * mesh. Collective over the mesh. Errors: TV_INVALID and TV_UNSUPPORTED (--comm nccl: two ranks on one GPU; built
 * without it), on all ranks; TV_PEER. */
TV_MUST_CHECK tv_status_t tv_run_connect_devices(struct tv_mesh *mesh, const struct tv_run *run,
                                                 struct tv_device *device);
TV_END_C
#endif
