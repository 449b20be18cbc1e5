/* mesh/comm_stage.c -- operations on device memory: which way they go, and host memory that stands for it while the
 * host's implementations run.
 *
 * What is sent is copied to the host behind the work of the caller's stream, which is waited for; what comes is copied
 * back at the end of the wait. So device buffers add up in rank order, with the bits of the CPU, over any communicator
 * and with several ranks on one GPU. Two copies of every byte and no overlap: NCCL is the fast way. */
#include "mesh/comm_internal.h"
#include <stdlib.h>

enum { ALIGNMENT = 64 };

/* Elements that the operation reads and writes on this rank. */
static void extents(const struct tv_comm *comm, const struct tv_start *s, int64_t *sent,
                    int64_t *received)
{
    int64_t total = s->counts == NULL ? s->count * comm->size : 0;
    for (int r = 0; s->counts != NULL && r < comm->size; r++)
        total += s->counts[r];
    const int is_other = s->op == TV_OP_BROADCAST && comm->rank != s->root;
    *sent = s->op == TV_OP_REDUCE_SCATTER ? total : s->op == TV_OP_RECV || is_other ? 0 : s->count;
    *received = s->op == TV_OP_ALL_GATHER               ? total
                : s->op == TV_OP_SEND                   ? 0
                : s->op == TV_OP_BROADCAST && !is_other ? 0
                                                        : s->count;
}

static size_t rounded(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static tv_status_t reserve(struct tv_request *request, size_t bytes)
{
    struct tv_stage *stage = &request->stage;
    if (bytes <= stage->bytes)
        return TV_OK;
    free(stage->host);
    stage->bytes = 0;
    stage->host = aligned_alloc(ALIGNMENT, bytes);
    if (stage->host == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s axis: %zu bytes of host memory for device memory",
                      request->comm->name, bytes);
    stage->bytes = bytes;
    return TV_OK;
}

/* The request's addresses become those of the host; what is sent is there. */
static tv_status_t fill(struct tv_request *request, const struct tv_start *s,
                        struct tv_stream *stream)
{
    struct tv_stage *stage = &request->stage;
    const size_t element = tv_dtype_bytes(s->dtype);
    const int is_in_place = s->op == TV_OP_ALL_REDUCE || s->op == TV_OP_BROADCAST;
    int64_t sent, received;
    extents(request->comm, s, &sent, &received);
    const size_t sent_bytes = (size_t)sent * element, recv_bytes = (size_t)received * element;
    const size_t apart = is_in_place ? 0 : rounded(sent_bytes);
    TV_TRY(reserve(request, apart + rounded(recv_bytes > sent_bytes ? recv_bytes : sent_bytes)));
    stage->stream = stream;
    stage->recv = s->recv;
    stage->recv_bytes = recv_bytes;
    request->send = stage->host;
    request->recv = stage->host != NULL ? stage->host + apart : NULL;
    if (sent_bytes > 0)
        TV_TRY(tv_stream_copy(stream, stage->host, s->send, sent_bytes));
    return tv_stream_synchronize(stream);
}

static tv_status_t start_staged(struct tv_comm *comm, const struct tv_start *s,
                                struct tv_stream *stream, struct tv_request **request_out)
{
    struct tv_request *request = NULL;
    TV_TRY(tv_request_take(comm, s, tv_start_scratch_bytes(comm, s), &request));
    const tv_status_t status = fill(request, s, stream);
    if (status != TV_OK) {
        tv_request_release(request);
        return status;
    }
    TV_TRY(tv_request_start(request));
    *request_out = request;
    return TV_OK;
}

tv_status_t tv_stage_finish(struct tv_request *request)
{
    struct tv_stage *stage = &request->stage;
    struct tv_stream *stream = stage->stream;
    stage->stream = NULL;
    if (stage->recv_bytes == 0)
        return TV_OK;
    TV_TRY(tv_stream_copy(stream, stage->recv, request->recv, stage->recv_bytes));
    return tv_stream_synchronize(stream); /* the host memory is the next operation's */
}

/* A collective of one rank: its data goes from one place to the other, if they are two. */
static tv_status_t start_alone(struct tv_comm *comm, const struct tv_start *s,
                               struct tv_stream *stream, struct tv_request **request_out)
{
    struct tv_request *request = NULL;
    const size_t bytes = (size_t)s->count * tv_dtype_bytes(s->dtype);
    TV_TRY(tv_request_take(comm, s, 0, &request));
    if (bytes > 0 && s->recv != s->send) {
        const tv_status_t status = tv_stream_copy(stream, s->recv, s->send, bytes);
        if (status != TV_OK) {
            tv_request_release(request);
            return status;
        }
    }
    comm->stats.num_operations++;
    *request_out = request;
    return TV_OK;
}

tv_status_t tv_device_begin(struct tv_comm *comm, const struct tv_start *start,
                            struct tv_stream *stream, struct tv_request **request_out)
{
    const int is_message = start->op == TV_OP_SEND || start->op == TV_OP_RECV;
    struct tv_nccl_line *line = tv_nccl_line_for(comm, start);
    if (line != NULL)
        return tv_nccl_start(comm, line, start, stream, request_out);
    if (comm->size == 1 && !is_message)
        return start_alone(comm, start, stream, request_out);
    return start_staged(comm, start, stream, request_out);
}
