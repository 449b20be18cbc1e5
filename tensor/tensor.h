/* tensor/tensor.h -- the tensor axis: one layer's matrices cut over T ranks.
 *
 * Shoeybi et al. 2019 (Megatron-LM): a column-parallel matrix computes its own columns of y from
 * the whole x; a row-parallel one computes a partial sum of y from its own rows, summed over the
 * axis. So a pair costs one sum of [rows, C] in forward (behind the row matrix) and one in backward
 * (before the column matrix). Activations [rows, C] between pairs are the same bits on every rank
 * of the axis.
 *
 * Sequence parallelism (Korthikanti et al. 2022, arXiv:2205.05198): between pairs rank t holds only
 * its own R/T of the R rows. A sum becomes a reduce-scatter, which leaves each rank its rows of it,
 * and an all-gather of the rows stands before a matrix that needs the whole. Both add in rank order
 * and move half the bytes of a sum each: same bits, same bytes, 1/T of the activations.
 *
 * Overlap: a sum or gather needs no result of the matrix product beside it, so it goes on meanwhile.
 * Products are in blocks of some milliseconds, fixed by their sizes, with tv_comm_progress between: that
 * moves whatever this rank has in flight on any axis. Pieces and blocks are the same with overlap and
 * without, and so are the bits.
 *
 * Every function is called by all ranks of the axis together, in the same order. With T = 1 the
 * same code runs on a self communicator. */
#ifndef TV_TENSOR_TENSOR_H
#define TV_TENSOR_TENSOR_H
#include "kernels/kernels.h"
#include "mesh/comm.h"

TV_BEGIN_C
/* What the functions need; plain data, borrowed parts outlive it. `void *` tensors, and the messages
 * that carry them, have elements of the kernels' dtype; sums of bf16 are fp32, rounded once. */
struct tv_tensor_axis {
    struct tv_comm *comm; /* T = its size, t = its rank */
    struct tv_stream *stream;
    const struct tv_kernels *kernels;
    int is_sequence_parallel;
    /* Sums and gathers go on behind matrices; 0: the same pieces, each waited for at once. The same
     * bits. */
    int is_overlapped;
    /* The job has no other rank: nothing is ever in flight, and products are not cut to let it move on. */
    int is_alone;
};

static inline tv_dtype_t tv_tensor_dtype(const struct tv_tensor_axis *axis)
{
    return axis->kernels->dtype;
}
/* Elements of the axis' tensors. */
static inline void *tv_tensor_at(const struct tv_tensor_axis *axis, void *data, int64_t index)
{
    return tv_at(data, index, tv_tensor_dtype(axis));
}
static inline const void *tv_tensor_const_at(const struct tv_tensor_axis *axis, const void *data,
                                             int64_t index)
{
    return tv_const_at(data, index, tv_tensor_dtype(axis));
}
static inline size_t tv_tensor_bytes(const struct tv_tensor_axis *axis, int64_t count)
{
    return (size_t)count * tv_dtype_bytes(tv_tensor_dtype(axis));
}

/* x[count], fp32, becomes its sum over the axis, in place; returns when done. */
TV_MUST_CHECK tv_status_t tv_tensor_sum(const struct tv_tensor_axis *axis, float *x, int64_t count);

/* Own rows: [first, first + num) of R, held by rank t between pairs: R/T of them, or with
 * is_sequence_parallel 0 all. R is a multiple of T. */
struct tv_row_shard {
    int64_t first, num;
};
struct tv_row_shard tv_row_shard_of(int64_t rows, int is_sequence_parallel, int T, int t);
struct tv_row_shard tv_tensor_own_rows(const struct tv_tensor_axis *axis, int64_t rows);

/* y[own rows, cols] = this rank's rows of the sum of partial[rows, cols] over the axis. y is
 * partial itself without sequence parallelism, and apart from it with. */
TV_MUST_CHECK tv_status_t tv_tensor_sum_rows(const struct tv_tensor_axis *axis, int64_t rows,
                                             int64_t cols, void *partial, void *y);
/* The same, started: partial and y are borrowed until tv_request_wait. */
TV_MUST_CHECK tv_status_t tv_tensor_sum_rows_start(const struct tv_tensor_axis *axis, int64_t rows,
                                                   int64_t cols, void *partial, void *y,
                                                   struct tv_request **request_out);

/* All rows [rows, cols] of what each rank has its own rows of, in parts: this rank's rows first,
 * the others' as they arrive, one part in flight while the caller works on the one before. Without
 * sequence parallelism all rows are there, in the same parts, so that a product by parts gives the
 * same bits. */
struct tv_row_gather {
    const struct tv_tensor_axis *axis;
    int num_parts, num_given; /* T parts, or 1 where T does not divide the rows; given so far */
    int64_t rows, cols;
    const void *whole;              /* complete after the last part */
    void *room;                     /* whole, where there is something to gather */
    struct tv_request *send, *recv; /* of the next part, or NULL */
};
/* x[own rows, cols] -> whole: x itself without sequence parallelism, else `room` [rows, cols]; x
 * may be its own place in room. */
TV_MUST_CHECK tv_status_t tv_row_gather_start(const struct tv_tensor_axis *axis, int64_t rows,
                                              int64_t cols, const void *x, void *room,
                                              struct tv_row_gather *gather_out);
/* Waits for the next part; to be called num_parts times. */
TV_MUST_CHECK tv_status_t tv_row_gather_next(struct tv_row_gather *gather,
                                             struct tv_row_shard *part_out);
/* Waits for all parts that are left. */
TV_MUST_CHECK tv_status_t tv_row_gather_finish(struct tv_row_gather *gather);
/* After a failure: nothing is in flight any more. */
void tv_row_gather_cancel(struct tv_row_gather *gather);

/* How a weight is stored: Hugging Face's Conv1D (GPT-2) is [in, out], Linear (Llama) is [out, in].
 */
typedef enum { TV_WEIGHT_IN_OUT, TV_WEIGHT_OUT_IN } tv_weight_layout_t;

/* One local matrix: `in` and `out` are this rank's sizes (out is cut for column, in is cut for
 * row). */
struct tv_linear {
    int64_t in, out;
    tv_weight_layout_t layout;
    const void *weight; /* [in, out] or [out, in] */
    const void *bias;   /* [out] or NULL */
    float *dweight;     /* same shape */
    float *dbias;       /* [out] or NULL */
    int accumulate;     /* dweight and dbias are added to (+=), else written (=) */
};
/* y[rows, out] = x[rows, in] W + bias; local only. ld_y >= out. */
TV_MUST_CHECK tv_status_t tv_column_linear_forward(const struct tv_tensor_axis *axis,
                                                   const struct tv_linear *linear, int64_t rows,
                                                   const void *x, void *y, int64_t ld_y);
/* dx[rows, in] = (or += when add_dx) dy W^T, PARTIAL: the caller adds what other matrices of the
 * same x give and then calls tv_tensor_sum_rows once. */
TV_MUST_CHECK tv_status_t tv_column_linear_backward_input(const struct tv_tensor_axis *axis,
                                                          const struct tv_linear *linear,
                                                          int64_t rows, const void *dy,
                                                          int64_t ld_dy, int add_dx, void *dx);
/* A sum behind a row matrix is in pieces of the own rows, each started when its product is there
 * and summed while the next is multiplied: at most TV_MAX_ROW_PIECES, each of at least 64 rows and
 * 16 KiB (of which a sum costs the same bytes as of more). */
enum { TV_MAX_ROW_PIECES = 4 };
int tv_num_row_pieces(int64_t rows, int64_t cols, tv_dtype_t dtype);

/* y[own rows, out] = sum over the axis of x[rows, in] W, and bias once. room [rows, out]: for the
 * partial sums under sequence parallelism; not read or written without. */
TV_MUST_CHECK tv_status_t tv_row_linear_forward(const struct tv_tensor_axis *axis,
                                                const struct tv_linear *linear, int64_t rows,
                                                const void *x, int64_t ld_x, void *room, void *y);
/* dx[rows, in] = dy[rows, out] W^T, complete for this rank's slice; dy is whole. */
TV_MUST_CHECK tv_status_t tv_row_linear_backward_input(const struct tv_tensor_axis *axis,
                                                       const struct tv_linear *linear, int64_t rows,
                                                       const void *dy, void *dx, int64_t ld_dx);
/* dweight = (accumulate: +=) x^T dy; dbias likewise column sums of dy. Local only; needs neither the
 * weight nor dx, so it may come any time later. */
TV_MUST_CHECK tv_status_t tv_column_linear_backward_weight(const struct tv_tensor_axis *axis,
                                                           const struct tv_linear *linear,
                                                           int64_t rows, const void *x,
                                                           const void *dy, int64_t ld_dy);
/* The same of a row matrix, from the whole dy[rows, out]; dbias from this rank's own rows of it:
 * without sequence parallelism the same on all ranks, with it a part of a sum over the axis. */
TV_MUST_CHECK tv_status_t tv_row_linear_backward_weight(const struct tv_tensor_axis *axis,
                                                        const struct tv_linear *linear,
                                                        int64_t rows, const void *x, int64_t ld_x,
                                                        const void *dy);

/* The vocabulary cut over the axis: rank t holds rows [first, first + num) of the true vocabulary,
 * in a local table of `padded` rows (the same on all ranks); rows beyond num are padding. */
struct tv_vocab_shard {
    int64_t vocab_size, first, num, padded;
};
struct tv_vocab_shard tv_vocab_shard_of(int64_t vocab_size, int T, int t);

struct tv_vocab_lookup {
    struct tv_vocab_shard shard;
    int64_t rows, cols;
    const int32_t *ids; /* [rows] */
};
/* y[own rows, cols] = table[ids], summed over the axis. room [rows, cols]: as of a row matrix. */
TV_MUST_CHECK tv_status_t tv_vocab_embedding_forward(const struct tv_tensor_axis *axis,
                                                     const struct tv_vocab_lookup *lookup,
                                                     const void *table, void *room, void *y);
/* dtable[ids] += dy[rows, cols], which is whole. Local only. */
TV_MUST_CHECK tv_status_t tv_vocab_embedding_backward(const struct tv_tensor_axis *axis,
                                                      const struct tv_vocab_lookup *lookup,
                                                      const void *dy, float *dtable);

/* Label smoothing a, as Megatron-LM defines it: the target has probability 1 - a, every other id
 * a / (V - 1), V the true vocabulary of all ranks. With s = a V / (V - 1) the loss of a row is
 * log sum exp - (1 - s) target logit - s mean logit. */
struct tv_vocab_loss {
    struct tv_vocab_shard shard;
    int64_t rows;
    void *logits;           /* [rows, padded]: this rank's columns; padding is never read */
    const int32_t *targets; /* [rows]; those < 0 are not counted */
    float *row_lse;         /* [rows]: kept for backward */
    double *row_loss;       /* [rows]: of each row; 0 where it is not counted */
    double label_smoothing; /* a, 0 <= a < 1; V >= 2 when it is not 0 */
    float *work;            /* [tv_vocab_work_count]: what ranks compare and sum */
};
int64_t tv_vocab_work_count(int64_t rows, double label_smoothing);

/* The rows of a loss are taken chunk by chunk, so that only the logits of one chunk exist: all of
 * `rows` rows but the last, which may be shorter. A chunk's logits are at most 64 MiB, but of 64
 * rows at least; more than one chunk are of about the same size, a multiple of 64. On a GPU at most
 * 512 MiB and multiples of 2048, or of a smaller power of two that fits, from 256 on: its products need
 * more rows, and whole tiles, to be fast. Fixed by sizes, so the same on all ranks. */
struct tv_vocab_chunks {
    int num;
    int64_t rows;
};
struct tv_vocab_chunks tv_vocab_chunks_of(int64_t rows, int64_t padded, tv_dtype_t dtype,
                                          tv_device_kind_t device);

/* logits -> row_loss and row_lse, the same on all ranks and whatever the chunks. The host waits for nothing but
 * messages. */
TV_MUST_CHECK tv_status_t tv_vocab_cross_entropy_forward(const struct tv_tensor_axis *axis,
                                                         const struct tv_vocab_loss *loss);
/* The sum of row_loss [rows], row by row, in double; host [rows]: host memory for a copy. Waits for the stream. */
TV_MUST_CHECK tv_status_t tv_vocab_loss_sum(const struct tv_tensor_axis *axis, int64_t rows,
                                            const double *row_loss, double *host,
                                            double *loss_sum_out);
/* logits become d(sum of row_loss)/d(logits); padding columns become 0. Local only. */
TV_MUST_CHECK tv_status_t tv_vocab_cross_entropy_backward(const struct tv_tensor_axis *axis,
                                                          const struct tv_vocab_loss *loss);
/* Both, forward and then backward, with the same bits. On one rank in one go. */
TV_MUST_CHECK tv_status_t tv_vocab_cross_entropy(const struct tv_tensor_axis *axis,
                                                 const struct tv_vocab_loss *loss);
TV_END_C
#endif
