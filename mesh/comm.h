/* mesh/comm.h -- messages and collectives among the ranks of one group, the same over one rank,
 * threads, MPI or NCCL.
 *
 * Every operation is non-blocking: it returns a request, which tv_request_wait finishes. Waiting
 * polls, yields the core, sleeps when there is long nothing to do (more ranks than cores is
 * normal), and holds a deadline: a wait that passes it fails with TV_PEER and a sentence naming
 * axis, operation, peer and context.
 *
 * Order: the ranks of a group issue their collectives in the same order; between two ranks messages
 * arrive in the order they were sent. Several operations of one group may be in flight. Counts are
 * 64-bit elements.
 *
 * Reductions add in rank order 0, 1, 2, ... on every implementation that moves data on the host, so
 * the same mesh gives the same bits every time, and threads and MPI processes give the same bits
 * too.
 *
 * A communicator belongs to one rank (one thread). Buffers are borrowed until the request is done;
 * a send may wait for its receive to be posted. Ranks may wait for requests in any order: a wait
 * moves this rank's other operations on too, in all groups split from one another.
 * `stream` is where the data is produced and consumed; host implementations synchronize it first.
 * NULL: host memory whose data is ready. */
#ifndef TV_MESH_COMM_H
#define TV_MESH_COMM_H
#include "base/device.h"
#include "base/dtype.h"
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
typedef enum { TV_SUM, TV_MAX, TV_MIN } tv_reduce_op_t;

struct tv_comm;    /* opaque; a table of operations per implementation, in comm_internal.h */
struct tv_request; /* one operation in flight */

/* A group of this rank alone. */
TV_MUST_CHECK tv_status_t tv_comm_self_create(struct tv_comm **comm_out);

/* Ranks as threads of this process: makes `size` communicators, one for each thread to use;
 * comms_out [size]. Destroyed one by one by their threads. */
TV_MUST_CHECK tv_status_t tv_comm_thread_create(int size, struct tv_comm **comms_out);

/* Ranks as MPI processes: the world. Calls MPI_Init_thread unless the caller has; then
 * tv_comm_destroy of the world finalizes MPI. Without a launcher it is one rank. See
 * mesh/comm_mpi.h for communicators from an MPI_Comm. */
TV_MUST_CHECK tv_status_t tv_comm_mpi_world(struct tv_comm **comm_out);

/* How a process leaves a world of tv_comm_mpi_world before it ends, collectively: all ranks are done
 * and pass the same exit code. Returns TV_OK where MPI can be finalized (tv_comm_destroy does it).
 * Where MPI_Finalize may hang (over TCP, docs/decisions/0014-leaving-mpi.md) it flushes all
 * streams and ends the process with exit_code. Errors: TV_PEER, for tv_comm_abort: some rank did
 * not come. */
TV_MUST_CHECK tv_status_t tv_comm_mpi_leave(struct tv_comm *world, int exit_code);

/* First line of the MPI library's own version, cut to fit. */
void tv_comm_mpi_version(char *text_out, size_t bytes);

/* NULL is a no-op. Collective for MPI. Nothing may be in flight, except after a failure: then it is
 * cancelled and its requests are freed. */
void tv_comm_destroy(struct tv_comm *comm);

int tv_comm_rank(const struct tv_comm *comm);
int tv_comm_size(const struct tv_comm *comm);
const char *tv_comm_backend(const struct tv_comm *comm); /* "self", "thread", "mpi", "nccl" */

/* 1: large sums and gathers of host memory go straight between the ranks' own buffers, without messages: threads of a
 * process, or processes of a node that may read each other's memory. The same bits either way. Buffers are then
 * ordinary memory, not pages that a driver has mapped. */
int tv_comm_reaches_peers(const struct tv_comm *comm);
/* From now on by messages only: to compare. All ranks of the group, nothing in flight. */
void tv_comm_forget_reach(struct tv_comm *comm);

/* For messages: the axis ("tensor"), and what this rank is doing ("stage 1, forward of micro-batch
 * 3"). Copied. */
void tv_comm_set_name(struct tv_comm *comm, const char *name);
void tv_comm_set_context(struct tv_comm *comm, const char *format, ...) TV_PRINTF(2, 3);
/* Seconds a wait may last; 120 by default, inherited by splits. <= 0: no deadline. */
void tv_comm_set_timeout(struct tv_comm *comm, double seconds);

/* Counters since creation: seconds spent in waits, bytes this rank sent (payload handed to the
 * transport), and operations. */
struct tv_comm_stats {
    double wait_seconds;
    int64_t sent_bytes;
    int64_t num_operations;
};
struct tv_comm_stats tv_comm_get_stats(const struct tv_comm *comm);
/* What sent_bytes counts when rank `rank` of `size` takes part in an all-reduce of `count` elements:
 * bytes to `peer`, or to all peers where it is negative. In a reduce-scatter or an all-gather of
 * `count` each rank sends `count` elements to each of its peers. */
int64_t tv_all_reduce_sent_bytes(int64_t count, tv_dtype_t dtype, int size, int rank, int peer);

/* New groups of the ranks that pass the same color >= 0, ordered by (key, rank). A rank that passes
 * a negative color gets *comm_out = NULL. A group of one is a self communicator. Collective,
 * blocking. */
TV_MUST_CHECK tv_status_t tv_comm_split(struct tv_comm *comm, int color, int key,
                                        struct tv_comm **comm_out);

/* buffer [count], in place; sums in rank order. dtypes: F32, F64, I32, I64, BF16 (fp32 sums,
 * rounded once). */
TV_MUST_CHECK tv_status_t tv_comm_all_reduce(struct tv_comm *comm, void *buffer, int64_t count,
                                             tv_dtype_t dtype, tv_reduce_op_t op,
                                             struct tv_stream *stream,
                                             struct tv_request **request_out);
/* send [size * count] -> recv [count]: rank r receives the reduction of everybody's r-th piece. No
 * aliasing. */
TV_MUST_CHECK tv_status_t tv_comm_reduce_scatter(struct tv_comm *comm, const void *send, void *recv,
                                                 int64_t count, tv_dtype_t dtype, tv_reduce_op_t op,
                                                 struct tv_stream *stream,
                                                 struct tv_request **request_out);
/* send [count] -> recv [size * count]; send may be its own place in recv. */
TV_MUST_CHECK tv_status_t tv_comm_all_gather(struct tv_comm *comm, const void *send, void *recv,
                                             int64_t count, tv_dtype_t dtype,
                                             struct tv_stream *stream,
                                             struct tv_request **request_out);
/* The same with pieces of any sizes, empty ones too: counts [size], borrowed until the request is
 * done; pieces lie one behind the other. Bytes sent by all ranks together: (size - 1) x those of all
 * pieces. reduce_scatter_v: recv may be its own place in send. */
TV_MUST_CHECK tv_status_t tv_comm_reduce_scatter_v(struct tv_comm *comm, const void *send,
                                                   void *recv, const int64_t *counts,
                                                   tv_dtype_t dtype, struct tv_stream *stream,
                                                   struct tv_request **request_out); /* sum */
TV_MUST_CHECK tv_status_t tv_comm_all_gather_v(struct tv_comm *comm, const void *send, void *recv,
                                               const int64_t *counts, tv_dtype_t dtype,
                                               struct tv_stream *stream,
                                               struct tv_request **request_out);
TV_MUST_CHECK tv_status_t tv_comm_broadcast(struct tv_comm *comm, void *buffer, int64_t count,
                                            tv_dtype_t dtype, int root, struct tv_stream *stream,
                                            struct tv_request **request_out);
TV_MUST_CHECK tv_status_t tv_comm_send(struct tv_comm *comm, const void *buffer, int64_t count,
                                       tv_dtype_t dtype, int peer, struct tv_stream *stream,
                                       struct tv_request **request_out);
TV_MUST_CHECK tv_status_t tv_comm_recv(struct tv_comm *comm, void *buffer, int64_t count,
                                       tv_dtype_t dtype, int peer, struct tv_stream *stream,
                                       struct tv_request **request_out);

/* Make progress and say whether it is done; a done request is freed and *request set to NULL. NULL
 * counts as done. */
TV_MUST_CHECK tv_status_t tv_request_test(struct tv_request **request, int *done_out);
/* Poll until done; frees the request, also on failure. */
TV_MUST_CHECK tv_status_t tv_request_wait(struct tv_request **request);
/* Move this rank's operations in flight on, in all groups split from one another, without waiting:
 * for long work between their start and their wait. A failure shows at the operation's own wait. */
void tv_comm_progress(struct tv_comm *comm);
/* Give up an operation after a failure, before its buffer goes; frees the request. The group is
 * only good for tv_comm_abort and tv_comm_destroy afterwards. NULL is a no-op. */
void tv_request_cancel(struct tv_request **request);
/* Poll, yield or sleep once in a caller's own waiting loop: idle_rounds = rounds without progress
 * so far. */
void tv_comm_relax(int idle_rounds);

/* Start and wait in one, where there is nothing to do in between. */
TV_MUST_CHECK tv_status_t tv_comm_all_reduce_wait(struct tv_comm *comm, void *buffer, int64_t count,
                                                  tv_dtype_t dtype, tv_reduce_op_t op,
                                                  struct tv_stream *stream);
/* Blocking shorthands for small host values. */
TV_MUST_CHECK tv_status_t tv_comm_all_reduce_now(struct tv_comm *comm, void *host_buffer,
                                                 int64_t count, tv_dtype_t dtype,
                                                 tv_reduce_op_t op);
TV_MUST_CHECK tv_status_t tv_comm_broadcast_now(struct tv_comm *comm, void *host_buffer,
                                                int64_t count, tv_dtype_t dtype, int root);
TV_MUST_CHECK tv_status_t tv_comm_barrier(struct tv_comm *comm);

/* Turn a local status into a common one: all ranks return the status of the lowest rank that failed
 * (TV_OK if none), and every rank's tv_error_message() becomes that rank's sentence.
 * *first_failed_out: that rank, or -1. Collective. */
TV_MUST_CHECK tv_status_t tv_comm_agree(struct tv_comm *comm, tv_status_t local,
                                        int *first_failed_out);

/* End the job: MPI_Abort(exit_code) under MPI (does not return); under threads marks the group (and
 * all groups split from or into it) as failed, so that every wait of every peer returns TV_PEER,
 * then returns. */
void tv_comm_abort(struct tv_comm *comm, int exit_code);
/* 1 when this failure was caused by another rank's abort, i.e. somebody else has already said why.
 */
int tv_comm_is_aborted(const struct tv_comm *comm);
TV_END_C
#endif
