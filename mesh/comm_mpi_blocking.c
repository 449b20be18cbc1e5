/* mesh/comm_mpi_blocking.c -- the calls of MPI that have no non-blocking form, under a deadline.
 *
 * They spin until all their ranks have come, for ever when one of them does not. So a thread makes
 * the call while the rank's own thread polls a flag: one of the two at a time is in MPI
 * (MPI_THREAD_SERIALIZED). When the deadline passes the thread stays in its call: the rank can do
 * nothing but end the job (tv_comm_abort). */
#include "base/clock.h"
#include "mesh/comm_internal.h"
#include "mesh/comm_mpi_internal.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* On the heap: the thread outlives a caller that gives up. */
struct blocking_call {
    MPI_Comm from, made;
    MPI_Group group; /* MPI_GROUP_NULL: the ranks that share memory */
    int code;
    atomic_int is_done;
};

static void *make_call(void *argument)
{
    enum { TAG = TV_TAG_COLLECTIVES + TV_TAG_WINDOW };
    struct blocking_call *call = argument;
    if (call->group != MPI_GROUP_NULL)
        call->code = MPI_Comm_create_group(call->from, call->group, TAG, &call->made);
    else
        call->code =
            MPI_Comm_split_type(call->from, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &call->made);
    atomic_store(&call->is_done, 1);
    return NULL;
}

/* A program that started MPI itself may have asked for less; its calls have no deadline. */
static int may_use_threads(void)
{
    int provided = MPI_THREAD_SINGLE;
    return MPI_Query_thread(&provided) == MPI_SUCCESS && provided >= MPI_THREAD_SERIALIZED;
}

static tv_status_t wait_for(struct tv_comm *comm, const struct blocking_call *call)
{
    const double started = tv_clock_seconds();
    for (int round = 0; !atomic_load(&call->is_done); round++) {
        tv_comm_relax(round);
        const double waited = tv_clock_seconds() - started;
        if (comm->timeout_seconds > 0 && waited > comm->timeout_seconds &&
            !atomic_load(&call->is_done))
            return TV_ERR(TV_PEER,
                          "%s axis, rank %d: making a communicator: no answer from some rank in "
                          "%g s%s%s%s",
                          comm->name, comm->rank, comm->timeout_seconds,
                          comm->context[0] ? " (while: " : "", comm->context,
                          comm->context[0] ? ")" : "");
    }
    return TV_OK;
}

tv_status_t tv_comm_mpi_make(struct tv_comm *comm, MPI_Comm from, MPI_Group group,
                             MPI_Comm *made_out, int *code_out)
{
    pthread_t thread;
    struct blocking_call *call = calloc(1, sizeof(*call));
    if (call == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s axis: a communicator", comm->name);
    *call = (struct blocking_call){.from = from, .made = MPI_COMM_NULL, .group = group};
    if (!may_use_threads()) {
        make_call(call);
    } else {
        if (pthread_create(&thread, NULL, make_call, call) != 0) {
            free(call);
            return TV_ERR(TV_NO_MEMORY, "%s axis: no thread to make a communicator", comm->name);
        }
        const tv_status_t status = wait_for(comm, call);
        if (status != TV_OK) { /* the call is the thread's now */
            pthread_detach(thread);
            return status; /* NOLINT(clang-analyzer-unix.Malloc) */
        }
        pthread_join(thread, NULL);
    }
    *made_out = call->made;
    *code_out = call->code;
    free(call);
    return TV_OK;
}
