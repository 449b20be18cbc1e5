/* mesh/comm_thread.c -- ranks as threads of one process, and the group of one.
 *
 * Each ordered pair of ranks has a mailbox: two queues, of sends and of receives not yet matched.
 * Whoever comes second copies the bytes and marks both done. A group of one rank has one mailbox,
 * to itself. */
#include "mesh/comm_internal.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct mailbox {
    pthread_mutex_t lock;
    struct tv_message *sends, *recvs; /* in the order they were posted */
};

/* Shared by all groups that were split from one another: an abort ends them all. */
struct family {
    atomic_int num_groups;
    atomic_int is_failed;
};

struct group {
    struct family *family;
    atomic_int num_ranks_left; /* the last to be destroyed frees the group */
    int size;
    struct tv_gate gate;   /* to the memory of ranks that take part in a sum */
    struct mailbox *boxes; /* [size, size]: from, to */
};

static const struct tv_comm_ops thread_ops, self_ops;

static struct mailbox *box_of(const struct tv_comm *comm, const struct tv_message *message)
{
    const struct group *group = comm->state;
    const int from = message->is_recv ? message->peer : comm->rank;
    const int to = message->is_recv ? comm->rank : message->peer;
    return &group->boxes[from * group->size + to];
}

static tv_status_t group_create(struct family *family, int size, struct group **group_out)
{
    struct group *group = calloc(1, sizeof(*group));
    struct family *shared = family != NULL ? family : calloc(1, sizeof(*shared));
    struct mailbox *boxes = calloc((size_t)size * (size_t)size, sizeof(*boxes));
    if (group == NULL || shared == NULL || boxes == NULL) {
        free(group);
        free(boxes);
        if (family == NULL)
            free(shared);
        return TV_ERR(TV_NO_MEMORY, "mailboxes of %d ranks", size);
    }
    for (int i = 0; i < size * size; i++)
        pthread_mutex_init(&boxes[i].lock, NULL);
    atomic_fetch_add(&shared->num_groups, 1);
    group->family = shared;
    group->size = size;
    group->boxes = boxes;
    atomic_store(&group->num_ranks_left, size);
    *group_out = group;
    return TV_OK;
}

static void group_leave(struct group *group)
{
    if (atomic_fetch_sub(&group->num_ranks_left, 1) != 1)
        return;
    for (int i = 0; i < group->size * group->size; i++)
        pthread_mutex_destroy(&group->boxes[i].lock);
    if (atomic_fetch_sub(&group->family->num_groups, 1) == 1)
        free(group->family);
    free(group->boxes);
    free(group);
}

/* Takes the first message with this tag out of the queue, or returns NULL. */
static struct tv_message *take_first(struct tv_message **queue, int tag)
{
    for (; *queue != NULL; queue = &(*queue)->next) {
        struct tv_message *message = *queue;
        if (message->tag == tag) {
            *queue = message->next;
            return message;
        }
    }
    return NULL;
}

static void append(struct tv_message **queue, struct tv_message *message)
{
    while (*queue != NULL)
        queue = &(*queue)->next;
    *queue = message;
}

static tv_status_t thread_post(struct tv_comm *comm, struct tv_message *message)
{
    struct mailbox *box = box_of(comm, message);
    pthread_mutex_lock(&box->lock);
    struct tv_message *other =
        take_first(message->is_recv ? &box->sends : &box->recvs, message->tag);
    if (other == NULL) {
        append(message->is_recv ? &box->recvs : &box->sends, message);
    } else {
        const struct tv_message *send = message->is_recv ? other : message;
        const struct tv_message *recv = message->is_recv ? message : other;
        if (send->bytes != recv->bytes) {
            message->got_bytes = other->bytes;
            other->got_bytes = message->bytes;
        } else if (send->bytes > 0) {
            memcpy(recv->data, send->data, (size_t)send->bytes);
        }
        atomic_store_explicit(&message->is_done, 1, memory_order_release);
        atomic_store_explicit(&other->is_done, 1, memory_order_release);
    }
    pthread_mutex_unlock(&box->lock);
    return TV_OK;
}

static int thread_is_failed(const struct tv_comm *comm)
{
    const struct group *group = comm->state;
    return atomic_load(&group->family->is_failed);
}

static tv_status_t thread_test(struct tv_comm *comm, struct tv_message *message, int *done_out)
{
    *done_out = atomic_load_explicit(&message->is_done, memory_order_acquire);
    if (!*done_out && thread_is_failed(comm))
        return TV_ERR(TV_PEER, "%s axis, rank %d: another rank has ended the job", comm->name,
                      comm->rank);
    return TV_OK;
}

static void thread_cancel(struct tv_comm *comm, struct tv_message *message)
{
    struct mailbox *box = box_of(comm, message);
    pthread_mutex_lock(&box->lock);
    struct tv_message **queue = message->is_recv ? &box->recvs : &box->sends;
    while (*queue != NULL && *queue != message)
        queue = &(*queue)->next;
    if (*queue == message)
        *queue = message->next;
    pthread_mutex_unlock(&box->lock);
}

static void thread_end_job(struct tv_comm *comm, int exit_code)
{
    (void)exit_code; /* the threads return, the program exits */
    struct group *group = comm->state;
    atomic_store(&group->family->is_failed, 1);
}

static void thread_destroy(struct tv_comm *comm)
{
    group_leave(comm->state);
}

/* This rank's communicator of a group; on failure it has left the group. */
static tv_status_t join(struct group *group, int rank, struct tv_comm **comm_out)
{
    struct tv_reach *reach = NULL;
    tv_status_t status = TV_OK;
    if (group->size > 1) {
        reach = malloc(sizeof(*reach));
        if (reach == NULL)
            status = TV_ERR(TV_NO_MEMORY, "communicator: %zu bytes", sizeof(*reach));
        else
            *reach = (struct tv_reach){.gate = &group->gate};
    }
    if (status == TV_OK)
        status = tv_comm_alloc(group->size == 1 ? &self_ops : &thread_ops, rank, group->size, group,
                               comm_out);
    if (status != TV_OK) {
        free(reach);
        group_leave(group);
        return status;
    }
    (*comm_out)->reach = reach;
    return TV_OK;
}

/* The first member makes the group and tells the others where it is, through a gather over the old
 * one. places [size]. */
static tv_status_t share_group(struct tv_comm *comm, struct group *made, uint64_t *places)
{
    const uint64_t mine = (uint64_t)(uintptr_t)made;
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_all_gather(comm, &mine, places, (int64_t)sizeof(mine), TV_U8, NULL, &request));
    return tv_request_wait(&request);
}

static tv_status_t join_group(struct tv_comm *comm, struct group *group, const int *members,
                              struct tv_comm **comm_out)
{
    int rank = 0;
    while (members[rank] != comm->rank)
        rank++;
    return join(group, rank, comm_out);
}

static tv_status_t thread_split(struct tv_comm *comm, const int *members, int num_members,
                                struct tv_comm **comm_out)
{
    const struct group *old = comm->state;
    struct group *made = NULL;
    tv_status_t status = TV_OK;
    uint64_t *places = calloc((size_t)comm->size, sizeof(*places));
    if (places == NULL)
        return TV_ERR(TV_NO_MEMORY, "split of %d ranks", comm->size);
    if (num_members > 0 && members[0] == comm->rank)
        status = group_create(old->family, num_members, &made);
    if (status == TV_OK)
        status = share_group(comm, made, places);
    if (status == TV_OK && num_members > 0)
        status = join_group(comm, (struct group *)(uintptr_t)places[members[0]], members, comm_out);
    free(places);
    return status;
}

static const struct tv_comm_ops thread_ops = {
    .name = "thread",
    .collectives = &tv_host_collectives,
    .post = thread_post,
    .test = thread_test,
    .cancel = thread_cancel,
    .split = thread_split,
    .end_job = thread_end_job,
    .is_failed = thread_is_failed,
    .destroy = thread_destroy,
};

static const struct tv_comm_ops self_ops = {
    .name = "self",
    .collectives = &tv_host_collectives,
    .post = thread_post,
    .test = thread_test,
    .cancel = thread_cancel,
    .split = thread_split,
    .end_job = thread_end_job,
    .is_failed = thread_is_failed,
    .destroy = thread_destroy,
};

tv_status_t tv_comm_self_create(struct tv_comm **comm_out)
{
    struct group *group = NULL;
    TV_TRY(group_create(NULL, 1, &group));
    return join(group, 0, comm_out);
}

tv_status_t tv_comm_thread_create(int size, struct tv_comm **comms_out)
{
    if (size < 1)
        return TV_ERR(TV_INVALID, "%d ranks as threads", size);
    struct group *group = NULL;
    TV_TRY(group_create(NULL, size, &group));
    for (int r = 0; r < size; r++) {
        const tv_status_t status = join(group, r, &comms_out[r]);
        if (status == TV_OK)
            continue;
        for (int left = r + 1; left < size; left++)
            group_leave(
                group); /* NOLINT(clang-analyzer-unix.Malloc): the last of the ranks frees it */
        for (int made = 0; made < r; made++)
            tv_comm_destroy(comms_out[made]);
        return status;
    }
    return TV_OK;
}
