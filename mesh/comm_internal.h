/* mesh/comm_internal.h -- what a communicator is made of, and what an implementation provides.
 *
 * An implementation on the host provides messages between two ranks (post, test, cancel) and groups
 * (split); it takes its collectives from tv_host_collectives, which are built on those messages, so
 * that all host implementations add in the same order. One that has collectives of its own (NCCL)
 * brings another table.
 *
 * A collective may need its peers to take a further step (add, then hand round). Every wait
 * therefore also moves this rank's other operations on, whatever group they belong to: ranks may
 * wait for operations in any order. */
#ifndef TV_MESH_COMM_INTERNAL_H
#define TV_MESH_COMM_INTERNAL_H
#include "mesh/comm.h"
#include <stdatomic.h>

TV_BEGIN_C
/* Tags of messages: one for send and receive, and a window for the collectives in flight; MPI
 * promises tags up to 32767. */
enum { TV_TAG_MESSAGES = 0, TV_TAG_COLLECTIVES = 1, TV_TAG_WINDOW = 8192 };
enum { TV_COMM_MAX_NAME = 48, TV_COMM_MAX_CONTEXT = 96, TV_COMM_DEFAULT_TIMEOUT = 120 };

/* One message in flight. */
#define TV_MORE_BYTES INT64_MAX
struct tv_message {
    int peer, tag, is_recv;
    void *data;
    int64_t bytes;
    atomic_int is_done;
    int64_t got_bytes; /* the other side's length where it differs (TV_MORE_BYTES: nobody knows by
                          how much), else -1 */
    struct tv_message *next; /* the implementation's */
    void *handle;            /* the implementation's, from malloc; kept for the next message */
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
    struct tv_request *next, *previous; /* in flight, or free */
    tv_status_t status;                 /* of the steps taken while others were waited for */
    tv_op_t op;
    tv_reduce_op_t reduce;
    tv_dtype_t dtype;
    int phase, tag, root;
    int peers_need_step;   /* its peers wait for what this rank does when the messages are done */
    int64_t count;         /* elements, as the caller gave it; this rank's of `counts` */
    const int64_t *counts; /* [size] uneven pieces of a reduce_scatter or all_gather, or NULL */
    const void *send;
    void *recv; /* equal to send when in place */
    /* So far; the first num_done are done, and the next step comes when the first num_awaited are. */
    int num_messages, num_done, num_awaited;
    struct tv_message *messages; /* [max_messages] */
    int max_messages;
    void *scratch; /* received parts */
    size_t scratch_bytes;
};

struct tv_collectives {
    size_t (*scratch_bytes)(const struct tv_comm *comm, tv_op_t op, int64_t count,
                            tv_dtype_t dtype);
    tv_status_t (*start)(struct tv_request *request);
    /* Called when num_awaited messages are done: finish, or post more and say how many to await. */
    tv_status_t (*advance)(struct tv_request *request, int *done_out);
};
extern const struct tv_collectives tv_host_collectives;
/* Messages that a collective among `size` ranks has under way at most. */
int tv_collective_max_messages(int size);

struct tv_comm_ops {
    const char *name;
    const struct tv_collectives *collectives;
    /* Data is borrowed until the message is done or cancelled. */
    tv_status_t (*post)(struct tv_comm *comm, struct tv_message *message);
    tv_status_t (*test)(struct tv_comm *comm, struct tv_message *message, int *done_out);
    void (*cancel)(struct tv_comm *comm, struct tv_message *message);
    /* The new group of `members` (ranks of comm, in the new order, this rank among them), or
     * nothing when num_members is 0. */
    tv_status_t (*split)(struct tv_comm *comm, const int *members, int num_members,
                         struct tv_comm **comm_out);
    /* Inherited by splits of any kind, so it must not look into `state` of an MPI group. */
    void (*end_job)(struct tv_comm *comm, int exit_code);
    int (*is_failed)(const struct tv_comm *comm);
    void (*destroy)(struct tv_comm *comm);
};

/* What the communicators of one rank that were split from one another share. */
struct tv_comm_rank {
    int num_comms;
    int has_aborted;
    struct tv_request *in_flight;
};

struct tv_comm {
    const struct tv_comm_ops *ops;
    int rank, size;
    double timeout_seconds;
    struct tv_comm_stats stats;
    int next_tag;
    struct tv_request *free_requests;
    struct tv_comm_rank *shared;
    void (*end_job)(struct tv_comm *comm, int exit_code);
    void *state; /* the implementation's */
    char name[TV_COMM_MAX_NAME], context[TV_COMM_MAX_CONTEXT];
};

/* A communicator that owns `state`; on failure the caller keeps it. */
TV_MUST_CHECK tv_status_t tv_comm_alloc(const struct tv_comm_ops *ops, int rank, int size,
                                        void *state, struct tv_comm **comm_out);
/* Make `comm`, fresh from a split, one of its parent's rank. */
void tv_comm_inherit(struct tv_comm *comm, struct tv_comm *parent);

/* Append a message to the request and post it. */
TV_MUST_CHECK tv_status_t tv_request_post(struct tv_request *request, int is_recv, void *data,
                                          int64_t bytes, int peer);
/* Cancel what is not done and keep the request for its next use. */
void tv_request_release(struct tv_request *request);
TV_END_C
#endif
