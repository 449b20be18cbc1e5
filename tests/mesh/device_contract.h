/* tests/mesh/device_contract.h -- the contract's operations on device memory: what a case gives as host
 * memory is copied to the device, goes its way with a stream, and comes back at the wait. A
 * contract_*.cc compiled with -include of this file and DEVICE_CONTRACT defined calls these in place of
 * the library's. */
#ifndef TESTS_MESH_DEVICE_CONTRACT_H
#define TESTS_MESH_DEVICE_CONTRACT_H
#include "mesh/nccl.h"
#include "mesh/ranks.h"

/* This thread's device; groups and operations of the shim belong to the thread. */
struct DevicePlace {
    struct tv_device *device = nullptr;
    struct tv_stream *stream = nullptr;
};
extern thread_local DevicePlace device_place;

/* `size` threads, each with a device, and a world whose device memory goes over NCCL or through the host. */
void run_device_threads(int size, bool uses_nccl, const RankBody &body);

tv_status_t device_split(struct tv_comm *comm, int color, int key, struct tv_comm **comm_out);
tv_status_t device_all_reduce(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                              tv_reduce_op_t op, struct tv_stream *stream,
                              struct tv_request **request_out);
tv_status_t device_reduce_scatter(struct tv_comm *comm, const void *send, void *recv, int64_t count,
                                  tv_dtype_t dtype, tv_reduce_op_t op, struct tv_stream *stream,
                                  struct tv_request **request_out);
tv_status_t device_all_gather(struct tv_comm *comm, const void *send, void *recv, int64_t count,
                              tv_dtype_t dtype, struct tv_stream *stream,
                              struct tv_request **request_out);
tv_status_t device_reduce_scatter_v(struct tv_comm *comm, const void *send, void *recv,
                                    const int64_t *counts, tv_dtype_t dtype,
                                    struct tv_stream *stream, struct tv_request **request_out);
tv_status_t device_all_gather_v(struct tv_comm *comm, const void *send, void *recv,
                                const int64_t *counts, tv_dtype_t dtype, struct tv_stream *stream,
                                struct tv_request **request_out);
tv_status_t device_broadcast(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                             int root, struct tv_stream *stream, struct tv_request **request_out);
tv_status_t device_send(struct tv_comm *comm, const void *buffer, int64_t count, tv_dtype_t dtype,
                        int peer, struct tv_stream *stream, struct tv_request **request_out);
tv_status_t device_recv(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                        int peer, struct tv_stream *stream, struct tv_request **request_out);
tv_status_t device_test(struct tv_request **request, int *done_out);
tv_status_t device_wait(struct tv_request **request);
void device_cancel(struct tv_request **request);
tv_status_t device_all_reduce_now(struct tv_comm *comm, void *buffer, int64_t count,
                                  tv_dtype_t dtype, tv_reduce_op_t op);
tv_status_t device_broadcast_now(struct tv_comm *comm, void *buffer, int64_t count,
                                 tv_dtype_t dtype, int root);

#ifdef DEVICE_CONTRACT
#define tv_comm_split            device_split
#define tv_comm_all_reduce       device_all_reduce
#define tv_comm_reduce_scatter   device_reduce_scatter
#define tv_comm_all_gather       device_all_gather
#define tv_comm_reduce_scatter_v device_reduce_scatter_v
#define tv_comm_all_gather_v     device_all_gather_v
#define tv_comm_broadcast        device_broadcast
#define tv_comm_send             device_send
#define tv_comm_recv             device_recv
#define tv_request_test          device_test
#define tv_request_wait          device_wait
#define tv_request_cancel        device_cancel
#define tv_comm_all_reduce_now   device_all_reduce_now
#define tv_comm_broadcast_now    device_broadcast_now
#endif
#endif
