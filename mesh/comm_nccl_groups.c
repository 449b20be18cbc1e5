/* mesh/comm_nccl_groups.c -- device sides of communicators: the first from an id that the host's
 * communicator carries, all others split from it, in the order of the splits, which is one order on all
 * ranks.
 *
 * A link, from one neighbour to the next, is a split into pairs. In a ring of n ranks edge i joins ranks
 * i and i + 1, and a rank can be in one pair at a time: even edges, then odd ones, then, where n is odd,
 * the last. */
#include "base/clock.h"
#include "base/log.h"
#include "base/span.h"
#include "mesh/comm_nccl_internal.h"
#include "mesh/nccl.h"
#include "mesh/nodes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINK_CHANNELS = 4 }; /* blocks of the GPU for a message, while it runs and while it waits */

/* ---- one GPU each ---- */

struct user {
    char pci[TV_GPU_PCI];
    int32_t world_rank, padding;
};

/* Of the ranks under one kernel, each with a device. */
static tv_status_t find_shared(const struct tv_nodes *nodes, const struct user *mine)
{
    const int num = tv_comm_size(nodes->kernel);
    struct user *all = calloc((size_t)num, sizeof(*all));
    if (all == NULL)
        return TV_ERR(TV_NO_MEMORY, "addresses of %d GPUs", num);
    struct tv_request *request = NULL;
    tv_status_t status =
        tv_comm_all_gather(nodes->kernel, mine, all, (int64_t)sizeof(*mine), TV_U8, NULL, &request);
    if (status == TV_OK)
        status = tv_request_wait(&request);
    for (int b = 1; b < num && status == TV_OK; b++) {
        for (int a = 0; a < b && status == TV_OK; a++) {
            if (strcmp(all[a].pci, all[b].pci) == 0)
                status = TV_ERR(TV_INVALID,
                                "ranks %d and %d are both on the GPU %s of %s, and NCCL "
                                "needs one for each rank",
                                (int)all[a].world_rank, (int)all[b].world_rank, all[a].pci,
                                nodes->names[nodes->node_of[all[a].world_rank]]);
        }
    }
    free(all);
    return status;
}

tv_status_t tv_nccl_check_gpus(struct tv_comm *world, struct tv_device *device)
{
    struct tv_nodes nodes;
    struct user mine = {.world_rank = tv_comm_rank(world)};
    int first_failed;
    snprintf(mine.pci, sizeof(mine.pci), "%s", tv_device_pci(device));
    TV_TRY(tv_nodes_find(world, NULL, &nodes));
    const tv_status_t status = tv_comm_agree(world, find_shared(&nodes, &mine), &first_failed);
    tv_nodes_free(&nodes);
    return status;
}

/* ---- making ---- */

static void free_side(struct tv_device_side *side)
{
    for (struct tv_device_op *list = side->pending; list != NULL;) {
        struct tv_device_op *next = list->next;
        tv_device_op_destroy(list);
        list = next;
    }
    for (struct tv_device_op *list = side->unused; list != NULL;) {
        struct tv_device_op *next = list->next;
        tv_device_op_destroy(list);
        list = next;
    }
    for (int i = 0; i <= side->num_links; i++)
        tv_stream_destroy(tv_nccl_line_at(side, i)->stream);
    tv_buffer_destroy(&side->token);
    free(side);
}

/* A side of comm without a communicator of NCCL yet. */
static tv_status_t create_side(struct tv_comm *comm, struct tv_device *device)
{
    char name[TV_STREAM_NAME];
    struct tv_device_side *side = calloc(1, sizeof(*side));
    if (side == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s axis: device side", comm->name);
    side->nccl = tv_device_nccl(device);
    side->device = device;
    side->comm = comm;
    side->whole.rank = comm->rank;
    side->whole.size = comm->size;
    side->whole.peer = -1;
    const tv_status_t status = tv_stream_create(device, &side->whole.stream);
    if (status != TV_OK) {
        free(side);
        return status;
    }
    tv_stream_set_aside(side->whole.stream);
    snprintf(name, sizeof(name), "%.16s collectives", comm->name);
    tv_stream_set_name(side->whole.stream, name);
    side->next = comm->shared->sides;
    comm->shared->sides = side;
    comm->device_side = side;
    tv_device_watch(device, tv_nccl_watch, comm->shared);
    return TV_OK;
}

/* Rank 0's new id, on all ranks. */
static tv_status_t share_id(struct tv_comm *comm, const struct tv_nccl_table *nccl, char *id)
{
    char message[TV_NCCL_MESSAGE] = "";
    int first_failed;
    tv_status_t status = comm->rank == 0 ? nccl->unique_id(id, message) : TV_OK;
    if (status != TV_OK)
        status = TV_ERR(status, "%s axis: an id for NCCL: %s", comm->name, message);
    TV_TRY(tv_comm_agree(comm, status, &first_failed));
    return tv_comm_broadcast_now(comm, id, TV_NCCL_ID_BYTES, TV_U8, 0);
}

tv_status_t tv_comm_use_nccl(struct tv_comm *comm, struct tv_device *device)
{
    const struct tv_nccl_table *nccl = tv_device_nccl(device);
    char id[TV_NCCL_ID_BYTES] = "", message[TV_NCCL_MESSAGE] = "";
    if (nccl == NULL)
        return TV_ERR(TV_UNSUPPORTED, "the device %s has no NCCL; messages can go through the host",
                      tv_device_name(device));
    if (comm->size == 1)
        return TV_OK;
    TV_TRY(share_id(comm, nccl, id));
    TV_TRY(create_side(comm, device));
    struct tv_device_side *side = comm->device_side;
    const tv_status_t status = nccl->open(id, comm->rank, comm->size, &side->whole.handle, message);
    if (status != TV_OK)
        return tv_nccl_failed(side, status, "making NCCL's communicator", message);
    return tv_nccl_wait_ready(side, side->whole.handle, "making NCCL's communicator");
}

/* Split the collectives' line of comm; *handle_out stays NULL with color < 0. */
static tv_status_t split_line(struct tv_comm *comm, int color, int key, int num_channels,
                              void **handle_out)
{
    struct tv_device_side *side = comm->device_side;
    char message[TV_NCCL_MESSAGE] = "";
    TV_TRY(tv_nccl_check_alive(comm->shared));
    const tv_status_t status =
        side->nccl->split(side->whole.handle, color, key, num_channels, handle_out, message);
    if (status != TV_OK)
        return tv_nccl_failed(side, status, "splitting NCCL's communicator", message);
    return tv_nccl_wait_ready(side, side->whole.handle, "splitting NCCL's communicator");
}

tv_status_t tv_nccl_split(struct tv_comm *comm, int color, int key, struct tv_comm *made)
{
    void *handle = NULL;
    TV_TRY(split_line(comm, color, key, 0, &handle));
    if (color < 0)
        return TV_OK;
    TV_TRY(create_side(made, comm->device_side->device));
    made->device_side->whole.handle = handle;
    return tv_nccl_wait_ready(made->device_side, handle, "splitting NCCL's communicator");
}

tv_status_t tv_comm_share_nccl(struct tv_comm *comm, int color, int key, struct tv_comm *made)
{
    if (comm->device_side == NULL)
        return TV_OK;
    return tv_nccl_split(comm, made != NULL && made->size > 1 ? color : -1, key, made);
}

/* ---- links ---- */

static int round_of(int edge, int num_ranks)
{
    return edge == num_ranks - 1 && num_ranks % 2 == 1 ? 2 : edge % 2;
}

/* Its first operation makes the connection, for which the host waits: now, while both ends are here, not when one of
 * them may be waiting for something else. */
static tv_status_t connect_link(struct tv_comm *comm, struct tv_nccl_line *link)
{
    struct tv_device_side *side = comm->device_side;
    const struct tv_comm_stats before = comm->stats;
    struct tv_request *request = NULL;
    if (side->token.data == NULL)
        TV_TRY(tv_buffer_create(side->device, 1, TV_MEM_BUFFERS, &side->token));
    const struct tv_start start = {.op = link->is_send ? TV_OP_SEND : TV_OP_RECV,
                                   .send = side->token.data,
                                   .recv = side->token.data,
                                   .count = 1,
                                   .dtype = TV_U8,
                                   .root = link->peer};
    TV_TRY(tv_nccl_start(comm, link, &start, link->stream, &request));
    const double started = tv_clock_seconds();
    for (int round = 0, done = 0; !done; round++) {
        tv_comm_relax(round);
        TV_TRY(tv_request_test(&request, &done));
        if (!done)
            TV_TRY(tv_nccl_poll(comm->shared, tv_clock_seconds() - started));
    }
    comm->stats = before;
    return TV_OK;
}

/* This rank's part in one round: it is the source of edge `rank`, the destination of edge `from`, or in none. */
static tv_status_t make_link(struct tv_comm *comm, int round, int to, int from)
{
    struct tv_device_side *side = comm->device_side;
    const int is_send = round_of(comm->rank, comm->size) == round;
    const int is_recv = round_of(from, comm->size) == round;
    void *handle = NULL;
    TV_TRY(split_line(comm,
                      is_send   ? comm->rank
                      : is_recv ? from
                                : -1,
                      is_send ? 0 : 1, LINK_CHANNELS, &handle));
    if (!is_send && !is_recv)
        return TV_OK;
    char name[TV_STREAM_NAME];
    struct tv_nccl_line *link = &side->links[side->num_links];
    TV_TRY(tv_stream_create(side->device, &link->stream));
    tv_stream_set_aside(link->stream);
    snprintf(name, sizeof(name), "%.16s %s %d", comm->name, is_send ? "to" : "from",
             is_send ? to : from);
    tv_stream_set_name(link->stream, name);
    side->num_links++;
    link->handle = handle;
    link->rank = is_send ? 0 : 1;
    link->size = 2;
    link->peer = is_send ? to : from;
    link->is_send = is_send;
    TV_TRY(tv_nccl_wait_ready(side, handle, "splitting NCCL's communicator"));
    return connect_link(comm, link);
}

tv_status_t tv_comm_use_nccl_messages(struct tv_comm *comm, int directions)
{
    const int n = comm->size, num_rounds = n % 2 == 1 ? 3 : 2;
    if (comm->device_side == NULL || comm->device_side->num_links > 0)
        return TV_OK;
    if (n == 2 && directions != 0)
        directions = TV_TO_NEXT; /* the previous rank is the next one */
    for (int direction = TV_TO_NEXT; direction <= TV_TO_PREVIOUS; direction *= 2) {
        const int step = direction == TV_TO_NEXT ? 1 : n - 1;
        for (int round = 0; round < num_rounds && (directions & direction) != 0; round++)
            TV_TRY(make_link(comm, round, (comm->rank + step) % n, (comm->rank + n - step) % n));
    }
    return TV_OK;
}

/* ---- the end ---- */

/* What is enqueued runs to its end: the host has not waited for it. */
static tv_status_t drain(struct tv_comm *comm)
{
    const double started = tv_clock_seconds();
    for (int round = 0; comm->device_side->pending != NULL; round++) {
        TV_TRY(tv_nccl_poll(comm->shared, tv_clock_seconds() - started));
        tv_comm_relax(round);
    }
    return TV_OK;
}

static tv_status_t close_line(struct tv_device_side *side, struct tv_nccl_line *line)
{
    char message[TV_NCCL_MESSAGE] = "";
    if (line->handle == NULL)
        return TV_OK;
    const tv_status_t status = side->nccl->finalize(line->handle, message);
    if (status != TV_OK)
        return tv_nccl_failed(side, status, "ending NCCL's communicator", message);
    TV_TRY(tv_nccl_wait_ready(side, line->handle, "ending NCCL's communicator"));
    side->nccl->destroy(line->handle);
    line->handle = NULL;
    return TV_OK;
}

void tv_nccl_close(struct tv_comm *comm)
{
    struct tv_device_side *side = comm->device_side, **at = &comm->shared->sides;
    tv_status_t status = comm->shared->device_error[0] == '\0' ? drain(comm) : TV_OK;
    for (int i = side->num_links; i >= 0 && status == TV_OK; i--)
        status = close_line(side, tv_nccl_line_at(side, i));
    if (status != TV_OK)
        tv_log(TV_LOG_WARN, "%s axis: NCCL did not end cleanly: %s", comm->name,
               tv_error_message());
    while (*at != side)
        at = &(*at)->next;
    *at = side->next;
    if (comm->shared->sides == NULL)
        tv_device_watch(side->device, NULL, NULL);
    comm->device_side = NULL;
    free_side(side);
}
