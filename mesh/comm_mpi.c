/* mesh/comm_mpi.c -- messages and groups over MPI: non-blocking calls only, tested from trivet's own waiting loop.
 *
 * Each communicator owns two MPI ones: `own` for trivet's messages, `user` for tv_comm_mpi_get. A message longer than
 * PIECE_BYTES is cut, since MPI-3 counts are ints. Only the thread that called MPI_Init talks to MPI. */
#include "mesh/comm_mpi.h"
#include "base/log.h"
#include "mesh/comm_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 30 };

struct mpi_state {
    MPI_Comm own, user;
    int owns_user, finalizes;
};

/* What a message has under way: one request a piece. */
struct pieces {
    int num;
    MPI_Request requests[];
};

static const struct tv_comm_ops mpi_ops;

static tv_status_t mpi_error(const struct tv_comm *comm, int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        length = 0;
    return TV_ERR(TV_PEER, "%s axis: %s: %.*s", comm != NULL ? comm->name : "world", what, length,
                  text);
}

static int piece_bytes(int64_t bytes, int i)
{
    const int64_t left = bytes - (int64_t)i * PIECE_BYTES;
    return (int)(left < PIECE_BYTES ? left : PIECE_BYTES);
}

static tv_status_t mpi_post(struct tv_comm *comm, struct tv_message *m)
{
    const struct mpi_state *state = comm->state;
    const int num = m->bytes <= PIECE_BYTES ? 1 : (int)((m->bytes + PIECE_BYTES - 1) / PIECE_BYTES);
    struct pieces *pieces = malloc(sizeof(*pieces) + (size_t)num * sizeof(MPI_Request));
    if (pieces == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s axis: a message of %d pieces", comm->name, num);
    pieces->num = num;
    for (int i = 0; i < num; i++)
        pieces->requests[i] = MPI_REQUEST_NULL;
    m->handle = pieces;
    for (int i = 0; i < num; i++) {
        char *data = (char *)m->data + (int64_t)i * PIECE_BYTES;
        const int bytes = piece_bytes(m->bytes, i);
        const int code = m->is_recv ? MPI_Irecv(data, bytes, MPI_BYTE, m->peer, m->tag, state->own,
                                                &pieces->requests[i])
                                    : MPI_Isend(data, bytes, MPI_BYTE, m->peer, m->tag, state->own,
                                                &pieces->requests[i]);
        if (code != MPI_SUCCESS) {
            free(pieces);
            m->handle = NULL;
            return mpi_error(comm, code, m->is_recv ? "MPI_Irecv" : "MPI_Isend");
        }
    }
    return TV_OK;
}

static tv_status_t mpi_test(struct tv_comm *comm, struct tv_message *m, int *done_out)
{
    struct pieces *pieces = m->handle;
    for (int i = 0; i < pieces->num; i++) {
        int done = 0, got = 0;
        MPI_Status status;
        if (pieces->requests[i] == MPI_REQUEST_NULL)
            continue;
        const int code = MPI_Test(&pieces->requests[i], &done, &status);
        if (code != MPI_SUCCESS)
            return mpi_error(comm, code, m->is_recv ? "receive" : "send");
        if (!done) {
            *done_out = 0;
            return TV_OK;
        }
        if (m->is_recv && MPI_Get_count(&status, MPI_BYTE, &got) == MPI_SUCCESS &&
            got != piece_bytes(m->bytes, i))
            m->got_bytes = (int64_t)i * PIECE_BYTES + got;
    }
    free(pieces);
    m->handle = NULL;
    atomic_store(&m->is_done, 1);
    *done_out = 1;
    return TV_OK;
}

/* The job is about to end: the buffers may go, so MPI must not touch them. */
static void mpi_cancel(struct tv_comm *comm, struct tv_message *m)
{
    (void)comm;
    struct pieces *pieces = m->handle;
    for (int i = 0; pieces != NULL && i < pieces->num; i++) {
        if (pieces->requests[i] != MPI_REQUEST_NULL &&
            MPI_Cancel(&pieces->requests[i]) == MPI_SUCCESS)
            MPI_Request_free(&pieces->requests[i]);
    }
    free(pieces);
    m->handle = NULL;
}

/* MPI_Comm_dup without its spinning wait. */
static tv_status_t duplicate(MPI_Comm from, MPI_Comm *to)
{
    MPI_Request request;
    int code = MPI_Comm_idup(from, to, &request);
    for (int round = 0, done = 0; code == MPI_SUCCESS && !done; round++) {
        code = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
        if (!done)
            tv_comm_relax(round);
    }
    return code == MPI_SUCCESS ? TV_OK : mpi_error(NULL, code, "MPI_Comm_idup");
}

/* A communicator for this rank of `user`, which it borrows or, when owns_user, frees. */
static tv_status_t wrap(MPI_Comm user, int owns_user, int finalizes, struct tv_comm **comm_out)
{
    int rank, size;
    struct mpi_state *state = calloc(1, sizeof(*state));
    if (state == NULL)
        return TV_ERR(TV_NO_MEMORY, "MPI communicator: %zu bytes", sizeof(*state));
    *state = (struct mpi_state){.user = user, .owns_user = owns_user, .finalizes = finalizes};
    tv_status_t status = duplicate(user, &state->own);
    if (status == TV_OK &&
        (MPI_Comm_set_errhandler(state->own, MPI_ERRORS_RETURN) != MPI_SUCCESS ||
         MPI_Comm_rank(user, &rank) != MPI_SUCCESS || MPI_Comm_size(user, &size) != MPI_SUCCESS))
        status = TV_ERR(TV_PEER, "MPI cannot say rank and size of a communicator");
    if (status == TV_OK)
        status = tv_comm_alloc(&mpi_ops, rank, size, state, comm_out);
    if (status != TV_OK)
        free(state);
    return status;
}

/* Only the members take part; ranks without a group go on. */
static tv_status_t mpi_split(struct tv_comm *comm, const int *members, int num_members,
                             struct tv_comm **comm_out)
{
    const struct mpi_state *state = comm->state;
    MPI_Group all, group;
    MPI_Comm user;
    if (num_members == 0)
        return TV_OK;
    if (num_members == 1)
        return tv_comm_self_create(comm_out);
    int code = MPI_Comm_group(state->own, &all);
    if (code == MPI_SUCCESS)
        code = MPI_Group_incl(all, num_members, members, &group);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_create_group(state->own, group, TV_TAG_COLLECTIVES + TV_TAG_WINDOW, &user);
    if (code != MPI_SUCCESS)
        return mpi_error(comm, code, "MPI_Comm_create_group");
    MPI_Group_free(&group);
    MPI_Group_free(&all);
    const tv_status_t status = wrap(user, 1, 0, comm_out);
    if (status != TV_OK)
        MPI_Comm_free(&user);
    return status;
}

static void mpi_abort(struct tv_comm *comm, int exit_code)
{
    const struct mpi_state *state = comm->state;
    MPI_Abort(state->user, exit_code);
}

static int mpi_is_aborted(const struct tv_comm *comm)
{
    (void)comm; /* an abort ends this process too */
    return 0;
}

static void mpi_destroy(struct tv_comm *comm)
{
    struct mpi_state *state = comm->state;
    int is_finalized = 0;
    if (MPI_Finalized(&is_finalized) == MPI_SUCCESS && !is_finalized) {
        if (MPI_Comm_free(&state->own) != MPI_SUCCESS)
            tv_log(TV_LOG_WARN, "%s axis: its MPI communicator was not freed", comm->name);
        if (state->owns_user && MPI_Comm_free(&state->user) != MPI_SUCCESS)
            tv_log(TV_LOG_WARN, "%s axis: its MPI communicator was not freed", comm->name);
        if (state->finalizes)
            MPI_Finalize();
    }
    free(state);
}

static const struct tv_comm_ops mpi_ops = {
    .name = "mpi",
    .post = mpi_post,
    .test = mpi_test,
    .cancel = mpi_cancel,
    .split = mpi_split,
    .abort = mpi_abort,
    .is_aborted = mpi_is_aborted,
    .destroy = mpi_destroy,
};

tv_status_t tv_comm_mpi_world(struct tv_comm **comm_out)
{
    int is_initialized = 0, provided = 0;
    if (MPI_Initialized(&is_initialized) != MPI_SUCCESS)
        return TV_ERR(TV_PEER, "MPI cannot be asked whether it runs");
    if (!is_initialized) {
        const int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
        if (code != MPI_SUCCESS)
            return mpi_error(NULL, code, "MPI_Init_thread");
    }
    return wrap(MPI_COMM_WORLD, 0, !is_initialized, comm_out);
}

tv_status_t tv_comm_mpi_create(MPI_Comm mpi_comm, struct tv_comm **comm_out)
{
    return wrap(mpi_comm, 0, 0, comm_out);
}

tv_status_t tv_comm_mpi_get(const struct tv_comm *comm, MPI_Comm *mpi_comm_out)
{
    if (comm->ops == &mpi_ops) {
        const struct mpi_state *state = comm->state;
        *mpi_comm_out = state->user;
        return TV_OK;
    }
    if (comm->size > 1)
        return TV_ERR(TV_UNSUPPORTED, "%s axis: ranks are threads, they have no MPI communicator",
                      comm->name);
    *mpi_comm_out = MPI_COMM_SELF;
    return TV_OK;
}

void tv_comm_mpi_version(char *text_out, size_t bytes)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    if (MPI_Get_library_version(text, &length) != MPI_SUCCESS)
        text[0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    snprintf(text_out, bytes, "%s", text);
}
