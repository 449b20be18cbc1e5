/* mesh/nccl.h -- communicators that move device memory by NCCL.
 *
 * A communicator stays what it is, over threads or MPI, for host memory and for groups; it gets a device
 * side. From then on collectives with a stream of that device go over NCCL, on a stream of the group's
 * own: tv_request_wait makes the caller's stream wait, not the host, and a deadline that passes shows
 * where the host waits for a stream (tv_stream_synchronize) or starts an operation. After that every
 * operation on the device fails with the same sentence; tv_comm_abort and tv_comm_destroy are all that
 * is left. Without a device side device memory goes through the host.
 *
 * Buffers with a stream are device memory. Sums come in NCCL's order: the same ranks on the same GPUs
 * repeat their bits, but they are not those of the host, and a bf16 sum is rounded at each hop. */
#ifndef TV_MESH_NCCL_H
#define TV_MESH_NCCL_H
#include "mesh/comm.h"

TV_BEGIN_C
/* Has every rank of `world` a GPU of its own, as NCCL needs it? Collective. Errors: TV_INVALID, on all
 * ranks, naming two ranks, their node and the GPU's address. */
TV_MUST_CHECK tv_status_t tv_nccl_check_gpus(struct tv_comm *world, struct tv_device *device);

/* Give `comm` a device side; groups split from it later get one too. The device must outlive them.
 * Nothing is done for one rank alone. Collective. Errors: TV_UNSUPPORTED (the CPU; built without NCCL),
 * TV_PEER (a rank did not come in time, NCCL failed), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_comm_use_nccl(struct tv_comm *comm, struct tv_device *device);
/* The same for `made`, which was split from comm with this color and key before comm got its device
 * side. Collective over comm; `made` NULL where color < 0. */
TV_MUST_CHECK tv_status_t tv_comm_share_nccl(struct tv_comm *comm, int color, int key,
                                             struct tv_comm *made);

/* Messages to neighbours in the ring of ranks go over NCCL too: to the next rank (from the previous
 * one), to the previous, or both. Other messages stay with the host. Collective; does nothing without a
 * device side. */
enum { TV_TO_NEXT = 1, TV_TO_PREVIOUS = 2 };
TV_MUST_CHECK tv_status_t tv_comm_use_nccl_messages(struct tv_comm *comm, int directions);
TV_END_C
#endif
