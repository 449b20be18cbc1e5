/* mesh/nccl_internal.h -- the table through which libtrivet calls NCCL, which only libtrivet_cuda.so
 * links: comm_nccl_cuda.cu fills it, the device's loader finds it.
 *
 * Nothing here waits: what takes time is asked for with `ready`, so that the caller's loop holds the
 * deadline. A failure is a sentence in `message` and a status; TV_PEER where NCCL says that a peer or the
 * network failed. */
#ifndef TV_MESH_NCCL_INTERNAL_H
#define TV_MESH_NCCL_INTERNAL_H
#include "mesh/comm.h"

TV_BEGIN_C
typedef enum {
    TV_OP_SEND,
    TV_OP_RECV,
    TV_OP_ALL_REDUCE,
    TV_OP_REDUCE_SCATTER,
    TV_OP_ALL_GATHER,
    TV_OP_BROADCAST
} tv_op_t;

enum { TV_NCCL_ID_BYTES = 128, TV_NCCL_MESSAGE = 256 };

/* One operation, as comm.h describes it. */
struct tv_nccl_call {
    tv_op_t op;
    int rank, size; /* of the communicator it goes to */
    const void *send;
    void *recv;
    int64_t count;
    const int64_t *counts; /* [size] uneven pieces, or NULL */
    tv_dtype_t dtype;
    tv_reduce_op_t reduce;
    int root; /* or the peer */
};

struct tv_nccl_table {
    tv_status_t (*unique_id)(char *id_out, char *message); /* [TV_NCCL_ID_BYTES] */
    /* Begin to make a communicator; usable once it is ready. num_channels: blocks of the GPU that its operations take,
     * 0 for NCCL's choice. */
    tv_status_t (*open)(const char *id, int rank, int size, void **comm_out, char *message);
    /* color < 0: take part without getting one. *made_out is written by the time `comm` is ready. */
    tv_status_t (*split)(void *comm, int color, int key, int num_channels, void **made_out,
                         char *message);
    /* Is what was last begun on it done? Errors: what NCCL noticed on its own. */
    tv_status_t (*ready)(void *comm, int *ready_out, char *message);
    /* Enqueue on the driver's stream. The communicator must be ready, and is again when it is enqueued. */
    tv_status_t (*enqueue)(void *comm, const struct tv_nccl_call *call, void *stream,
                           char *message);
    tv_status_t (*finalize)(void *comm,
                            char *message); /* begin; ready says when `destroy` may come */
    void (*destroy)(void *comm);
    void (*abort)(void *const *comms,
                  int num); /* whatever they are doing, on the GPU too; destroys them */
};

/* Exported by libtrivet_cuda.so: struct tv_nccl_table. */
const void *tv_nccl_cuda_table(void);
TV_END_C
#endif
