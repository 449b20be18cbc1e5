/* mesh/comm_nccl_internal.h -- what the device side of a communicator is made of: comm_nccl.c runs operations on it,
 * comm_nccl_groups.c makes and ends it. */
#ifndef TV_MESH_COMM_NCCL_INTERNAL_H
#define TV_MESH_COMM_NCCL_INTERNAL_H
#include "mesh/comm_internal.h"
#include "mesh/nccl_internal.h"

TV_BEGIN_C
enum { TV_NCCL_MAX_LINKS = 4 };

struct tv_nccl_line {
    void *handle; /* NULL: none */
    struct tv_stream *stream;
    int rank, size; /* in it */
    int peer;       /* of a link: in the group */
    int is_send;
};

struct tv_device_op {
    struct tv_device_op *next;
    struct tv_nccl_line *line;
    struct tv_stream *stream;      /* the caller's */
    struct tv_event *ready, *done; /* the data is there; the operation has run */
    int64_t number;                /* of this rank's, in the order of their starts */
    int64_t count;
    tv_op_t op;
    int is_claimed, is_waited, is_done; /* by its request; by its stream; on the GPU */
    char context[TV_COMM_MAX_CONTEXT];
};

struct tv_device_side {
    const struct tv_nccl_table *nccl;
    struct tv_device *device;
    struct tv_comm *comm;
    struct tv_nccl_line whole;
    struct tv_nccl_line links[TV_NCCL_MAX_LINKS];
    int num_links;
    struct tv_device_op *pending; /* oldest first */
    struct tv_device_op *unused;
    struct tv_buffer token; /* what a new link carries once */
    struct tv_device_side *next;
};

/* 0: of the collectives; from 1: the links. */
static inline struct tv_nccl_line *tv_nccl_line_at(struct tv_device_side *side, int index)
{
    return index == 0 ? &side->whole : &side->links[index - 1];
}

TV_MUST_CHECK tv_status_t tv_nccl_check_alive(const struct tv_comm_rank *shared);
/* NCCL says `message`: abort everything and return the sentence. */
TV_MUST_CHECK tv_status_t tv_nccl_failed(const struct tv_device_side *side, tv_status_t status,
                                         const char *what, const char *message);
/* Until what was last begun on a line is done, with the deadline. */
TV_MUST_CHECK tv_status_t tv_nccl_wait_ready(struct tv_device_side *side, void *handle,
                                             const char *what);
/* tv_nccl_poll, for tv_device_watch. */
TV_MUST_CHECK tv_status_t tv_nccl_watch(void *shared, double waited_seconds);
void tv_device_op_destroy(struct tv_device_op *op);
TV_END_C
#endif
