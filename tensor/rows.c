/* tensor/rows.c -- rows between pairs of matrices: summed, gathered, cut (Korthikanti et al. 2022,
 * arXiv:2205.05198, section 4.2.2). */
#include "tensor/tensor.h"

tv_status_t tv_tensor_sum(const struct tv_tensor_axis *axis, float *x, int64_t count)
{
    return tv_comm_all_reduce_wait(axis->comm, x, count, TV_F32, TV_SUM, axis->stream);
}

struct tv_row_shard tv_row_shard_of(int64_t rows, int is_sequence_parallel, int T, int t)
{
    if (!is_sequence_parallel)
        return (struct tv_row_shard){0, rows};
    return (struct tv_row_shard){rows / T * t, rows / T};
}

struct tv_row_shard tv_tensor_own_rows(const struct tv_tensor_axis *axis, int64_t rows)
{
    return tv_row_shard_of(rows, axis->is_sequence_parallel, tv_comm_size(axis->comm),
                           tv_comm_rank(axis->comm));
}

tv_status_t tv_tensor_sum_rows_start(const struct tv_tensor_axis *axis, int64_t rows, int64_t cols,
                                     void *partial, void *y, struct tv_request **request_out)
{
    const int64_t count = tv_tensor_own_rows(axis, rows).num * cols;
    if (axis->is_sequence_parallel)
        TV_TRY(tv_comm_reduce_scatter(axis->comm, partial, y, count, tv_tensor_dtype(axis), TV_SUM,
                                      axis->stream, request_out));
    else
        TV_TRY(tv_comm_all_reduce(axis->comm, partial, count, tv_tensor_dtype(axis), TV_SUM,
                                  axis->stream, request_out));
    return axis->is_overlapped ? TV_OK : tv_request_wait(request_out);
}

tv_status_t tv_tensor_sum_rows(const struct tv_tensor_axis *axis, int64_t rows, int64_t cols,
                               void *partial, void *y)
{
    struct tv_request *request;
    TV_TRY(tv_tensor_sum_rows_start(axis, rows, cols, partial, y, &request));
    return tv_request_wait(&request);
}

/* The rows that are part `index` of this rank: its own, then those of the ranks before it. */
static struct tv_row_shard part_at(const struct tv_row_gather *gather, int index)
{
    const int n = gather->num_parts;
    const int rank = (tv_comm_rank(gather->axis->comm) - index + n) % n;
    return tv_row_shard_of(gather->rows, n > 1, n, rank);
}

/* Round a ring: to the next rank go the rows that came last, at first the own ones, and from the previous one come part
 * `index`. All messages are between neighbours, as NCCL's links are. */
static tv_status_t start_part(struct tv_row_gather *gather, int index)
{
    const struct tv_tensor_axis *axis = gather->axis;
    const int T = gather->num_parts, t = tv_comm_rank(axis->comm);
    const struct tv_row_shard last = part_at(gather, index - 1), part = part_at(gather, index);
    const tv_dtype_t dtype = tv_tensor_dtype(axis);
    TV_TRY(tv_comm_recv(axis->comm, tv_at(gather->room, part.first * gather->cols, dtype),
                        part.num * gather->cols, dtype, (t + T - 1) % T, axis->stream,
                        &gather->recv));
    return tv_comm_send(axis->comm, tv_at(gather->room, last.first * gather->cols, dtype),
                        last.num * gather->cols, dtype, (t + 1) % T, axis->stream, &gather->send);
}

static tv_status_t wait_for_part(struct tv_row_gather *gather)
{
    TV_TRY(tv_request_wait(&gather->recv));
    return tv_request_wait(&gather->send);
}

static tv_status_t gather_all_parts(struct tv_row_gather *gather)
{
    for (int i = 1; i < gather->num_parts; i++) {
        TV_TRY(start_part(gather, i));
        TV_TRY(wait_for_part(gather));
    }
    return TV_OK;
}

tv_status_t tv_row_gather_start(const struct tv_tensor_axis *axis, int64_t rows, int64_t cols,
                                const void *x, void *room, struct tv_row_gather *gather_out)
{
    const struct tv_row_shard own = tv_tensor_own_rows(axis, rows);
    const int T = tv_comm_size(axis->comm);
    *gather_out = (struct tv_row_gather){
        .axis = axis, .num_parts = rows % T == 0 ? T : 1, .rows = rows, .cols = cols, .whole = x};
    if (!axis->is_sequence_parallel)
        return TV_OK;
    gather_out->whole = gather_out->room = room;
    void *place = tv_tensor_at(axis, room, own.first * cols);
    if (x != place)
        TV_TRY(tv_stream_copy(axis->stream, place, x, tv_tensor_bytes(axis, own.num * cols)));
    if (!axis->is_overlapped)
        return gather_all_parts(gather_out);
    return T > 1 ? start_part(gather_out, 1) : TV_OK;
}

tv_status_t tv_row_gather_next(struct tv_row_gather *gather, struct tv_row_shard *part_out)
{
    const int index = gather->num_given++;
    const int is_in_flight = gather->room != NULL && gather->axis->is_overlapped && index > 0;
    if (is_in_flight)
        TV_TRY(wait_for_part(gather));
    if (is_in_flight && index + 1 < gather->num_parts)
        TV_TRY(start_part(gather, index + 1));
    *part_out = part_at(gather, index);
    return TV_OK;
}

tv_status_t tv_row_gather_finish(struct tv_row_gather *gather)
{
    struct tv_row_shard part;
    while (gather->num_given < gather->num_parts)
        TV_TRY(tv_row_gather_next(gather, &part));
    return TV_OK;
}

void tv_row_gather_cancel(struct tv_row_gather *gather)
{
    tv_request_cancel(&gather->recv);
    tv_request_cancel(&gather->send);
}
