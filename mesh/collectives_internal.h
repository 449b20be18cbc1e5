/* mesh/collectives_internal.h -- what the two ways of running a collective on the host share: messages
 * (comm_collectives.c), and memory of peers (comm_direct.c). Both add the same parts in the same order. */
#ifndef TV_MESH_COLLECTIVES_INTERNAL_H
#define TV_MESH_COLLECTIVES_INTERNAL_H
#include "mesh/comm_internal.h"

TV_BEGIN_C
/* ---- comm_reduce.c ---- */

/* Bytes of `count` of the request's elements. */
int64_t tv_request_bytes(const struct tv_request *r, int64_t count);
/* Elements [*first, *first + count) are the rank's piece of `total` over n ranks; returns count. */
int64_t tv_piece_of(int64_t total, int n, int rank, int64_t *first);
/* The same of a reduce_scatter or all_gather, whose sizes the caller may have given. */
int64_t tv_request_part(const struct tv_request *r, int rank, int64_t *first);
/* The rank's piece in an array of all pieces, which may be NULL when it is empty; its bytes. */
char *tv_request_part_at(const struct tv_request *r, const void *data, int rank, int64_t *bytes);
/* Where the parts of all ranks are: own [count] is this rank's, and others [size - 1, count] are the rest in rank
 * order. */
void tv_request_set_parts(struct tv_request *r, const void *own, const char *others, int64_t count);
/* out [count] = the parts of all ranks, combined in order; out may be one of them. */
void tv_reduce_in_rank_order(const struct tv_request *r, int64_t count, char *out);

/* ---- comm_direct.c ---- */

/* Is the operation done by reaching into peers' memory? The same on all ranks of the group. */
int tv_direct_takes(const struct tv_comm *comm, const struct tv_start *start);
size_t tv_direct_scratch_bytes(const struct tv_comm *comm, tv_op_t op);
/* An all_gather's own piece is in its place. */
TV_MUST_CHECK tv_status_t tv_direct_start(struct tv_request *r);
TV_MUST_CHECK tv_status_t tv_direct_advance(struct tv_request *r, int *done_out);
TV_END_C
#endif
