/* mesh/comm_nccl.c -- the device side of a communicator: NCCL on streams of its own beside the caller's.
 *
 * An operation: its line's stream waits for an event recorded on the caller's stream at the start,
 * NCCL's work follows, and an event behind it; tv_request_wait makes the caller's stream wait for that
 * one, and the host goes on. o is an event that the other stream waits for:
 *
 *   caller   --- compute --o ------- compute ------- o-- compute --->
 *   line          . . . . . o-- NCCL --o . . . . . . .
 *
 * Operations of one NCCL communicator run one after the other, whatever stream they are on. Collectives
 * of a group share a line. Messages have a line for each ordered pair of neighbours, a communicator of
 * two ranks: a receive posted early must not hold up a send. So two ranks need to agree on the order of
 * nothing but the messages from one to the other.
 *
 * What the host does not wait for it looks after when it starts operations, waits, or synchronizes a
 * stream (tv_device_watch): it asks NCCL for errors and holds the deadline. MAX_AHEAD bounds how far it
 * runs ahead. */
#include "base/clock.h"
#include "base/span.h"
#include "mesh/comm_nccl_internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_AHEAD = 32 };

/* ---- failure ---- */

/* Nothing runs on this rank's GPU any more for any group: what waits for a peer would hold up the rest. Together, in as
 * few calls as may be: one line may wait on the GPU for another. */
static tv_status_t give_up(struct tv_comm_rank *shared, tv_status_t status, const char *sentence)
{
    enum { AT_ONCE = 64 };
    void *handles[AT_ONCE];
    int num = 0;
    snprintf(shared->device_error, sizeof(shared->device_error), "%s", sentence);
    for (struct tv_device_side *side = shared->sides; side != NULL; side = side->next) {
        for (int i = 0; i <= side->num_links; i++) {
            struct tv_nccl_line *line = tv_nccl_line_at(side, i);
            if (num == AT_ONCE) {
                side->nccl->abort(handles, num);
                num = 0;
            }
            if (line->handle != NULL)
                handles[num++] = line->handle;
            line->handle = NULL;
        }
    }
    if (num > 0)
        shared->sides->nccl->abort(handles, num);
    return TV_ERR(status, "%s", shared->device_error);
}

tv_status_t tv_nccl_check_alive(const struct tv_comm_rank *shared)
{
    return shared->device_error[0] != '\0' ? TV_ERR(TV_PEER, "%s", shared->device_error) : TV_OK;
}

/* "rank 2", "one of ranks 0, 2, 3": NCCL does not say for whom it waits. */
static void name_peers(const struct tv_comm *comm, const struct tv_device_op *op, char *text,
                       size_t bytes)
{
    size_t used = 0;
    int num = 0;
    char list[64] = "";
    const int is_message = op->op == TV_OP_SEND || op->op == TV_OP_RECV;
    for (int peer = 0; peer < comm->size && used + 16 < sizeof(list); peer++) {
        if (is_message ? peer == op->line->peer : peer != comm->rank)
            used +=
                (size_t)snprintf(list + used, sizeof(list) - used, "%s%d", num++ ? ", " : "", peer);
    }
    snprintf(text, bytes, "%s %s", num == 1 ? "rank" : "one of ranks", list);
}

static tv_status_t deadline_passed(const struct tv_comm *comm, const struct tv_device_op *op)
{
    char peers[96], sentence[400];
    name_peers(comm, op, peers, sizeof(peers));
    snprintf(sentence, sizeof(sentence),
             "%s axis, rank %d: %s of %" PRId64 " elements: no answer from %s in %g s%s%s%s",
             comm->name, comm->rank, tv_op_name(op->op), op->count, peers, comm->timeout_seconds,
             op->context[0] ? " (while: " : "", op->context, op->context[0] ? ")" : "");
    return give_up(comm->shared, TV_PEER, sentence);
}

tv_status_t tv_nccl_failed(const struct tv_device_side *side, tv_status_t status, const char *what,
                           const char *message)
{
    const struct tv_comm *comm = side->comm;
    char sentence[512];
    snprintf(sentence, sizeof(sentence), "%s axis, rank %d: %s: %s%s%s%s", comm->name, comm->rank,
             what, message, comm->context[0] ? " (while: " : "", comm->context,
             comm->context[0] ? ")" : "");
    return give_up(comm->shared, status, sentence);
}

/* ---- looking after what runs ---- */

/* Put what has run and is not waited for back among the unused; what is behind an operation that has not run on its
 * line has not run either. */
static tv_status_t collect(struct tv_device_side *side)
{
    struct tv_nccl_line *busy[TV_NCCL_MAX_LINKS + 1];
    int num_busy = 0;
    for (struct tv_device_op **at = &side->pending; *at != NULL;) {
        struct tv_device_op *op = *at;
        int is_behind = 0;
        for (int i = 0; i < num_busy; i++)
            is_behind |= busy[i] == op->line;
        if (!op->is_done && !is_behind) {
            TV_TRY(tv_event_is_done(op->done, &op->is_done));
            if (op->is_done)
                side->comm->shared->device_progress_at = tv_clock_seconds();
            else
                busy[num_busy++] = op->line;
        }
        if (op->is_done && !op->is_claimed) {
            *at = op->next;
            op->next = side->unused;
            side->unused = op;
        } else {
            at = &op->next;
        }
    }
    return TV_OK;
}

static tv_status_t ask_for_errors(struct tv_device_side *side)
{
    char message[TV_NCCL_MESSAGE] = "";
    for (int i = 0; i <= side->num_links; i++) {
        const struct tv_nccl_line *line = tv_nccl_line_at(side, i);
        int ready;
        if (line->handle == NULL)
            continue;
        const tv_status_t status = side->nccl->ready(line->handle, &ready, message);
        if (status != TV_OK)
            return tv_nccl_failed(side, status, "NCCL failed", message);
    }
    return TV_OK;
}

/* The operation that the others wait for: of those that have not run the first whose data is there. */
static tv_status_t find_culprit(struct tv_comm_rank *shared, struct tv_device_side **side_out,
                                struct tv_device_op **op_out)
{
    int best_is_ready = 0;
    *op_out = NULL;
    for (struct tv_device_side *side = shared->sides; side != NULL; side = side->next) {
        for (struct tv_device_op *op = side->pending; op != NULL; op = op->next) {
            int is_ready = 0;
            if (op->is_done)
                continue;
            TV_TRY(tv_event_is_done(op->ready, &is_ready));
            if (*op_out != NULL && (is_ready < best_is_ready ||
                                    (is_ready == best_is_ready && op->number > (*op_out)->number)))
                continue;
            *side_out = side;
            *op_out = op;
            best_is_ready = is_ready;
        }
    }
    return TV_OK;
}

static int has_pending(const struct tv_comm_rank *shared)
{
    for (const struct tv_device_side *side = shared->sides; side != NULL; side = side->next) {
        for (const struct tv_device_op *op = side->pending; op != NULL; op = op->next) {
            if (!op->is_done)
                return 1;
        }
    }
    return 0;
}

tv_status_t tv_nccl_poll(struct tv_comm_rank *shared, double waited_seconds)
{
    struct tv_device_side *side = shared->sides;
    struct tv_device_op *op = NULL;
    TV_TRY(tv_nccl_check_alive(shared));
    for (; side != NULL; side = side->next) {
        TV_TRY(ask_for_errors(side));
        TV_TRY(collect(side));
    }
    if (!has_pending(shared))
        return TV_OK;
    const struct tv_comm *comm = shared->sides->comm;
    if (comm->ops->is_failed(comm)) {
        char sentence[128];
        snprintf(sentence, sizeof(sentence), "%s axis, rank %d: another rank has ended the job",
                 comm->name, comm->rank);
        return give_up(shared, TV_PEER, sentence);
    }
    const double quiet = tv_clock_seconds() - shared->device_progress_at;
    const double waited = waited_seconds < quiet ? waited_seconds : quiet;
    if (comm->timeout_seconds <= 0 || waited <= comm->timeout_seconds)
        return TV_OK;
    TV_TRY(find_culprit(shared, &side, &op));
    side->comm->stats.wait_seconds += waited;
    return deadline_passed(side->comm, op);
}

tv_status_t tv_nccl_watch(void *shared, double waited_seconds)
{
    return tv_nccl_poll(shared, waited_seconds);
}

/* Until what was last begun on a line is done. */
tv_status_t tv_nccl_wait_ready(struct tv_device_side *side, void *handle, const char *what)
{
    const struct tv_comm *comm = side->comm;
    const double started = tv_clock_seconds();
    char message[TV_NCCL_MESSAGE] = "";
    for (int round = 0, ready = 0; !ready; round++) {
        tv_status_t status = side->nccl->ready(handle, &ready, message);
        if (status == TV_OK && !ready && comm->ops->is_failed(comm)) {
            snprintf(message, sizeof(message), "another rank has ended the job");
            status = TV_PEER;
        }
        if (status == TV_OK && !ready && comm->timeout_seconds > 0 &&
            tv_clock_seconds() - started > comm->timeout_seconds) {
            snprintf(message, sizeof(message), "no answer from some rank in %g s",
                     comm->timeout_seconds);
            status = TV_PEER;
        }
        if (status != TV_OK)
            return tv_nccl_failed(side, status, what, message);
        if (!ready)
            tv_comm_relax(round);
    }
    return TV_OK;
}

/* ---- operations ---- */

void tv_device_op_destroy(struct tv_device_op *op)
{
    tv_event_destroy(op->ready);
    tv_event_destroy(op->done);
    free(op);
}

static tv_status_t create_op(struct tv_device_side *side)
{
    struct tv_device_op *op = calloc(1, sizeof(*op));
    if (op == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s axis: an operation of NCCL", side->comm->name);
    tv_status_t status = tv_event_create(side->device, &op->ready);
    if (status == TV_OK)
        status = tv_event_create(side->device, &op->done);
    if (status != TV_OK) {
        tv_device_op_destroy(op);
        return status;
    }
    op->next = side->unused;
    side->unused = op;
    return TV_OK;
}

/* Operations for which a host that waits would still be waiting; more may be under way. */
static int num_ahead(const struct tv_device_side *side)
{
    int num = 0;
    for (const struct tv_device_op *op = side->pending; op != NULL; op = op->next)
        num += op->is_waited && !op->is_done;
    return num;
}

/* An operation at the end of the pending ones, once there are few enough. */
static tv_status_t take_op(struct tv_device_side *side, struct tv_device_op **op_out)
{
    const double started = tv_clock_seconds();
    TV_TRY(tv_nccl_poll(side->comm->shared, 0));
    for (int round = 0; num_ahead(side) >= MAX_AHEAD; round++) {
        tv_comm_relax(round);
        TV_TRY(tv_nccl_poll(side->comm->shared, tv_clock_seconds() - started));
    }
    if (side->unused == NULL)
        TV_TRY(create_op(side));
    struct tv_device_op *op = side->unused, **end = &side->pending;
    side->unused = op->next;
    while (*end != NULL)
        end = &(*end)->next;
    *end = op;
    op->next = NULL;
    op->is_claimed = 1;
    op->is_done = op->is_waited = 0;
    *op_out = op;
    return TV_OK;
}

static int has_work(const struct tv_nccl_call *call)
{
    int64_t total = call->counts == NULL ? call->count : 0;
    for (int r = 0; call->counts != NULL && r < call->size; r++)
        total += call->counts[r];
    return total > 0;
}

static int is_even(const struct tv_start *s, int size)
{
    for (int r = 1; s->counts != NULL && r < size; r++) {
        if (s->counts[r] != s->counts[0])
            return 0;
    }
    return 1;
}

static tv_status_t enqueue(struct tv_device_side *side, struct tv_device_op *op,
                           const struct tv_start *s)
{
    struct tv_nccl_line *line = op->line;
    const int is_link = line != &side->whole;
    const struct tv_nccl_call call = {.op = s->op,
                                      .rank = line->rank,
                                      .size = line->size,
                                      .send = s->send,
                                      .recv = s->recv,
                                      .count = s->count,
                                      .counts = is_even(s, line->size) ? NULL : s->counts,
                                      .dtype = s->dtype,
                                      .reduce = s->reduce,
                                      .root = is_link ? 1 - line->rank : s->root};
    char message[TV_NCCL_MESSAGE] = "", name[TV_SPAN_NAME];
    int span;
    snprintf(name, sizeof(name), "%.16s %s, %" PRId64, side->comm->name, tv_op_name(s->op),
             s->count);
    TV_TRY(tv_event_record(op->ready, op->stream));
    TV_TRY(tv_stream_wait_event(line->stream, op->ready));
    TV_TRY(tv_span_begin(line->stream, name, &span));
    if (has_work(&call)) {
        const tv_status_t status =
            side->nccl->enqueue(line->handle, &call, tv_stream_handle(line->stream), message);
        if (status != TV_OK)
            return tv_nccl_failed(side, status, tv_op_name(s->op), message);
        TV_TRY(tv_nccl_wait_ready(side, line->handle, tv_op_name(s->op)));
    }
    TV_TRY(tv_span_end(line->stream, span));
    return tv_event_record(op->done, line->stream);
}

/* What the host's algorithms would send: NCCL does not count. */
static int64_t sent_bytes(const struct tv_comm *comm, const struct tv_start *s)
{
    const int64_t bytes = (int64_t)tv_dtype_bytes(s->dtype), num_peers = comm->size - 1;
    int64_t total = s->counts == NULL ? s->count * comm->size : 0;
    for (int r = 0; s->counts != NULL && r < comm->size; r++)
        total += s->counts[r];
    switch (s->op) {
    case TV_OP_RECV:
        return 0;
    case TV_OP_ALL_REDUCE:
        return tv_all_reduce_sent_bytes(s->count, s->dtype, comm->size, comm->rank, -1);
    case TV_OP_REDUCE_SCATTER:
        return (total - s->count) * bytes;
    case TV_OP_ALL_GATHER:
        return num_peers * s->count * bytes;
    case TV_OP_BROADCAST:
        return comm->rank == s->root ? num_peers * s->count * bytes : 0;
    default:
        return s->count * bytes;
    }
}

tv_status_t tv_nccl_start(struct tv_comm *comm, struct tv_nccl_line *line,
                          const struct tv_start *start, struct tv_stream *stream,
                          struct tv_request **request_out)
{
    struct tv_device_side *side = comm->device_side;
    struct tv_device_op *op = NULL;
    struct tv_request *request = NULL;
    TV_TRY(tv_nccl_check_alive(comm->shared));
    if (line->handle == NULL)
        return TV_ERR(TV_PEER,
                      "%s axis, rank %d: nothing can follow an operation that was given up",
                      comm->name, comm->rank);
    TV_TRY(take_op(side, &op));
    const tv_status_t taken = tv_request_take(comm, start, 0, &request);
    op->line = line;
    op->stream = stream;
    op->op = start->op;
    op->count = start->count;
    op->number = comm->shared->num_device_ops++;
    snprintf(op->context, sizeof(op->context), "%s", comm->context);
    tv_status_t status = taken;
    if (status == TV_OK) {
        request->device_op = op;
        status = enqueue(side, op, start);
    }
    if (status != TV_OK) {
        op->is_claimed = 0;
        op->is_done = 1;
        if (taken == TV_OK)
            tv_request_release(request);
        return status;
    }
    comm->stats.num_operations++;
    comm->stats.sent_bytes += sent_bytes(comm, start);
    *request_out = request;
    return TV_OK;
}

tv_status_t tv_nccl_test(struct tv_request *request, int *done_out)
{
    struct tv_device_op *op = request->device_op;
    TV_TRY(tv_nccl_poll(request->comm->shared, 0));
    *done_out = op->is_done;
    return op->is_done ? tv_stream_wait_event(op->stream, op->done) : TV_OK;
}

tv_status_t tv_nccl_wait(struct tv_request *request)
{
    struct tv_device_op *op = request->device_op;
    TV_TRY(tv_nccl_check_alive(request->comm->shared));
    op->is_waited = 1;
    return tv_stream_wait_event(op->stream, op->done);
}

void tv_nccl_release(struct tv_request *request)
{
    struct tv_device_op *op = request->device_op;
    struct tv_device_side *side = request->comm->device_side;
    op->is_claimed = 0;
    request->device_op = NULL;
    for (int i = 0; i <= side->num_links && !op->is_done && !op->is_waited; i++) {
        struct tv_nccl_line *line = tv_nccl_line_at(side, i); /* given up: its buffer may go */
        if (line->handle != NULL)
            side->nccl->abort(&line->handle, 1);
        line->handle = NULL;
    }
}

struct tv_nccl_line *tv_nccl_line_for(const struct tv_comm *comm, const struct tv_start *start)
{
    struct tv_device_side *side = comm->device_side;
    const int is_message = start->op == TV_OP_SEND || start->op == TV_OP_RECV;
    if (side == NULL)
        return NULL;
    if (!is_message)
        return &side->whole;
    for (int i = 0; i < side->num_links; i++) {
        struct tv_nccl_line *link = &side->links[i];
        if (link->peer == start->root && link->is_send == (start->op == TV_OP_SEND))
            return link;
    }
    return NULL;
}
