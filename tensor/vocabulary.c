/* tensor/vocabulary.c -- embedding and cross-entropy with the vocabulary cut over the axis.
 *
 * The loss needs three numbers per row from all ranks: the largest logit, the sum of exponentials,
 * the target's logit (held by one rank); with label smoothing a fourth, the sum of logits. Each rank
 * reads its logits once, relative to its own largest; kernels move the sums to that of all. Padding
 * columns take no part in them: kernels read only the first `num` columns of each row. Their gradient
 * is 0, so that products may take them along with the table's rows of zeros. */
#include "base/param.h"
#include "tensor/tensor.h"

struct tv_vocab_shard tv_vocab_shard_of(int64_t vocab_size, int T, int t)
{
    const int64_t padded = tv_vocabulary_share(vocab_size, T);
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
    const int64_t rows = loss->rows;
    return (struct tv_cross_entropy_args){
        .rows = rows,
        .cols = loss->shard.num,
        .ld = loss->shard.padded,
        .padded = loss->shard.padded,
        .first = loss->shard.first,
        .logits = loss->logits,
        .targets = loss->targets,
        .row_max = loss->work,
        .row_base = loss->work + rows,
        .row_sum = loss->work + 2 * rows, /* and behind it what is summed with it */
        .row_target = loss->work + 3 * rows,
        .row_rest = s > 0 ? loss->work + 4 * rows : NULL,
        .row_lse = loss->row_lse,
        .row_loss = loss->row_loss,
        .smoothing = s,
        .smoothing_per_column = s / (double)loss->shard.vocab_size,
    };
}

int64_t tv_vocab_work_count(int64_t rows, double label_smoothing)
{
    return (label_smoothing > 0 ? 5 : 4) * rows;
}

struct tv_vocab_chunks tv_vocab_chunks_of(int64_t rows, int64_t padded, tv_dtype_t dtype,
                                          tv_device_kind_t device)
{
    static const struct {
        int64_t bytes, multiple, least_multiple;
    } of_device[] = {
        [TV_DEVICE_CPU] = {64 << 20, 64, 64}, [TV_DEVICE_CUDA] = {512 << 20, 2048, 256}};
    const int64_t rows_fit = of_device[device].bytes / (padded * (int64_t)tv_dtype_bytes(dtype));
    int64_t multiple = of_device[device].multiple;
    while (multiple > of_device[device].least_multiple && multiple > rows_fit)
        multiple /= 2;
    const int64_t fit = rows_fit / multiple * multiple;
    const int64_t most = fit > multiple ? fit : multiple;
    if (rows <= most)
        return (struct tv_vocab_chunks){1, rows};
    const int64_t num = (rows + most - 1) / most, share = (rows + num - 1) / num;
    const int64_t even = (share + multiple - 1) / multiple * multiple;
    return (struct tv_vocab_chunks){(int)((rows + even - 1) / even), even};
}

tv_status_t tv_vocab_cross_entropy_forward(const struct tv_tensor_axis *axis,
                                           const struct tv_vocab_loss *loss)
{
    const struct tv_cross_entropy_args args = arguments_of(loss);
    const int64_t rows = loss->rows;
    TV_TRY(axis->kernels->cross_entropy_forward(axis->stream, &args));
    TV_TRY(tv_comm_all_reduce_wait(axis->comm, args.row_max, rows, TV_F32, TV_MAX, axis->stream));
    TV_TRY(axis->kernels->cross_entropy_rebase(axis->stream, &args));
    TV_TRY(tv_tensor_sum(axis, args.row_sum, (args.row_rest != NULL ? 3 : 2) * rows));
    return axis->kernels->cross_entropy_loss(axis->stream, &args);
}

tv_status_t tv_vocab_loss_sum(const struct tv_tensor_axis *axis, int64_t rows,
                              const double *row_loss, double *host, double *loss_sum_out)
{
    double sum = 0;
    TV_TRY(tv_stream_copy(axis->stream, host, row_loss, (size_t)rows * sizeof(*host)));
    TV_TRY(tv_stream_synchronize(axis->stream));
    for (int64_t r = 0; r < rows; r++)
        sum += host[r];
    *loss_sum_out = sum;
    return TV_OK;
}

tv_status_t tv_vocab_cross_entropy_backward(const struct tv_tensor_axis *axis,
                                            const struct tv_vocab_loss *loss)
{
    const struct tv_cross_entropy_args args = arguments_of(loss);
    return axis->kernels->cross_entropy_backward(axis->stream, &args);
}

tv_status_t tv_vocab_cross_entropy(const struct tv_tensor_axis *axis,
                                   const struct tv_vocab_loss *loss)
{
    const struct tv_cross_entropy_args args = arguments_of(loss);
    if (tv_comm_size(axis->comm) == 1)
        return axis->kernels->cross_entropy(axis->stream, &args);
    TV_TRY(tv_vocab_cross_entropy_forward(axis, loss));
    return tv_vocab_cross_entropy_backward(axis, loss);
}
