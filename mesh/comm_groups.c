/* mesh/comm_groups.c -- blocking operations built on the others: shorthands for small host values,
 * agreement on a status, and new groups. */
#include "mesh/comm.h"
#include "mesh/comm_internal.h"
#include <stdio.h>
#include <stdlib.h>

tv_status_t tv_comm_all_reduce_wait(struct tv_comm *comm, void *buffer, int64_t count,
                                    tv_dtype_t dtype, tv_reduce_op_t op, struct tv_stream *stream)
{
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_all_reduce(comm, buffer, count, dtype, op, stream, &request));
    return tv_request_wait(&request);
}

tv_status_t tv_comm_all_reduce_now(struct tv_comm *comm, void *host_buffer, int64_t count,
                                   tv_dtype_t dtype, tv_reduce_op_t op)
{
    return tv_comm_all_reduce_wait(comm, host_buffer, count, dtype, op, NULL);
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

struct verdict {
    int32_t status;
    char message[1024];
};

/* The verdict of the lowest rank that failed; *first_out is comm->size when none did. */
static tv_status_t share_verdict(struct tv_comm *comm, struct verdict *verdict, int32_t *first_out)
{
    *first_out = verdict->status == (int32_t)TV_OK ? comm->size : comm->rank;
    TV_TRY(tv_comm_all_reduce_now(comm, first_out, 1, TV_I32, TV_MIN));
    if (*first_out == comm->size)
        return TV_OK;
    return tv_comm_broadcast_now(comm, verdict, (int64_t)sizeof(*verdict), TV_U8, *first_out);
}

tv_status_t tv_comm_agree(struct tv_comm *comm, tv_status_t local, int *first_failed_out)
{
    struct verdict mine = {.status = (int32_t)local};
    snprintf(mine.message, sizeof(mine.message), "%s", tv_error_message());
    struct verdict common = mine;
    int32_t first;
    *first_failed_out = -1;
    const tv_status_t status = share_verdict(comm, &common, &first);
    if (status != TV_OK) /* nobody else can say what went wrong here */
        return local != TV_OK ? TV_ERR(local, "%s", mine.message) : status;
    if (first == comm->size)
        return TV_OK;
    *first_failed_out = first;
    return TV_ERR((tv_status_t)common.status, "%s", common.message);
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
    int num = 0;
    if (status == TV_OK) {
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
    if (made != NULL)
        tv_comm_inherit(made, comm);
    if (comm->device_side != NULL)
        status = tv_nccl_split(comm, num > 1 ? color : -1, num > 1 ? made->rank : 0, made);
    if (status != TV_OK) {
        tv_comm_destroy(made);
        return status;
    }
    *comm_out = made;
    return TV_OK;
}
