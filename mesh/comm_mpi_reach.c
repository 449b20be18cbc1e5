/* mesh/comm_mpi_reach.c -- memory of other processes of the machine, by process_vm_readv(2): one copy, without the
 * other's help. It needs what ptrace needs: the same user and, under Yama (ptrace_scope 1 and more), leave that nobody
 * gives. So each rank shows all others a place with a random number in it and its process id, and looks at theirs:
 * elsewhere, in another namespace of ids or without leave, some rank of the group does not see what it should, and all
 * send messages. */
#include "base/log.h"
#include "mesh/comm_internal.h"
#include "mesh/comm_mpi_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAX_RANKS = 64 }; /* of a group; a sum waits for a note of each */

struct card {
    int64_t process;
    uint64_t place; /* of `secret` in that process */
    uint64_t secret[2];
};

typedef ssize_t (*move_fn)(pid_t, const struct iovec *, unsigned long, const struct iovec *,
                           unsigned long, unsigned long);

/* Where it stops short, the next call says why. */
static int move(move_fn function, int process, uint64_t place, void *own, size_t bytes)
{
    while (bytes > 0) {
        const struct iovec here = {own, bytes}, there = {(void *)(uintptr_t)place, bytes};
        const ssize_t moved = function(process, &here, 1, &there, 1, 0);
        if (moved <= 0)
            return moved < 0 ? errno : EIO;
        own = (char *)own + moved;
        place += (uint64_t)moved;
        bytes -= (size_t)moved;
    }
    return 0;
}

static tv_status_t check(const struct tv_comm *comm, int peer, const char *what, int code)
{
    if (code == 0)
        return TV_OK;
    return TV_ERR(TV_PEER, "%s axis, rank %d: memory of rank %d cannot be %s: %s", comm->name,
                  comm->rank, peer, what, strerror(code));
}

static tv_status_t read_peer(const struct tv_comm *comm, int peer, uint64_t place, void *to,
                             size_t bytes)
{
    return check(comm, peer, "read",
                 move(process_vm_readv, comm->reach->peers[peer], place, to, bytes));
}

static tv_status_t write_peer(const struct tv_comm *comm, int peer, uint64_t place,
                              const void *from, size_t bytes)
{
    return check(
        comm, peer, "written",
        move(process_vm_writev, comm->reach->peers[peer], place, (void *)(uintptr_t)from, bytes));
}

/* Does this rank see the secrets of all? Errno of the first that it does not, or 0. */
static int look_at(const struct card *cards, int size)
{
    for (int rank = 0; rank < size; rank++) {
        uint64_t seen[2] = {0};
        const int code =
            move(process_vm_readv, (int)cards[rank].process, cards[rank].place, seen, sizeof(seen));
        if (code != 0 || memcmp(seen, cards[rank].secret, sizeof(seen)) != 0)
            return code != 0 ? code : ESRCH;
    }
    return 0;
}

/* Nobody leaves before all have looked: `sees` is agreed on last. */
static tv_status_t show_cards(struct tv_comm *comm, struct card cards[MAX_RANKS], int *sees_out)
{
    struct card own = {.process = getpid(), .place = (uint64_t)(uintptr_t)own.secret};
    struct tv_request *request = NULL;
    const int is_random = getrandom(own.secret, sizeof(own.secret), 0) == sizeof(own.secret);
    TV_TRY(tv_comm_all_gather(comm, &own, cards, (int64_t)sizeof(own), TV_U8, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    const int code = is_random ? look_at(cards, comm->size) : EIO;
    int32_t sees = code == 0;
    TV_TRY(tv_comm_all_reduce_now(comm, &sees, 1, TV_I32, TV_MIN));
    if (code != 0)
        tv_log(TV_LOG_DEBUG, "%s axis, rank %d: messages in place of memory of peers: %s",
               comm->name, comm->rank, strerror(code));
    *sees_out = sees;
    return TV_OK;
}

tv_status_t tv_comm_mpi_reach(struct tv_comm *comm)
{
    struct card cards[MAX_RANKS];
    int sees = 0, first_failed;
    if (comm->size < 2 || comm->size > MAX_RANKS)
        return TV_OK;
    TV_TRY(show_cards(comm, cards, &sees));
    if (sees) {
        const size_t bytes =
            sizeof(struct tv_reach) + (size_t)comm->size * sizeof(comm->reach->peers[0]);
        struct tv_reach *reach = malloc(bytes);
        tv_status_t status = TV_OK;
        if (reach == NULL)
            status = TV_ERR(TV_NO_MEMORY, "%s axis: %zu bytes", comm->name, bytes);
        else
            *reach = (struct tv_reach){.read = read_peer, .write = write_peer};
        for (int rank = 0; reach != NULL && rank < comm->size; rank++)
            reach->peers[rank] = (int)cards[rank].process;
        comm->reach = reach;
        TV_TRY(tv_comm_agree(comm, status, &first_failed));
    }
    comm->stats = (struct tv_comm_stats){0};
    return TV_OK;
}
