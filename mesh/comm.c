/* mesh/comm.c -- communicators and their operations' start: everything that is the same for all
 * implementations. Waiting is in comm_wait.c, groups and blocking shorthands in comm_groups.c. */
#include "mesh/comm.h"
#include "mesh/collectives_internal.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

tv_status_t tv_comm_alloc(const struct tv_comm_ops *ops, int rank, int size, void *state,
                          struct tv_comm **comm_out)
{
    struct tv_comm *comm = calloc(1, sizeof(*comm));
    struct tv_comm_rank *shared = calloc(1, sizeof(*shared));
    if (comm == NULL || shared == NULL) {
        free(comm);
        free(shared);
        return TV_ERR(TV_NO_MEMORY, "communicator: %zu bytes", sizeof(*comm) + sizeof(*shared));
    }
    shared->num_comms = 1;
    *comm = (struct tv_comm){.ops = ops,
                             .rank = rank,
                             .size = size,
                             .timeout_seconds = TV_COMM_DEFAULT_TIMEOUT,
                             .shared = shared,
                             .end_job = ops->end_job,
                             .state = state};
    snprintf(comm->name, sizeof(comm->name), "world");
    *comm_out = comm;
    return TV_OK;
}

static void leave_rank(struct tv_comm_rank *shared)
{
    if (--shared->num_comms == 0)
        free(shared);
}

void tv_comm_inherit(struct tv_comm *comm, struct tv_comm *parent)
{
    leave_rank(comm->shared);
    comm->shared = parent->shared;
    comm->shared->num_comms++;
    comm->end_job = parent->end_job;
    comm->timeout_seconds = parent->timeout_seconds;
    tv_comm_set_name(comm, parent->name);
}

/* A rank that failed destroys its groups with operations in flight. */
static void release_in_flight(struct tv_comm *comm)
{
    struct tv_request *request = comm->shared->in_flight;
    while (request != NULL) {
        struct tv_request *next = request->next;
        if (request->comm == comm)
            tv_request_release(request);
        request = next;
    }
}

static void free_requests(struct tv_comm *comm)
{
    while (comm->free_requests != NULL) {
        struct tv_request *request = comm->free_requests;
        comm->free_requests = request->next;
        for (int i = 0; i < request->max_messages; i++)
            free(request->messages[i].handle);
        free(request->messages);
        free(request->parts);
        free(request->scratch);
        free(request->stage.host);
        free(request);
    }
}

void tv_comm_destroy(struct tv_comm *comm)
{
    if (comm == NULL)
        return;
    release_in_flight(comm);
    if (comm->device_side != NULL)
        tv_nccl_close(comm);
    free_requests(comm);
    free(comm->reach);
    comm->ops->destroy(comm);
    leave_rank(comm->shared);
    free(comm);
}

int tv_comm_rank(const struct tv_comm *comm)
{
    return comm->rank;
}

int tv_comm_size(const struct tv_comm *comm)
{
    return comm->size;
}

const char *tv_comm_backend(const struct tv_comm *comm)
{
    return comm->device_side != NULL ? "nccl" : comm->ops->name;
}

void tv_comm_set_name(struct tv_comm *comm, const char *name)
{
    snprintf(comm->name, sizeof(comm->name), "%s", name);
}

void tv_comm_set_context(struct tv_comm *comm, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(comm->context, sizeof(comm->context), format, args);
    va_end(args);
}

void tv_comm_set_timeout(struct tv_comm *comm, double seconds)
{
    comm->timeout_seconds = seconds;
}

int tv_comm_reaches_peers(const struct tv_comm *comm)
{
    return comm->reach != NULL;
}

struct tv_comm_stats tv_comm_get_stats(const struct tv_comm *comm)
{
    return comm->stats;
}

void tv_comm_abort(struct tv_comm *comm, int exit_code)
{
    comm->shared->has_aborted = 1;
    comm->end_job(comm, exit_code);
}

int tv_comm_is_aborted(const struct tv_comm *comm)
{
    return comm->ops->is_failed(comm) && !comm->shared->has_aborted;
}

/* ---- requests ---- */

/* Is a free request with `a` bytes of scratch a better choice than one with `b`, for `needed`? The
 * smallest that is large enough is best, and where none is, the largest. */
static int fits_better(size_t a, size_t b, size_t needed)
{
    if ((a >= needed) != (b >= needed))
        return a >= needed;
    return a >= needed ? a < b : a > b;
}

static struct tv_request *take_free(struct tv_comm *comm, size_t scratch_bytes)
{
    struct tv_request **best = &comm->free_requests;
    for (struct tv_request **at = best; *at != NULL; at = &(*at)->next) {
        if (fits_better((*at)->scratch_bytes, (*best)->scratch_bytes, scratch_bytes))
            best = at;
    }
    struct tv_request *request = *best;
    if (request != NULL)
        *best = request->next;
    return request;
}

static tv_status_t create_request(struct tv_comm *comm, struct tv_request **request_out)
{
    struct tv_request *request = calloc(1, sizeof(*request));
    const int max_messages = tv_collective_max_messages(comm->size);
    if (request != NULL) {
        request->messages = calloc((size_t)max_messages, sizeof(*request->messages));
        request->parts = calloc((size_t)comm->size, sizeof(*request->parts));
    }
    if (request == NULL || request->messages == NULL || request->parts == NULL) {
        if (request != NULL) {
            free(request->messages);
            free(request->parts);
        }
        free(request);
        return TV_ERR(TV_NO_MEMORY, "%s axis: a request among %d ranks", comm->name, comm->size);
    }
    request->comm = comm;
    request->max_messages = max_messages;
    *request_out = request;
    return TV_OK;
}

static tv_status_t reserve_scratch(struct tv_request *request, size_t bytes)
{
    enum { ALIGNMENT = 64 };
    if (bytes <= request->scratch_bytes)
        return TV_OK;
    free(request->scratch);
    request->scratch_bytes = 0;
    request->scratch = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (request->scratch == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s axis: %zu bytes for a reduction", request->comm->name,
                      bytes);
    request->scratch_bytes = bytes;
    return TV_OK;
}

static void put_in_flight(struct tv_request *request)
{
    struct tv_comm_rank *shared = request->comm->shared;
    request->previous = NULL;
    request->next = shared->in_flight;
    if (request->next != NULL)
        request->next->previous = request;
    shared->in_flight = request;
}

tv_status_t tv_request_take(struct tv_comm *comm, const struct tv_start *start,
                            size_t scratch_bytes, struct tv_request **request_out)
{
    struct tv_request *request = take_free(comm, scratch_bytes);
    if (request == NULL)
        TV_TRY(create_request(comm, &request));
    request->num_messages = request->num_done = request->num_awaited = 0;
    request->phase = request->peers_need_step = request->is_within_reach = 0;
    request->is_direct = tv_direct_takes(comm, start);
    request->status = TV_OK;
    request->stage.stream = NULL;
    put_in_flight(request);
    const tv_status_t status = reserve_scratch(request, scratch_bytes);
    if (status != TV_OK) {
        tv_request_release(request);
        return status;
    }
    request->op = start->op;
    request->reduce = start->reduce;
    request->dtype = start->dtype;
    request->root = start->root;
    request->count = start->count;
    request->counts = start->counts;
    request->send = start->send;
    request->recv = start->recv;
    *request_out = request;
    return TV_OK;
}

void tv_request_release(struct tv_request *request)
{
    struct tv_comm *comm = request->comm;
    if (request->is_within_reach)
        tv_direct_give_up(request);
    for (int i = request->num_done; i < request->num_messages; i++) {
        struct tv_message *message = &request->messages[i];
        if (!atomic_load(&message->is_done))
            comm->ops->cancel(comm, message);
    }
    if (request->device_op != NULL)
        tv_nccl_release(request);
    if (request->previous != NULL)
        request->previous->next = request->next;
    else
        comm->shared->in_flight = request->next;
    if (request->next != NULL)
        request->next->previous = request->previous;
    request->next = comm->free_requests;
    comm->free_requests = request;
}

tv_status_t tv_request_post(struct tv_request *request, int is_recv, void *data, int64_t bytes,
                            int peer)
{
    struct tv_comm *comm = request->comm;
    struct tv_message *message = &request->messages[request->num_messages];
    message->peer = peer;
    message->tag = request->tag;
    message->is_recv = is_recv;
    message->data = data;
    message->bytes = bytes;
    message->got_bytes = -1;
    message->next = NULL;
    atomic_store(&message->is_done, 0);
    request->num_messages++;
    TV_TRY(comm->ops->post(comm, message));
    if (!is_recv)
        comm->stats.sent_bytes += bytes;
    return TV_OK;
}

/* ---- starting ---- */

static tv_status_t check_reduction(const struct tv_comm *comm, const struct tv_start *s)
{
    if (s->op != TV_OP_ALL_REDUCE && s->op != TV_OP_REDUCE_SCATTER)
        return TV_OK;
    if (s->dtype == TV_U8)
        return TV_ERR(TV_INVALID, "%s axis: no reduction of element type %d", comm->name,
                      (int)s->dtype);
    if (s->reduce != TV_SUM && s->reduce != TV_MAX && s->reduce != TV_MIN)
        return TV_ERR(TV_INVALID, "%s axis: unknown reduction %d", comm->name, (int)s->reduce);
    return TV_OK;
}

static tv_status_t check_start(const struct tv_comm *comm, const struct tv_start *s)
{
    const size_t bytes = tv_dtype_bytes(s->dtype);
    if (bytes == 0)
        return TV_ERR(TV_INVALID, "%s axis: unknown element type %d", comm->name, (int)s->dtype);
    TV_TRY(check_reduction(comm, s));
    if (s->count < 0 || s->count > INT64_MAX / (int64_t)bytes / comm->size)
        return TV_ERR(TV_INVALID, "%s axis: a count of %" PRId64 " elements", comm->name, s->count);
    int64_t left = INT64_MAX / (int64_t)bytes;
    for (int r = 0; s->counts != NULL && r < comm->size; r++) {
        if (s->counts[r] < 0 || s->counts[r] > left)
            return TV_ERR(TV_INVALID, "%s axis: a count of %" PRId64 " elements for rank %d",
                          comm->name, s->counts[r], r);
        left -= s->counts[r];
    }
    if (s->root < 0 || s->root >= comm->size)
        return TV_ERR(TV_INVALID, "%s axis: there is no rank %d among %d", comm->name, s->root,
                      comm->size);
    return TV_OK;
}

static tv_status_t post_message(struct tv_request *request)
{
    const int is_recv = request->op == TV_OP_RECV;
    void *data = is_recv ? request->recv : (void *)(uintptr_t)request->send; /* sends only read */
    request->tag = TV_TAG_MESSAGES;
    return tv_request_post(request, is_recv, data,
                           request->count * (int64_t)tv_dtype_bytes(request->dtype), request->root);
}

static tv_status_t start_collective(struct tv_request *request)
{
    struct tv_comm *comm = request->comm;
    request->tag = TV_TAG_COLLECTIVES + comm->next_tag;
    comm->next_tag = (comm->next_tag + 1) % TV_TAG_WINDOW;
    return comm->ops->collectives->start(request);
}

size_t tv_start_scratch_bytes(const struct tv_comm *comm, const struct tv_start *s)
{
    if (s->op == TV_OP_SEND || s->op == TV_OP_RECV)
        return 0;
    return comm->ops->collectives->scratch_bytes(comm, s);
}

tv_status_t tv_request_start(struct tv_request *request)
{
    struct tv_comm *comm = request->comm;
    const int is_message = request->op == TV_OP_SEND || request->op == TV_OP_RECV;
    const tv_status_t status = is_message ? post_message(request) : start_collective(request);
    if (status != TV_OK) {
        tv_request_release(request);
        return status;
    }
    if (request->num_awaited == 0)
        request->num_awaited = request->num_messages;
    comm->stats.num_operations++;
    return TV_OK;
}

static tv_status_t begin(struct tv_comm *comm, const struct tv_start *s, struct tv_stream *stream,
                         struct tv_request **request_out)
{
    struct tv_request *request = NULL;
    TV_TRY(check_start(comm, s));
    if (stream != NULL && tv_device_kind(tv_stream_device(stream)) == TV_DEVICE_CUDA)
        return tv_device_begin(comm, s, stream, request_out);
    if (stream != NULL)
        TV_TRY(tv_stream_synchronize(stream));
    TV_TRY(tv_request_take(comm, s, tv_start_scratch_bytes(comm, s), &request));
    TV_TRY(tv_request_start(request));
    *request_out = request;
    return TV_OK;
}

tv_status_t tv_comm_all_reduce(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                               tv_reduce_op_t op, struct tv_stream *stream,
                               struct tv_request **request_out)
{
    const struct tv_start s = {TV_OP_ALL_REDUCE, buffer, buffer, count, dtype, op, 0, NULL};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_reduce_scatter(struct tv_comm *comm, const void *send, void *recv,
                                   int64_t count, tv_dtype_t dtype, tv_reduce_op_t op,
                                   struct tv_stream *stream, struct tv_request **request_out)
{
    const struct tv_start s = {TV_OP_REDUCE_SCATTER, send, recv, count, dtype, op, 0, NULL};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_all_gather(struct tv_comm *comm, const void *send, void *recv, int64_t count,
                               tv_dtype_t dtype, struct tv_stream *stream,
                               struct tv_request **request_out)
{
    const struct tv_start s = {TV_OP_ALL_GATHER, send, recv, count, dtype, TV_SUM, 0, NULL};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_reduce_scatter_v(struct tv_comm *comm, const void *send, void *recv,
                                     const int64_t *counts, tv_dtype_t dtype,
                                     struct tv_stream *stream, struct tv_request **request_out)
{
    const int64_t count = counts[comm->rank];
    const struct tv_start s = {TV_OP_REDUCE_SCATTER, send, recv, count, dtype, TV_SUM, 0, counts};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_all_gather_v(struct tv_comm *comm, const void *send, void *recv,
                                 const int64_t *counts, tv_dtype_t dtype, struct tv_stream *stream,
                                 struct tv_request **request_out)
{
    const int64_t count = counts[comm->rank];
    const struct tv_start s = {TV_OP_ALL_GATHER, send, recv, count, dtype, TV_SUM, 0, counts};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_broadcast(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                              int root, struct tv_stream *stream, struct tv_request **request_out)
{
    const struct tv_start s = {TV_OP_BROADCAST, buffer, buffer, count, dtype, TV_SUM, root, NULL};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_send(struct tv_comm *comm, const void *buffer, int64_t count, tv_dtype_t dtype,
                         int peer, struct tv_stream *stream, struct tv_request **request_out)
{
    const struct tv_start s = {TV_OP_SEND, buffer, NULL, count, dtype, TV_SUM, peer, NULL};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_recv(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                         int peer, struct tv_stream *stream, struct tv_request **request_out)
{
    const struct tv_start s = {TV_OP_RECV, NULL, buffer, count, dtype, TV_SUM, peer, NULL};
    return begin(comm, &s, stream, request_out);
}
