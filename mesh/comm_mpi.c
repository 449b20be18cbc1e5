/* mesh/comm_mpi.c -- messages and groups over MPI: non-blocking calls only, tested from trivet's
 * own waiting loop, since blocking MPI calls spin.
 *
 * Each communicator knows two MPI ones: `own`, a duplicate for trivet's messages, and `user` for
 * tv_comm_mpi_get. MPI-3 counts are ints, so a message is cut: whole pieces, then a shorter last
 * one (perhaps of 0 bytes), so that two ends with different lengths differ in some piece. The thread
 * that called MPI_Init talks to MPI; while another makes a communicator it does not. */
#include "mesh/comm_mpi.h"
#include "base/log.h"
#include "mesh/comm_internal.h"
#include "mesh/comm_mpi_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PIECE_BYTES = 1 << 30 };

struct mpi_state {
    MPI_Comm own, user;
    int owns_user, finalizes;
    int64_t piece_bytes;
};

/* What a message has under way. */
struct pieces {
    int64_t num, capacity;
    MPI_Request requests[];
};

static const struct tv_comm_ops mpi_ops;

/* What MPI says about `code`, in one line. */
static void describe(int code, char text[MPI_MAX_ERROR_STRING])
{
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        length = 0;
    text[length] = '\0';
    for (int i = 0; i < length; i++) {
        if (text[i] == '\n')
            text[i] = ' ';
    }
}

static tv_status_t mpi_error(const struct tv_comm *comm, int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING];
    describe(code, text);
    return TV_ERR(TV_PEER, "%s axis: %s: %s", comm != NULL ? comm->name : "world", what, text);
}

/* Over a network, this is how a rank learns that its peer is gone. */
static tv_status_t message_error(const struct tv_comm *comm, const struct tv_message *m, int code)
{
    char text[MPI_MAX_ERROR_STRING];
    describe(code, text);
    return TV_ERR(TV_PEER, "%s axis, rank %d: %s rank %d failed%s%s%s; MPI says: %s", comm->name,
                  comm->rank, m->is_recv ? "a receive from" : "a send to", m->peer,
                  comm->context[0] ? " (while: " : "", comm->context, comm->context[0] ? ")" : "",
                  text);
}

static int bytes_in_piece(const struct mpi_state *state, const struct tv_message *m, int64_t piece)
{
    const int64_t left = m->bytes - piece * state->piece_bytes;
    return (int)(left < state->piece_bytes ? left : state->piece_bytes);
}

/* The message's handle with room for its pieces, none of them under way. */
static tv_status_t reserve_pieces(struct tv_comm *comm, struct tv_message *m)
{
    const struct mpi_state *state = comm->state;
    const int64_t num = m->bytes / state->piece_bytes + 1;
    struct pieces *pieces = m->handle;
    if (pieces == NULL || pieces->capacity < num) {
        pieces = malloc(sizeof(*pieces) + (size_t)num * sizeof(MPI_Request));
        if (pieces == NULL)
            return TV_ERR(TV_NO_MEMORY, "%s axis: a message of %lld pieces", comm->name,
                          (long long)num);
        pieces->capacity = num;
        free(m->handle);
        m->handle = pieces;
    }
    pieces->num = num;
    for (int64_t i = 0; i < num; i++)
        pieces->requests[i] = MPI_REQUEST_NULL;
    return TV_OK;
}

static tv_status_t mpi_post(struct tv_comm *comm, struct tv_message *m)
{
    const struct mpi_state *state = comm->state;
    TV_TRY(reserve_pieces(comm, m));
    struct pieces *pieces = m->handle;
    for (int64_t i = 0; i < pieces->num; i++) {
        const int bytes = bytes_in_piece(state, m, i);
        char *data = bytes > 0 ? (char *)m->data + i * state->piece_bytes : NULL;
        const int code = m->is_recv ? MPI_Irecv(data, bytes, MPI_BYTE, m->peer, m->tag, state->own,
                                                &pieces->requests[i])
                                    : MPI_Isend(data, bytes, MPI_BYTE, m->peer, m->tag, state->own,
                                                &pieces->requests[i]);
        if (code != MPI_SUCCESS)
            return message_error(comm, m, code);
    }
    return TV_OK;
}

/* A piece is complete: note when the sender's is shorter, or longer; MPI does not say how long what
 * it cut off was. */
static tv_status_t check_piece(struct tv_comm *comm, struct tv_message *m, int64_t piece, int code,
                               const MPI_Status *status)
{
    const struct mpi_state *state = comm->state;
    int class = MPI_SUCCESS, got = 0;
    if (code == MPI_SUCCESS) {
        if (m->is_recv && MPI_Get_count(status, MPI_BYTE, &got) == MPI_SUCCESS &&
            got != bytes_in_piece(state, m, piece) && m->got_bytes < 0)
            m->got_bytes = piece * state->piece_bytes + got;
        return TV_OK;
    }
    if (MPI_Error_class(code, &class) != MPI_SUCCESS || class != MPI_ERR_TRUNCATE)
        return message_error(comm, m, code);
    m->got_bytes = TV_MORE_BYTES;
    return TV_OK;
}

/* The buffer may go after a failure: MPI must not touch it any more. */
static void mpi_cancel(struct tv_comm *comm, struct tv_message *m)
{
    (void)comm;
    struct pieces *pieces = m->handle;
    for (int64_t i = 0; pieces != NULL && i < pieces->num; i++) {
        if (pieces->requests[i] != MPI_REQUEST_NULL &&
            MPI_Cancel(&pieces->requests[i]) == MPI_SUCCESS)
            MPI_Request_free(&pieces->requests[i]);
    }
}

static tv_status_t mpi_test(struct tv_comm *comm, struct tv_message *m, int *done_out)
{
    struct pieces *pieces = m->handle;
    *done_out = 0;
    for (int64_t i = 0; i < pieces->num; i++) {
        int done = 0;
        MPI_Status status;
        if (pieces->requests[i] == MPI_REQUEST_NULL)
            continue;
        const int code = MPI_Test(&pieces->requests[i], &done, &status);
        if (code == MPI_SUCCESS && !done)
            return TV_OK;
        TV_TRY(check_piece(comm, m, i, code, &status));
        if (m->got_bytes >= 0) /* the other side may have fewer pieces */
            mpi_cancel(comm, m);
    }
    atomic_store(&m->is_done, 1);
    *done_out = 1;
    return TV_OK;
}

void tv_comm_mpi_set_piece_bytes(struct tv_comm *comm, int64_t bytes)
{
    struct mpi_state *state = comm->state;
    state->piece_bytes = bytes;
}

struct wrap_args {
    MPI_Comm user;
    int owns_user, finalizes;
    double timeout_seconds;
    const char *name; /* for messages */
};

/* MPI_Comm_dup without its spinning wait, and with a deadline. */
static tv_status_t duplicate(const struct wrap_args *args, int rank, MPI_Comm *to)
{
    const double timeout_seconds = args->timeout_seconds;
    MPI_Request request;
    const double started = MPI_Wtime();
    int code = MPI_Comm_idup(args->user, to, &request);
    for (int round = 0, done = 0; code == MPI_SUCCESS && !done; round++) {
        code = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
        if (code == MPI_SUCCESS && !done && timeout_seconds > 0 &&
            MPI_Wtime() - started > timeout_seconds)
            return TV_ERR(TV_PEER,
                          "%s axis, rank %d of a new group: making a communicator: no answer from "
                          "some rank in %g s",
                          args->name, rank, timeout_seconds);
        if (!done)
            tv_comm_relax(round);
    }
    return code == MPI_SUCCESS ? TV_OK : mpi_error(NULL, code, "MPI_Comm_idup");
}

static tv_status_t set_up(const struct wrap_args *args, struct mpi_state *state,
                          struct tv_comm **comm_out)
{
    int rank, size;
    MPI_Comm own;
    if (MPI_Comm_rank(args->user, &rank) != MPI_SUCCESS ||
        MPI_Comm_size(args->user, &size) != MPI_SUCCESS)
        return TV_ERR(TV_PEER, "MPI cannot say rank and size of a communicator");
    TV_TRY(duplicate(args, rank, &own));
    state->own = own;
    if (MPI_Comm_set_errhandler(own, MPI_ERRORS_RETURN) != MPI_SUCCESS)
        return TV_ERR(TV_PEER, "MPI does not take an error handler");
    TV_TRY(tv_comm_alloc(&mpi_ops, rank, size, state, comm_out));
    tv_comm_set_name(*comm_out, args->name);
    (*comm_out)->timeout_seconds = args->timeout_seconds;
    return TV_OK;
}

/* A communicator for this rank of args->user, which it borrows or, when owns_user, frees. */
static tv_status_t wrap(const struct wrap_args *args, struct tv_comm **comm_out)
{
    struct mpi_state *state = calloc(1, sizeof(*state));
    if (state == NULL)
        return TV_ERR(TV_NO_MEMORY, "MPI communicator: %zu bytes", sizeof(*state));
    *state = (struct mpi_state){.own = MPI_COMM_NULL,
                                .user = args->user,
                                .owns_user = args->owns_user,
                                .finalizes = args->finalizes,
                                .piece_bytes = MAX_PIECE_BYTES};
    const tv_status_t status = set_up(args, state, comm_out);
    if (status != TV_OK) {
        if (state->own != MPI_COMM_NULL)
            MPI_Comm_free(&state->own);
        free(state);
    }
    return status;
}

/* The same, with its peers' memory where that can be had. On failure args->user is the caller's. */
static tv_status_t wrap_within_reach(const struct wrap_args *args, struct tv_comm **comm_out)
{
    struct tv_comm *comm = NULL;
    TV_TRY(wrap(args, &comm));
    const tv_status_t status = tv_comm_mpi_reach(comm);
    if (status != TV_OK) {
        struct mpi_state *state = comm->state;
        state->owns_user = state->finalizes = 0;
        tv_comm_destroy(comm);
        return status;
    }
    *comm_out = comm;
    return TV_OK;
}

static tv_status_t create_group(struct tv_comm *comm, const int *members, int num_members,
                                MPI_Comm *user_out)
{
    const struct mpi_state *state = comm->state;
    MPI_Group all = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
    tv_status_t status = TV_OK;
    int code = MPI_Comm_group(state->own, &all);
    if (code == MPI_SUCCESS)
        code = MPI_Group_incl(all, num_members, members, &group);
    if (code == MPI_SUCCESS)
        status = tv_comm_mpi_make(comm, state->own, group, user_out, &code);
    if (status != TV_OK)
        return status; /* a thread may still use the group */
    if (group != MPI_GROUP_NULL)
        MPI_Group_free(&group);
    if (all != MPI_GROUP_NULL)
        MPI_Group_free(&all);
    return code == MPI_SUCCESS ? TV_OK : mpi_error(comm, code, "MPI_Comm_create_group");
}

/* Only the members take part; ranks without a group go on. */
static tv_status_t mpi_split(struct tv_comm *comm, const int *members, int num_members,
                             struct tv_comm **comm_out)
{
    if (num_members == 0)
        return TV_OK;
    if (num_members == 1)
        return tv_comm_self_create(comm_out);
    struct wrap_args args = {
        .owns_user = 1, .timeout_seconds = comm->timeout_seconds, .name = comm->name};
    TV_TRY(create_group(comm, members, num_members, &args.user));
    const tv_status_t status = wrap_within_reach(&args, comm_out);
    if (status != TV_OK)
        MPI_Comm_free(&args.user);
    return status;
}

static void mpi_end_job(struct tv_comm *comm, int exit_code)
{
    (void)comm;
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

static int mpi_is_failed(const struct tv_comm *comm)
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
    .collectives = &tv_host_collectives,
    .post = mpi_post,
    .test = mpi_test,
    .cancel = mpi_cancel,
    .split = mpi_split,
    .end_job = mpi_end_job,
    .is_failed = mpi_is_failed,
    .destroy = mpi_destroy,
};

tv_status_t tv_comm_mpi_world(struct tv_comm **comm_out)
{
    int is_initialized = 0, provided = 0;
    if (MPI_Initialized(&is_initialized) != MPI_SUCCESS)
        return TV_ERR(TV_PEER, "MPI cannot be asked whether it runs");
    if (!is_initialized) {
        const int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
        if (code != MPI_SUCCESS)
            return mpi_error(NULL, code, "MPI_Init_thread");
        /* MPI_Test asks the world's handler what to do about a request that failed. */
        if (MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN) != MPI_SUCCESS)
            return TV_ERR(TV_PEER, "MPI does not take an error handler");
        if (provided < MPI_THREAD_FUNNELED)
            return TV_ERR(TV_UNSUPPORTED,
                          "this MPI allows no threads beside the one that calls it");
    }
    const struct wrap_args args = {.user = MPI_COMM_WORLD,
                                   .finalizes = !is_initialized,
                                   .timeout_seconds = TV_COMM_DEFAULT_TIMEOUT,
                                   .name = "world"};
    return wrap_within_reach(&args, comm_out);
}

static tv_status_t is_on_one_node(struct tv_comm *world, int *is_one_out)
{
    const struct mpi_state *state = world->state;
    MPI_Comm node = MPI_COMM_NULL;
    int size = 0, code;
    TV_TRY(tv_comm_mpi_make(world, state->own, MPI_GROUP_NULL, &node, &code));
    if (code == MPI_SUCCESS)
        code = MPI_Comm_size(node, &size);
    if (node != MPI_COMM_NULL)
        MPI_Comm_free(&node);
    if (code != MPI_SUCCESS)
        return mpi_error(world, code, "MPI_Comm_split_type");
    *is_one_out = size == world->size;
    return TV_OK;
}

/* MPICH's launcher takes a process that ends without MPI_Finalize for a failed one, so one rank ends
 * all: the others have told it that they need nothing any more, and wait for their end. */
static tv_status_t leave_by_abort(struct tv_comm *world, int exit_code)
{
    int32_t is_done = 1;
    struct tv_request *request = NULL;
    for (int peer = 1; world->rank == 0 && peer < world->size; peer++) {
        TV_TRY(tv_comm_recv(world, &is_done, 1, TV_I32, peer, NULL, &request));
        TV_TRY(tv_request_wait(&request));
    }
    if (world->rank == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) /* MPICH would speak of an abort */
            return TV_ERR(TV_IO, "/dev/null cannot be opened");
        MPI_Abort(MPI_COMM_WORLD, exit_code);
    }
    TV_TRY(tv_comm_send(world, &is_done, 1, TV_I32, 0, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    for (unsigned left = TV_COMM_DEFAULT_TIMEOUT; left > 0;)
        left = sleep(left); /* a signal ends it early */
    _exit(exit_code);
}

tv_status_t tv_comm_mpi_leave(struct tv_comm *world, int exit_code)
{
    const struct mpi_state *state = world->state;
    int is_one_node = 0;
    if (!state->finalizes)
        return TV_OK;
    tv_comm_set_context(world, "leaving the job");
    fflush(NULL);
    TV_TRY(tv_comm_barrier(world));
    TV_TRY(is_on_one_node(world, &is_one_node));
    if (is_one_node && getenv("UCX_TLS") == NULL) /* UCX takes shared memory when it may choose */
        return TV_OK;
    if (getenv("MPI_LOCALNRANKS") != NULL) /* set by MPICH's mpiexec */
        return leave_by_abort(world, exit_code);
    if (getenv("SLURM_STEP_ID") != NULL && getenv("PMI_FD") != NULL) /* srun --mpi=pmi2 */
        _exit(exit_code);
    return TV_OK;
}

tv_status_t tv_comm_mpi_create(MPI_Comm mpi_comm, struct tv_comm **comm_out)
{
    const struct wrap_args args = {
        .user = mpi_comm, .timeout_seconds = TV_COMM_DEFAULT_TIMEOUT, .name = "world"};
    return wrap_within_reach(&args, comm_out);
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
