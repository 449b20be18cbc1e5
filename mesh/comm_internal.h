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
#include "mesh/nccl_internal.h"
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

/* What tv_comm_all_reduce and its like were called with. */
struct tv_start {
    tv_op_t op;
    const void *send;
    void *recv;
    int64_t count;
    tv_dtype_t dtype;
    tv_reduce_op_t reduce;
    int root;              /* or the peer */
    const int64_t *counts; /* [size] of the _v forms, else NULL */
};

/* Host memory that stands for device memory while an operation of the host runs. */
struct tv_stage {
    struct tv_stream *stream; /* NULL: nothing is staged */
    void *recv;               /* of the caller, on the device */
    size_t recv_bytes;
    char *host; /* [bytes]: what is sent, then what is received */
    size_t bytes;
};

struct tv_device_op; /* one operation of NCCL, in comm_nccl.c */

struct tv_request {
    struct tv_comm *comm;
    struct tv_request *next, *previous; /* in flight, or free */
    tv_status_t status;                 /* of the steps taken while others were waited for */
    tv_op_t op;
    tv_reduce_op_t reduce;
    tv_dtype_t dtype;
    int phase, tag, root;
    int peers_need_step;   /* its peers wait for what this rank does when the messages are done */
    int is_direct;         /* done by reaching into peers' memory (comm_direct.c) */
    int is_within_reach;   /* of peers, still: its buffers may not go */
    int64_t count;         /* elements, as the caller gave it; this rank's of `counts` */
    const int64_t *counts; /* [size] uneven pieces of a reduce_scatter or all_gather, or NULL */
    const void *send;
    void *recv; /* equal to send when in place */
    /* So far; the first num_done are done, and the next step comes when the first num_awaited are. */
    int num_messages, num_done, num_awaited;
    struct tv_message *messages; /* [max_messages] */
    int max_messages;
    const void **parts; /* [size]: what a sum adds, of every rank */
    void *scratch;      /* received parts */
    size_t scratch_bytes;
    struct tv_stage stage;
    struct tv_device_op *device_op; /* it runs on the device; NULL: on the host */
};

struct tv_collectives {
    size_t (*scratch_bytes)(const struct tv_comm *comm, const struct tv_start *start);
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

/* ---- memory of peers (comm_direct.c) ---- */

/* What keeps the ranks of a process out of the memory of one that gave up: all zero at first. */
struct tv_gate {
    atomic_int is_closed;  /* for good */
    atomic_int num_inside; /* ranks that read or write a peer's memory now */
};

/* How a rank reads and writes what its peers told it the place of. Threads read and write there as in their own memory:
 * they have a gate, and no functions. */
struct tv_reach {
    tv_status_t (*read)(const struct tv_comm *comm, int peer, uint64_t place, void *to,
                        size_t bytes);
    tv_status_t (*write)(const struct tv_comm *comm, int peer, uint64_t place, const void *from,
                         size_t bytes);
    struct tv_gate *gate; /* of the group's threads; NULL: processes */
    int peers[];          /* [size] process ids; threads have none */
};

/* What the communicators of one rank that were split from one another share. */
struct tv_comm_rank {
    int num_comms;
    int has_aborted;
    struct tv_request *in_flight;
    struct tv_device_side *sides; /* of those that have one */
    double device_progress_at;    /* when an operation there was last seen to be done */
    int64_t num_device_ops;
    char device_error[512]; /* why nothing runs there any more, or "" */
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
    void *state;                        /* the implementation's */
    struct tv_reach *reach;             /* into the memory of all its peers, from malloc, or NULL */
    struct tv_device_side *device_side; /* NCCL beside it, or NULL */
    char name[TV_COMM_MAX_NAME], context[TV_COMM_MAX_CONTEXT];
};

/* A communicator that owns `state`; on failure the caller keeps it. */
TV_MUST_CHECK tv_status_t tv_comm_alloc(const struct tv_comm_ops *ops, int rank, int size,
                                        void *state, struct tv_comm **comm_out);
/* Make `comm`, fresh from a split, one of its parent's rank. */
void tv_comm_inherit(struct tv_comm *comm, struct tv_comm *parent);

/* Nobody reads or writes the buffers of a request that its peers may not have done with any more. */
void tv_direct_give_up(struct tv_request *request);

/* A request in flight, without messages yet. */
TV_MUST_CHECK tv_status_t tv_request_take(struct tv_comm *comm, const struct tv_start *start,
                                          size_t scratch_bytes, struct tv_request **request_out);
/* Start what the request says on the host; on failure it is released. */
TV_MUST_CHECK tv_status_t tv_request_start(struct tv_request *request);
size_t tv_start_scratch_bytes(const struct tv_comm *comm, const struct tv_start *start);

/* ---- device memory (comm_stage.c, comm_nccl.c) ---- */

/* An operation on device memory: by NCCL where the group has it, else through host memory. */
TV_MUST_CHECK tv_status_t tv_device_begin(struct tv_comm *comm, const struct tv_start *start,
                                          struct tv_stream *stream,
                                          struct tv_request **request_out);
/* The host's part is done: what came goes to the device. */
TV_MUST_CHECK tv_status_t tv_stage_finish(struct tv_request *request);

/* NCCL's line for the operation, or NULL where the host must do it. */
struct tv_nccl_line *tv_nccl_line_for(const struct tv_comm *comm, const struct tv_start *start);
TV_MUST_CHECK tv_status_t tv_nccl_start(struct tv_comm *comm, struct tv_nccl_line *line,
                                        const struct tv_start *start, struct tv_stream *stream,
                                        struct tv_request **request_out);
/* Has it run? Errors: TV_PEER. */
TV_MUST_CHECK tv_status_t tv_nccl_test(struct tv_request *request, int *done_out);
/* The caller's stream waits for it; the host does not. */
TV_MUST_CHECK tv_status_t tv_nccl_wait(struct tv_request *request);
/* The request does not need its operation any more. */
void tv_nccl_release(struct tv_request *request);
/* The device side of `made`, split from comm; all ranks of comm, with color < 0 those without one. */
TV_MUST_CHECK tv_status_t tv_nccl_split(struct tv_comm *comm, int color, int key,
                                        struct tv_comm *made);
/* Look after the operations under way of all groups of this rank. waited_seconds: how long the host
 * has been waiting. Errors: TV_PEER, a deadline passed or NCCL failed: everything is aborted. */
TV_MUST_CHECK tv_status_t tv_nccl_poll(struct tv_comm_rank *shared, double waited_seconds);
void tv_nccl_close(struct tv_comm *comm);
/* "tensor axis, rank 1: all_reduce of 7 elements", for sentences. */
const char *tv_op_name(tv_op_t op);

/* Append a message to the request and post it. */
TV_MUST_CHECK tv_status_t tv_request_post(struct tv_request *request, int is_recv, void *data,
                                          int64_t bytes, int peer);
/* Cancel what is not done and keep the request for its next use. */
void tv_request_release(struct tv_request *request);
TV_END_C
#endif
