/* mesh/comm.c -- requests, waiting with a deadline, and everything that is the same for all implementations. */
#include "mesh/comm.h"
#include "mesh/comm_internal.h"
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

tv_status_t tv_comm_alloc(const struct tv_comm_ops *ops, int rank, int size, void *state,
                          struct tv_comm **comm_out)
{
    struct tv_comm *comm = calloc(1, sizeof(*comm));
    if (comm == NULL)
        return TV_ERR(TV_NO_MEMORY, "communicator: %zu bytes", sizeof(*comm));
    *comm = (struct tv_comm){
        .ops = ops, .rank = rank, .size = size, .timeout_seconds = 120, .state = state};
    snprintf(comm->name, sizeof(comm->name), "world");
    *comm_out = comm;
    return TV_OK;
}

void tv_comm_destroy(struct tv_comm *comm)
{
    if (comm == NULL)
        return;
    comm->ops->destroy(comm);
    while (comm->free_requests != NULL) {
        struct tv_request *request = comm->free_requests;
        comm->free_requests = request->next_free;
        free(request->messages);
        free(request->scratch);
        free(request);
    }
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
    return comm->ops->name;
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

struct tv_comm_stats tv_comm_get_stats(const struct tv_comm *comm)
{
    return comm->stats;
}

void tv_comm_abort(struct tv_comm *comm, int exit_code)
{
    comm->ops->abort(comm, exit_code);
}

int tv_comm_is_aborted(const struct tv_comm *comm)
{
    return comm->ops->is_aborted(comm);
}

/* ---- requests ---- */

static tv_status_t take_request(struct tv_comm *comm, struct tv_request **request_out)
{
    struct tv_request *request = comm->free_requests;
    if (request != NULL) {
        comm->free_requests = request->next_free;
    } else {
        request = calloc(1, sizeof(*request));
        if (request != NULL)
            request->messages = calloc((size_t)comm->size * 2, sizeof(*request->messages));
        if (request == NULL || request->messages == NULL) {
            free(request);
            return TV_ERR(TV_NO_MEMORY, "%s axis: a request among %d ranks", comm->name,
                          comm->size);
        }
        request->comm = comm;
    }
    request->num_messages = request->num_done = request->phase = 0;
    *request_out = request;
    return TV_OK;
}

static void give_request(struct tv_request *request)
{
    for (int i = 0; i < request->num_messages; i++) {
        if (!atomic_load(&request->messages[i].is_done))
            request->comm->ops->cancel(request->comm, &request->messages[i]);
    }
    request->next_free = request->comm->free_requests;
    request->comm->free_requests = request;
}

tv_status_t tv_request_post(struct tv_request *request, int is_recv, void *data, int64_t bytes,
                            int peer)
{
    struct tv_message *message = &request->messages[request->num_messages];
    message->peer = peer;
    message->tag = request->tag;
    message->is_recv = is_recv;
    message->data = data;
    message->bytes = bytes;
    message->got_bytes = -1;
    message->next = NULL;
    message->handle = NULL;
    atomic_store(&message->is_done, 0);
    TV_TRY(request->comm->ops->post(request->comm, message));
    request->num_messages++;
    if (!is_recv)
        request->comm->stats.sent_bytes += bytes;
    return TV_OK;
}

tv_status_t tv_request_scratch(struct tv_request *request, size_t bytes)
{
    if (bytes <= request->scratch_bytes)
        return TV_OK;
    free(request->scratch);
    request->scratch_bytes = 0;
    request->scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (request->scratch == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s axis: %zu bytes for a reduction", request->comm->name,
                      bytes);
    request->scratch_bytes = bytes;
    return TV_OK;
}

/* ---- starting ---- */

struct start {
    tv_op_t op;
    const void *send;
    void *recv;
    int64_t count;
    tv_dtype_t dtype;
    tv_reduce_op_t reduce;
    int root; /* or the peer */
};

static int is_reduction(tv_op_t op)
{
    return op == TV_OP_ALL_REDUCE || op == TV_OP_REDUCE_SCATTER;
}

static tv_status_t check_start(const struct tv_comm *comm, const struct start *s)
{
    const size_t bytes = tv_dtype_bytes(s->dtype);
    if (bytes == 0)
        return TV_ERR(TV_INVALID, "%s axis: unknown element type %d", comm->name, (int)s->dtype);
    if (is_reduction(s->op) && (s->dtype == TV_BF16 || s->dtype == TV_U8))
        return TV_ERR(TV_INVALID, "%s axis: no reduction of element type %d", comm->name,
                      (int)s->dtype);
    if (s->count < 0 || s->count > INT64_MAX / (int64_t)bytes / comm->size)
        return TV_ERR(TV_INVALID, "%s axis: a count of %" PRId64 " elements", comm->name, s->count);
    if (s->root < 0 || s->root >= comm->size)
        return TV_ERR(TV_INVALID, "%s axis: rank %d of %d", comm->name, s->root, comm->size);
    return TV_OK;
}

static tv_status_t begin(struct tv_comm *comm, const struct start *s, struct tv_stream *stream,
                         struct tv_request **request_out)
{
    struct tv_request *request = NULL;
    TV_TRY(check_start(comm, s));
    if (stream != NULL)
        TV_TRY(tv_stream_synchronize(stream));
    TV_TRY(take_request(comm, &request));
    request->op = s->op;
    request->reduce = s->reduce;
    request->dtype = s->dtype;
    request->root = s->root;
    request->count = s->count;
    request->send = s->send;
    request->recv = s->recv;
    const int64_t bytes = s->count * (int64_t)tv_dtype_bytes(s->dtype);
    comm->stats.num_operations++;
    tv_status_t status;
    if (s->op == TV_OP_SEND || s->op == TV_OP_RECV) {
        request->tag = TV_TAG_MESSAGES;
        void *data =
            s->op == TV_OP_RECV ? s->recv : (void *)(uintptr_t)s->send; /* a send only reads */
        status = tv_request_post(request, s->op == TV_OP_RECV, data, bytes, s->root);
    } else {
        request->tag = TV_TAG_COLLECTIVES + comm->next_tag;
        comm->next_tag = (comm->next_tag + 1) % TV_TAG_WINDOW;
        status = tv_collective_start(request);
    }
    if (status != TV_OK) {
        give_request(request);
        return status;
    }
    *request_out = request;
    return TV_OK;
}

tv_status_t tv_comm_all_reduce(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                               tv_reduce_op_t op, struct tv_stream *stream,
                               struct tv_request **request_out)
{
    const struct start s = {TV_OP_ALL_REDUCE, buffer, buffer, count, dtype, op, 0};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_reduce_scatter(struct tv_comm *comm, const void *send, void *recv,
                                   int64_t count, tv_dtype_t dtype, tv_reduce_op_t op,
                                   struct tv_stream *stream, struct tv_request **request_out)
{
    const struct start s = {TV_OP_REDUCE_SCATTER, send, recv, count, dtype, op, 0};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_all_gather(struct tv_comm *comm, const void *send, void *recv, int64_t count,
                               tv_dtype_t dtype, struct tv_stream *stream,
                               struct tv_request **request_out)
{
    const struct start s = {TV_OP_ALL_GATHER, send, recv, count, dtype, TV_SUM, 0};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_broadcast(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                              int root, struct tv_stream *stream, struct tv_request **request_out)
{
    const struct start s = {TV_OP_BROADCAST, buffer, buffer, count, dtype, TV_SUM, root};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_send(struct tv_comm *comm, const void *buffer, int64_t count, tv_dtype_t dtype,
                         int peer, struct tv_stream *stream, struct tv_request **request_out)
{
    const struct start s = {TV_OP_SEND, buffer, NULL, count, dtype, TV_SUM, peer};
    return begin(comm, &s, stream, request_out);
}

tv_status_t tv_comm_recv(struct tv_comm *comm, void *buffer, int64_t count, tv_dtype_t dtype,
                         int peer, struct tv_stream *stream, struct tv_request **request_out)
{
    const struct start s = {TV_OP_RECV, NULL, buffer, count, dtype, TV_SUM, peer};
    return begin(comm, &s, stream, request_out);
}

/* ---- finishing ---- */

static const char *op_name(tv_op_t op)
{
    static const char *const names[] = {"send",           "receive",    "all_reduce",
                                        "reduce_scatter", "all_gather", "broadcast"};
    return names[op];
}

static tv_status_t test_messages(struct tv_request *request, int *done_out)
{
    struct tv_comm *comm = request->comm;
    int num_done = 0;
    for (int i = 0; i < request->num_messages; i++) {
        struct tv_message *message = &request->messages[i];
        int done = atomic_load_explicit(&message->is_done, memory_order_acquire);
        if (!done)
            TV_TRY(comm->ops->test(comm, message, &done));
        if (done && message->got_bytes >= 0)
            return TV_ERR(
                TV_PEER,
                "%s axis: %s: rank %d expects %" PRId64 " bytes where rank %d has %" PRId64,
                comm->name, op_name(request->op), message->is_recv ? comm->rank : message->peer,
                message->is_recv ? message->bytes : message->got_bytes,
                message->is_recv ? message->peer : comm->rank,
                message->is_recv ? message->got_bytes : message->bytes);
        num_done += done;
    }
    *done_out = num_done == request->num_messages;
    return TV_OK;
}

static tv_status_t test(struct tv_request *request, int *done_out)
{
    int done = 0;
    TV_TRY(test_messages(request, &done));
    if (done && request->op != TV_OP_SEND && request->op != TV_OP_RECV)
        TV_TRY(tv_collective_advance(request, &done));
    *done_out = done;
    return TV_OK;
}

tv_status_t tv_request_test(struct tv_request **request, int *done_out)
{
    int done = 1;
    if (*request != NULL) {
        const tv_status_t status = test(*request, &done);
        if (status != TV_OK || done) {
            give_request(*request);
            *request = NULL;
        }
        TV_TRY(status);
    }
    *done_out = done;
    return TV_OK;
}

/* "rank 2, 5": peers with a message that is not done. */
static void silent_peers(const struct tv_request *request, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (int peer = 0; peer < request->comm->size && used + 8 < bytes; peer++) {
        int is_silent = 0;
        for (int i = 0; i < request->num_messages; i++)
            is_silent |=
                request->messages[i].peer == peer && !atomic_load(&request->messages[i].is_done);
        if (is_silent)
            used += (size_t)snprintf(text + used, bytes - used, "%s%d", used ? ", " : "", peer);
    }
}

static tv_status_t deadline_passed(const struct tv_request *request)
{
    const struct tv_comm *comm = request->comm;
    char peers[64];
    silent_peers(request, peers, sizeof(peers));
    return TV_ERR(
        TV_PEER,
        "%s axis, rank %d: %s of %" PRId64 " elements: no answer from rank %s in %g s%s%s%s",
        comm->name, comm->rank, op_name(request->op), request->count, peers, comm->timeout_seconds,
        comm->context[0] ? " (in: " : "", comm->context, comm->context[0] ? ")" : "");
}

void tv_comm_relax(int idle_rounds)
{
    enum { ROUNDS_BEFORE_SLEEP = 50 };
    static const struct timespec pause = {0, 50 * 1000};
    if (idle_rounds < ROUNDS_BEFORE_SLEEP)
        sched_yield();
    else
        nanosleep(&pause, NULL);
}

static tv_status_t poll_until_done(struct tv_request *request)
{
    struct tv_comm *comm = request->comm;
    const double started = now_seconds();
    tv_status_t status = TV_OK;
    for (int round = 0, done = 0; !done && status == TV_OK; round++) {
        tv_comm_relax(round);
        status = test(request, &done);
        const double waited = now_seconds() - started;
        if (status == TV_OK && !done && comm->timeout_seconds > 0 && waited > comm->timeout_seconds)
            status = deadline_passed(request);
    }
    comm->stats.wait_seconds += now_seconds() - started;
    return status;
}

tv_status_t tv_request_wait(struct tv_request **request)
{
    if (*request == NULL)
        return TV_OK;
    int done = 0;
    tv_status_t status = test(*request, &done);
    if (status == TV_OK && !done)
        status = poll_until_done(*request);
    give_request(*request);
    *request = NULL;
    return status;
}

/* ---- blocking shorthands ---- */

tv_status_t tv_comm_all_reduce_now(struct tv_comm *comm, void *host_buffer, int64_t count,
                                   tv_dtype_t dtype, tv_reduce_op_t op)
{
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_all_reduce(comm, host_buffer, count, dtype, op, NULL, &request));
    return tv_request_wait(&request);
}

tv_status_t tv_comm_broadcast_now(struct tv_comm *comm, void *host_buffer, int64_t count,
                                  tv_dtype_t dtype, int root)
{
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_broadcast(comm, host_buffer, count, dtype, root, NULL, &request));
    return tv_request_wait(&request);
}

tv_status_t tv_comm_barrier(struct tv_comm *comm)
{
    int32_t nothing = 0;
    return tv_comm_all_reduce_now(comm, &nothing, 1, TV_I32, TV_SUM);
}

tv_status_t tv_comm_agree(struct tv_comm *comm, tv_status_t local, int *first_failed_out)
{
    struct verdict {
        int32_t status;
        char message[1024];
    } verdict = {.status = (int32_t)local};
    int32_t first = local == TV_OK ? comm->size : comm->rank;
    snprintf(verdict.message, sizeof(verdict.message), "%s", tv_error_message());
    *first_failed_out = -1;
    TV_TRY(tv_comm_all_reduce_now(comm, &first, 1, TV_I32, TV_MIN));
    if (first == comm->size)
        return TV_OK;
    TV_TRY(tv_comm_broadcast_now(comm, &verdict, (int64_t)sizeof(verdict), TV_U8, first));
    *first_failed_out = first;
    return TV_ERR((tv_status_t)verdict.status, "%s", verdict.message);
}

/* ---- split ---- */

struct choice {
    int32_t color, key, rank;
};

static int by_key(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static tv_status_t gather_choices(struct tv_comm *comm, int color, int key, struct choice *all)
{
    const struct choice mine = {color, key, comm->rank};
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_all_gather(comm, &mine, all, (int64_t)sizeof(mine), TV_U8, NULL, &request));
    return tv_request_wait(&request);
}

tv_status_t tv_comm_split(struct tv_comm *comm, int color, int key, struct tv_comm **comm_out)
{
    struct choice *all = calloc((size_t)comm->size, sizeof(*all));
    int *members = calloc((size_t)comm->size, sizeof(*members));
    tv_status_t status = TV_OK;
    if (all == NULL || members == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%s axis: split of %d ranks", comm->name, comm->size);
    if (status == TV_OK)
        status = gather_choices(comm, color, key, all);
    struct tv_comm *made = NULL;
    if (status == TV_OK) {
        int num = 0;
        qsort(all, (size_t)comm->size, sizeof(*all), by_key);
        for (int r = 0; color >= 0 && r < comm->size; r++) {
            if (all[r].color == color)
                members[num++] = all[r].rank;
        }
        status = comm->ops->split(comm, members, num, &made);
    }
    free(all);
    free(members);
    TV_TRY(status);
    if (made != NULL) {
        made->timeout_seconds = comm->timeout_seconds;
        tv_comm_set_name(made, comm->name);
    }
    *comm_out = made;
    return TV_OK;
}
