/* tensor/vocabulary.c -- embedding and cross-entropy with the vocabulary cut over the axis.
 *
 * The loss needs three numbers per row from all ranks: the largest logit, the sum of exponentials,
 * the target's logit (held by one rank); with label smoothing a fourth, the sum of logits. Padding
 * columns take no part: kernels see only the first `num` columns of each row. */
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
                                       const struct tv_vocab_lookup *lookup, const void *table,
                                       void *room, void *y)
{
    void *partial = axis->is_sequence_parallel ? room : y;
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
                                        const struct tv_vocab_lookup *lookup, const void *dy,
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

/* s: of the mean logit's share in the loss */
static double smoothing_of(const struct tv_vocab_loss *loss)
{
    const double V = (double)loss->shard.vocab_size;
    return loss->label_smoothing > 0 ? loss->label_smoothing * V / (V - 1) : 0;
}

static struct tv_cross_entropy_args arguments_of(const struct tv_vocab_loss *loss)
{
    const double s = smoothing_of(loss);
    return (struct tv_cross_entropy_args){
        .rows = loss->rows,
        .cols = loss->shard.num,
        .ld = loss->shard.padded,
        .first = loss->shard.first,
        .logits = loss->logits,
        .targets = loss->targets,
        .row_lse = loss->row_lse,
        .smoothing = s,
        .smoothing_per_column = s / (double)loss->shard.vocab_size,
    };
}

/* Sum over counted rows, and row_lse of all. work: [row_max, row_sum, row_target, row_rest] */
static double finish_rows(const struct tv_vocab_loss *loss, const float *work)
{
    const int64_t rows = loss->rows;
    const double s = smoothing_of(loss), V = (double)loss->shard.vocab_size;
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        const double max = (double)work[r], target = (double)work[2 * rows + r];
        const double lse = max + log((double)work[rows + r]);
        loss->row_lse[r] = (float)lse;
        if (loss->targets[r] < 0)
            continue;
        sum += lse - target;
        if (s > 0) /* both logits relative to the maximum */
            sum += s * ((target - max) - (double)work[3 * rows + r] / V);
    }
    return sum;
}

tv_status_t tv_vocab_cross_entropy_forward(const struct tv_tensor_axis *axis,
                                           const struct tv_vocab_loss *loss, float *work,
                                           double *loss_sum_out)
{
    const int64_t rows = loss->rows;
    const int is_smooth = loss->label_smoothing > 0;
    struct tv_cross_entropy_args args = arguments_of(loss);
    args.row_max = work;
    args.row_sum = work + rows;
    args.row_target = work + 2 * rows;
    args.row_rest = is_smooth ? work + 3 * rows : NULL;
    TV_TRY(axis->kernels->cross_entropy_max(axis->stream, &args));
    TV_TRY(tv_comm_all_reduce_wait(axis->comm, args.row_max, rows, TV_F32, TV_MAX, axis->stream));
    TV_TRY(axis->kernels->cross_entropy_sum(axis->stream, &args));
    TV_TRY(tv_tensor_sum(axis, args.row_sum, (is_smooth ? 3 : 2) * rows)); /* neighbours */
    TV_TRY(tv_stream_synchronize(axis->stream));
    *loss_sum_out = finish_rows(loss, work);
    return TV_OK;
}

tv_status_t tv_vocab_cross_entropy_backward(const struct tv_tensor_axis *axis,
                                            const struct tv_vocab_loss *loss)
{
    const struct tv_vocab_shard shard = loss->shard;
    const struct tv_cross_entropy_args args = arguments_of(loss);
    TV_TRY(axis->kernels->cross_entropy_backward(axis->stream, &args));
    for (int64_t r = 0; shard.num < shard.padded && r < loss->rows; r++)
        TV_TRY(tv_stream_zero(axis->stream,
                              tv_tensor_at(axis, loss->logits, r * shard.padded + shard.num),
                              tv_tensor_bytes(axis, shard.padded - shard.num)));
    return TV_OK;
}
