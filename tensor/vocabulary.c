/* tensor/vocabulary.c -- embedding and cross-entropy with the vocabulary cut over the axis.
 *
 * The loss needs three numbers per row from all ranks: the largest logit, the sum of exponentials,
 * the target's logit (held by one rank); with label smoothing a fourth, the sum of logits. Padding
 * columns take no part in them: kernels read only the first `num` columns of each row. Their gradient
 * is 0, so that products may take them along with the table's rows of zeros. */
#include "base/param.h"
#include "tensor/tensor.h"
#include <math.h>

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
    return (struct tv_cross_entropy_args){
        .rows = loss->rows,
        .cols = loss->shard.num,
        .ld = loss->shard.padded,
        .padded = loss->shard.padded,
        .first = loss->shard.first,
        .logits = loss->logits,
        .targets = loss->targets,
        .row_lse = loss->row_lse,
        .smoothing = s,
        .smoothing_per_column = s / (double)loss->shard.vocab_size,
    };
}

/* Host memory of a loss. work: [row_max, row_sum, row_target, row_rest] of all rows. */
enum { MAX_WORK = 4 };
struct host_rows {
    float *work, *lse;
    int32_t *targets;
};

size_t tv_vocab_host_bytes(int64_t rows)
{
    return (size_t)rows * ((MAX_WORK + 1) * sizeof(float) + sizeof(int32_t));
}

static struct host_rows host_rows_of(const struct tv_vocab_loss *loss)
{
    float *work = loss->host, *lse = work + MAX_WORK * loss->rows;
    return (struct host_rows){work, lse, (int32_t *)(void *)(lse + loss->rows)};
}

/* Adds the loss of counted rows, and works out row_lse of all. */
static void finish_rows(const struct tv_vocab_loss *loss, const struct host_rows *host,
                        double *loss_sum)
{
    const int64_t rows = loss->rows;
    const float *work = host->work;
    const double s = smoothing_of(loss), V = (double)loss->shard.vocab_size;
    for (int64_t r = 0; r < rows; r++) {
        const double max = (double)work[r], target = (double)work[2 * rows + r];
        const double lse = max + log((double)work[rows + r]);
        host->lse[r] = (float)lse;
        if (host->targets[r] < 0)
            continue;
        *loss_sum += lse - target;
        if (s > 0) /* both logits relative to the maximum */
            *loss_sum += s * ((target - max) - (double)work[3 * rows + r] / V);
    }
}

struct tv_vocab_chunks tv_vocab_chunks_of(int64_t rows, int64_t padded, tv_dtype_t dtype,
                                          tv_device_kind_t device)
{
    static const struct {
        int64_t bytes, multiple;
    } of_device[] = {[TV_DEVICE_CPU] = {64 << 20, 64}, [TV_DEVICE_CUDA] = {512 << 20, 256}};
    const int64_t multiple = of_device[device].multiple;
    const int64_t of_a_row = padded * (int64_t)tv_dtype_bytes(dtype);
    const int64_t fit = of_device[device].bytes / of_a_row / multiple * multiple;
    const int64_t most = fit > multiple ? fit : multiple;
    if (rows <= most)
        return (struct tv_vocab_chunks){1, rows};
    const int64_t num = (rows + most - 1) / most, share = (rows + num - 1) / num;
    const int64_t even = (share + multiple - 1) / multiple * multiple;
    return (struct tv_vocab_chunks){(int)((rows + even - 1) / even), even};
}

tv_status_t tv_vocab_cross_entropy_forward(const struct tv_tensor_axis *axis,
                                           const struct tv_vocab_loss *loss, double *loss_sum)
{
    const int64_t rows = loss->rows;
    const size_t row_bytes = (size_t)rows * sizeof(float);
    const int is_smooth = loss->label_smoothing > 0;
    const struct host_rows host = host_rows_of(loss);
    struct tv_cross_entropy_args args = arguments_of(loss);
    args.row_max = loss->work;
    args.row_sum = loss->work + rows;
    args.row_target = loss->work + 2 * rows;
    args.row_rest = is_smooth ? loss->work + 3 * rows : NULL;
    TV_TRY(axis->kernels->cross_entropy_max(axis->stream, &args));
    TV_TRY(tv_comm_all_reduce_wait(axis->comm, args.row_max, rows, TV_F32, TV_MAX, axis->stream));
    TV_TRY(axis->kernels->cross_entropy_sum(axis->stream, &args));
    TV_TRY(tv_tensor_sum(axis, args.row_sum, (is_smooth ? 3 : 2) * rows)); /* neighbours */
    TV_TRY(tv_stream_copy(axis->stream, host.work, loss->work, (is_smooth ? 4 : 3) * row_bytes));
    TV_TRY(tv_stream_copy(axis->stream, host.targets, loss->targets,
                          (size_t)rows * sizeof(*host.targets)));
    TV_TRY(tv_stream_synchronize(axis->stream));
    finish_rows(loss, &host, loss_sum);
    return tv_stream_copy(axis->stream, loss->row_lse, host.lse, row_bytes);
}

tv_status_t tv_vocab_cross_entropy_backward(const struct tv_tensor_axis *axis,
                                            const struct tv_vocab_loss *loss)
{
    const struct tv_cross_entropy_args args = arguments_of(loss);
    return axis->kernels->cross_entropy_backward(axis->stream, &args);
}
