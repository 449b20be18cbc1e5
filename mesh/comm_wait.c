/* mesh/comm_wait.c -- finishing operations: test, move the rank's other operations on, yield, sleep
 * when there is long nothing to do, and give up at the deadline. */
#include "base/clock.h"
#include "mesh/comm.h"
#include "mesh/comm_internal.h"
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

const char *tv_op_name(tv_op_t op)
{
    static const char *const names[] = {"send",           "receive",    "all_reduce",
                                        "reduce_scatter", "all_gather", "broadcast"};
    return names[op];
}

static tv_status_t lengths_differ(const struct tv_request *request,
                                  const struct tv_message *message)
{
    const struct tv_comm *comm = request->comm;
    const int to = message->is_recv ? comm->rank : message->peer;
    const int from = message->is_recv ? message->peer : comm->rank;
    const int64_t expected = message->is_recv ? message->bytes : message->got_bytes;
    const int64_t sent = message->is_recv ? message->got_bytes : message->bytes;
    char amount[24] = "more";
    if (sent != TV_MORE_BYTES)
        snprintf(amount, sizeof(amount), "%" PRId64, sent);
    return TV_ERR(TV_PEER,
                  "%s axis: %s of %" PRId64 " elements: rank %d expects %" PRId64
                  " bytes and rank %d sends %s",
                  comm->name, tv_op_name(request->op), request->count, to, expected, from, amount);
}

/* Stops at the first message that is not done: one test moves the transport on for all. */
static tv_status_t test_messages(struct tv_request *request)
{
    struct tv_comm *comm = request->comm;
    for (; request->num_done < request->num_messages; request->num_done++) {
        struct tv_message *message = &request->messages[request->num_done];
        int done = atomic_load_explicit(&message->is_done, memory_order_acquire);
        if (!done)
            TV_TRY(comm->ops->test(comm, message, &done));
        if (!done)
            return TV_OK;
        if (message->got_bytes >= 0)
            return lengths_differ(request, message);
    }
    return TV_OK;
}

static tv_status_t try_step(struct tv_request *request, int *done_out)
{
    *done_out = 0;
    if (request->device_op != NULL)
        return tv_nccl_test(request, done_out);
    TV_TRY(test_messages(request));
    if (request->num_done < request->num_messages)
        return TV_OK;
    *done_out = 1;
    if (request->op != TV_OP_SEND && request->op != TV_OP_RECV)
        TV_TRY(request->comm->ops->collectives->advance(request, done_out));
    return *done_out && request->stage.stream != NULL ? tv_stage_finish(request) : TV_OK;
}

/* A failure stays with the request: what was tested once cannot be tested again. */
static tv_status_t step(struct tv_request *request, int *done_out)
{
    if (request->status == TV_OK)
        request->status = try_step(request, done_out);
    return request->status;
}

/* Take the steps that peers wait for in all operations of this rank but `request`. */
static tv_status_t step_others(const struct tv_request *request)
{
    struct tv_request *other = request->comm->shared->in_flight;
    for (; other != NULL; other = other->next) {
        int done;
        if (other != request && other->peers_need_step)
            TV_TRY(step(other, &done));
    }
    return TV_OK;
}

void tv_comm_progress(struct tv_comm *comm)
{
    struct tv_request *request = comm->shared->in_flight;
    for (; request != NULL; request = request->next) {
        int done;
        if (request->status != TV_OK || request->device_op != NULL)
            continue;
        request->status =
            request->peers_need_step ? try_step(request, &done) : test_messages(request);
    }
}

static void finish(struct tv_request **request)
{
    tv_request_release(*request);
    *request = NULL;
}

tv_status_t tv_request_test(struct tv_request **request, int *done_out)
{
    int done = 1;
    if (*request != NULL) {
        tv_status_t status = step(*request, &done);
        if (status == TV_OK && !done)
            status = step_others(*request);
        if (status != TV_OK || done)
            finish(request);
        TV_TRY(status);
    }
    *done_out = done;
    return TV_OK;
}

/* "rank 2", "ranks 2, 5": peers with a message that is not done. */
static void name_silent_peers(struct tv_request *request, char *text, size_t bytes)
{
    struct tv_comm *comm = request->comm;
    size_t used = 0;
    int num = 0;
    char list[64] = "";
    for (int peer = 0; peer < comm->size && used + 16 < sizeof(list); peer++) {
        int is_silent = 0;
        for (int i = request->num_done; i < request->num_messages; i++) {
            struct tv_message *message = &request->messages[i];
            int done = atomic_load(&message->is_done);
            if (message->peer == peer && !done)
                is_silent |= comm->ops->test(comm, message, &done) != TV_OK || !done;
        }
        if (is_silent)
            used +=
                (size_t)snprintf(list + used, sizeof(list) - used, "%s%d", num++ ? ", " : "", peer);
    }
    snprintf(text, bytes, "rank%s %s", num == 1 ? "" : "s", list);
}

static tv_status_t deadline_passed(struct tv_request *request)
{
    const struct tv_comm *comm = request->comm;
    char peers[80];
    name_silent_peers(request, peers, sizeof(peers));
    return TV_ERR(TV_PEER,
                  "%s axis, rank %d: %s of %" PRId64 " elements: no answer from %s in %g s%s%s%s",
                  comm->name, comm->rank, tv_op_name(request->op), request->count, peers,
                  comm->timeout_seconds, comm->context[0] ? " (while: " : "", comm->context,
                  comm->context[0] ? ")" : "");
}

void tv_comm_relax(int idle_rounds)
{
    enum { ROUNDS_BEFORE_SLEEP = 50, SLEEP_NS = 50 * 1000 };
    static const struct timespec pause = {0, SLEEP_NS};
    if (idle_rounds < ROUNDS_BEFORE_SLEEP)
        sched_yield();
    else
        nanosleep(&pause, NULL);
}

static tv_status_t poll_until_done(struct tv_request *request)
{
    struct tv_comm *comm = request->comm;
    const double started = tv_clock_seconds();
    tv_status_t status = TV_OK;
    for (int idle_rounds = 0, done = 0; !done && status == TV_OK; idle_rounds++) {
        tv_comm_relax(idle_rounds);
        const int before = request->num_done + request->phase;
        status = step(request, &done);
        if (status == TV_OK && !done)
            status = step_others(request);
        const int is_on_device =
            comm->shared->sides != NULL && comm->shared->device_error[0] == '\0';
        if (status == TV_OK && !done && is_on_device) /* what failed there has been said */
            status = tv_nccl_poll(comm->shared, 0);
        if (request->num_done + request->phase != before)
            idle_rounds = 0;
        const double waited = tv_clock_seconds() - started;
        if (status == TV_OK && !done && comm->timeout_seconds > 0 && waited > comm->timeout_seconds)
            status = deadline_passed(request);
    }
    comm->stats.wait_seconds += tv_clock_seconds() - started;
    return status;
}

tv_status_t tv_request_wait(struct tv_request **request)
{
    if (*request == NULL)
        return TV_OK;
    int done = (*request)->device_op != NULL;
    tv_status_t status = done ? tv_nccl_wait(*request) : step(*request, &done);
    if (status == TV_OK && !done)
        status = poll_until_done(*request);
    finish(request);
    return status;
}

void tv_request_cancel(struct tv_request **request)
{
    if (*request != NULL)
        finish(request);
}
