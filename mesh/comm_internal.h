/* mesh/comm_internal.h -- what a communicator is made of, and what an implementation must provide.
 *
 * An implementation on the host provides messages between two ranks (post_send, post_recv, test, cancel) and groups
 * (split). The collectives in comm_collectives.c are built on those, so that every host implementation adds in the same
 * order. An implementation with collectives of its own (NCCL) overrides `collective`. */
#ifndef TV_MESH_COMM_INTERNAL_H
#define TV_MESH_COMM_INTERNAL_H
#include "mesh/comm.h"
#include <stdatomic.h>

TV_BEGIN_C
enum { TV_TAG_MESSAGES = 0, TV_TAG_COLLECTIVES = 1, TV_TAG_WINDOW = 8192 };
enum { TV_COMM_MAX_NAME = 48, TV_COMM_MAX_CONTEXT = 96 };

/* One message in flight. The implementation owns `handle` and `next`. */
struct tv_message {
    int peer, tag, is_recv;
    void *data;
    int64_t bytes;
    atomic_int is_done;
    int64_t got_bytes; /* threads: length of the other side, when it differs; else -1 */
    struct tv_message *next;
    void *handle;
};

typedef enum {
    TV_OP_SEND,
    TV_OP_RECV,
    TV_OP_ALL_REDUCE,
    TV_OP_REDUCE_SCATTER,
    TV_OP_ALL_GATHER,
    TV_OP_BROADCAST
} tv_op_t;

struct tv_request {
    struct tv_comm *comm;
    struct tv_request *next_free;
    tv_op_t op;
    tv_reduce_op_t reduce;
    tv_dtype_t dtype;
    int phase, tag, root;
    int64_t count; /* elements, as the caller gave it */
    const void *send;
    void *recv; /* or the buffer in place */
    int num_messages, num_done;
    struct tv_message *messages; /* [2 * size] */
    void *scratch;
    size_t scratch_bytes;
};

struct tv_comm_ops {
    const char *name;
    /* data is borrowed until the message is done */
    tv_status_t (*post)(struct tv_comm *comm, struct tv_message *message);
    tv_status_t (*test)(struct tv_comm *comm, struct tv_message *message, int *done_out);
    void (*cancel)(struct tv_comm *comm, struct tv_message *message);
    /* The new group of `members` (ranks of comm, in the new order, this rank among them); NULL for no group. */
    tv_status_t (*split)(struct tv_comm *comm, const int *members, int num_members,
                         struct tv_comm **comm_out);
    void (*abort)(struct tv_comm *comm, int exit_code);
    int (*is_aborted)(const struct tv_comm *comm);
    void (*destroy)(struct tv_comm *comm);
};

struct tv_comm {
    const struct tv_comm_ops *ops;
    int rank, size;
    double timeout_seconds;
    struct tv_comm_stats stats;
    int next_tag;
    struct tv_request *free_requests;
    void *state; /* the implementation's */
    char name[TV_COMM_MAX_NAME], context[TV_COMM_MAX_CONTEXT];
};

/* A communicator with everything but `state`; freed by tv_comm_destroy after ops->destroy. */
TV_MUST_CHECK tv_status_t tv_comm_alloc(const struct tv_comm_ops *ops, int rank, int size,
                                        void *state, struct tv_comm **comm_out);

/* comm_collectives.c */
TV_MUST_CHECK tv_status_t tv_collective_start(struct tv_request *request);
/* Called when all messages of the phase are done: finish, or start the next one. */
TV_MUST_CHECK tv_status_t tv_collective_advance(struct tv_request *request, int *done_out);
/* Append a message of the request and post it. */
TV_MUST_CHECK tv_status_t tv_request_post(struct tv_request *request, int is_recv, void *data,
                                          int64_t bytes, int peer);
/* At least `bytes` of the request's own memory; kept for its next use. */
TV_MUST_CHECK tv_status_t tv_request_scratch(struct tv_request *request, size_t bytes);
TV_END_C
#endif
