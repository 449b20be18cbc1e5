/* tensor/vocabulary.c -- embedding and cross-entropy with the vocabulary cut over the axis.
 *
 * The loss needs three numbers per row from all ranks: the largest logit, the sum of exponentials,
 * the target's logit (held by one rank). Padding columns take no part: kernels see only the first
 * `num` columns of each row. */
#include "tensor/tensor.h"
#include <math.h>

struct tv_vocab_shard tv_vocab_shard_of(int64_t vocab_size, int T, int t)
{
    const int64_t padded = (vocab_size + T - 1) / T;
    const int64_t first = padded * t < vocab_size ? padded * t : vocab_size;
    const int64_t num = vocab_size - first < padded ? vocab_size - first : padded;
    return (struct tv_vocab_shard){vocab_size, first, num, padded};
}

tv_status_t tv_vocab_embedding_forward(const struct tv_tensor_axis *axis,
                                       const struct tv_vocab_lookup *lookup, const float *table,
                                       float *room, float *y)
{
    float *partial = axis->is_sequence_parallel ? room : y;
    const struct tv_embedding_args args = {.rows = lookup->rows,
                                           .cols = lookup->cols,
                                           .first = lookup->shard.first,
                                           .num = lookup->shard.num,
                                           .ids = lookup->ids,
                                           .table = table,
                                           .y = partial};
    TV_TRY(axis->kernels->embedding_forward(axis->stream, &args));
    return tv_tensor_sum_rows(axis, lookup->rows, lookup->cols, partial, y);
}

tv_status_t tv_vocab_embedding_backward(const struct tv_tensor_axis *axis,
                                        const struct tv_vocab_lookup *lookup, const float *dy,
                                        float *dtable)
{
    const struct tv_embedding_backward_args args = {.rows = lookup->rows,
                                                    .cols = lookup->cols,
                                                    .first = lookup->shard.first,
                                                    .num = lookup->shard.num,
                                                    .ids = lookup->ids,
                                                    .dy = dy,
                                                    .dtable = dtable};
    return axis->kernels->embedding_backward(axis->stream, &args);
}

tv_status_t tv_vocab_cross_entropy_forward(const struct tv_tensor_axis *axis,
                                           struct tv_vocab_shard shard, int64_t rows, float *logits,
                                           const int32_t *targets, float *row_lse, float *work,
                                           double *loss_sum_out)
{
    float *row_max = work, *row_sum = work + rows, *row_target = work + 2 * rows;
    const struct tv_cross_entropy_args args = {
        .rows = rows,
        .cols = shard.num,
        .ld = shard.padded,
        .first = shard.first,
        .logits = logits,
        .targets = targets,
        .row_max = row_max,
        .row_sum = row_sum,
        .row_target = row_target,
    };
    TV_TRY(axis->kernels->cross_entropy_max(axis->stream, &args));
    TV_TRY(tv_comm_all_reduce_wait(axis->comm, row_max, rows, TV_F32, TV_MAX, axis->stream));
    TV_TRY(axis->kernels->cross_entropy_sum(axis->stream, &args));
    TV_TRY(tv_tensor_sum(axis, row_sum, 2 * rows)); /* sums and target logits are neighbours */
    TV_TRY(tv_stream_synchronize(axis->stream));
    double loss = 0;
    for (int64_t r = 0; r < rows; r++) {
        const double lse = (double)row_max[r] + log((double)row_sum[r]);
        row_lse[r] = (float)lse;
        if (targets[r] >= 0)
            loss += lse - (double)row_target[r];
    }
    *loss_sum_out = loss;
    return TV_OK;
}

tv_status_t tv_vocab_cross_entropy_backward(const struct tv_tensor_axis *axis,
                                            struct tv_vocab_shard shard, int64_t rows,
                                            float *logits, const int32_t *targets,
                                            const float *row_lse)
{
    const struct tv_cross_entropy_args args = {
        .rows = rows,
        .cols = shard.num,
        .ld = shard.padded,
        .first = shard.first,
        .logits = logits,
        .targets = targets,
        .row_lse = row_lse,
    };
    TV_TRY(axis->kernels->cross_entropy_backward(axis->stream, &args));
    for (int64_t r = 0; shard.num < shard.padded && r < rows; r++)
        TV_TRY(tv_stream_zero(axis->stream, logits + r * shard.padded + shard.num,
                              (size_t)(shard.padded - shard.num) * sizeof(float)));
    return TV_OK;
}
