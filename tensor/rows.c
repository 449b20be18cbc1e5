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

tv_status_t tv_tensor_sum_rows(const struct tv_tensor_axis *axis, int64_t rows, int64_t cols,
                               float *partial, float *y)
{
    struct tv_request *request;
    if (!axis->is_sequence_parallel)
        return tv_tensor_sum(axis, partial, rows * cols);
    const int64_t count = tv_tensor_own_rows(axis, rows).num * cols;
    TV_TRY(tv_comm_reduce_scatter(axis->comm, partial, y, count, TV_F32, TV_SUM, axis->stream,
                                  &request));
    return tv_request_wait(&request);
}

/* x: [own rows, cols] */
static tv_status_t gather(const struct tv_tensor_axis *axis, int64_t rows, int64_t cols,
                          const float *x, float *whole)
{
    struct tv_request *request;
    const int64_t count = tv_tensor_own_rows(axis, rows).num * cols;
    TV_TRY(tv_comm_all_gather(axis->comm, x, whole, count, TV_F32, axis->stream, &request));
    return tv_request_wait(&request);
}

tv_status_t tv_tensor_gather_rows(const struct tv_tensor_axis *axis, int64_t rows, int64_t cols,
                                  float *x)
{
    if (!axis->is_sequence_parallel)
        return TV_OK;
    return gather(axis, rows, cols, x + tv_tensor_own_rows(axis, rows).first * cols, x);
}

tv_status_t tv_tensor_whole_rows(const struct tv_tensor_axis *axis, int64_t rows, int64_t cols,
                                 const float *x, float *room, const float **whole_out)
{
    if (axis->is_sequence_parallel)
        TV_TRY(gather(axis, rows, cols, x, room));
    *whole_out = axis->is_sequence_parallel ? room : x;
    return TV_OK;
}
