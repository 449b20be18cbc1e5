/* tensor/linear.c -- column- and row-parallel matrices (Shoeybi et al. 2019, arXiv:1909.08053). */
#include "tensor/tensor.h"

/* What is multiplied at once: some milliseconds of one core, and in no direction so little that a and b are packed anew
 * for nothing. Where k is long beside both edges of c (the gradient into a head, whose k is the vocabulary) they are
 * what keeps packing cheap, so k is cut, into parts of four times as much, where c has floats and can take one after
 * the other. Fixed by sizes. A GPU takes all of it: its messages move on without the host; so does a rank that has
 * nobody to send to. */
struct block_shape {
    int64_t rows, cols, depth;
};

static int64_t half_of(int64_t edge)
{
    enum { MULTIPLE = 64 };
    return (edge / 2 + MULTIPLE - 1) / MULTIPLE * MULTIPLE;
}

static struct block_shape shape_of_blocks(const struct tv_tensor_axis *axis,
                                          const struct tv_matmul_args *args, tv_dtype_t c_dtype)
{
    enum { MOST_PRODUCTS = 512 << 20, LEAST_EDGE = 256, LEAST_DEPTH = 4096, PARTS = 4 };
    struct block_shape block = {args->m, args->n, args->k};
    const int is_deep =
        c_dtype == TV_F32 && args->k > LEAST_DEPTH && args->k / 4 >= args->m + args->n;
    if (axis->is_alone || tv_device_kind(tv_stream_device(axis->stream)) == TV_DEVICE_CUDA)
        return block;
    while (is_deep && block.rows * block.cols * block.depth / PARTS > MOST_PRODUCTS &&
           block.depth > LEAST_DEPTH)
        block.depth = half_of(block.depth);
    while (!is_deep && block.rows * block.cols * block.depth > MOST_PRODUCTS) {
        int64_t *longer = block.rows > block.cols ? &block.rows : &block.cols;
        if (*longer < 2 * LEAST_EDGE)
            break;
        *longer = half_of(*longer);
    }
    return block;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Where a block begins. */
struct block_place {
    int64_t i, j, k;
};

static struct tv_matmul_args block_at(const struct tv_tensor_axis *axis,
                                      const struct tv_matmul_args *whole, tv_dtype_t c_dtype,
                                      struct block_shape shape, struct block_place at)
{
    struct tv_matmul_args block = *whole;
    block.m = least(whole->m - at.i, shape.rows);
    block.n = least(whole->n - at.j, shape.cols);
    block.k = least(whole->k - at.k, shape.depth);
    block.a = tv_tensor_const_at(
        axis, whole->a, whole->trans_a ? at.k * whole->ld_a + at.i : at.i * whole->ld_a + at.k);
    block.b = tv_tensor_const_at(
        axis, whole->b, whole->trans_b ? at.j * whole->ld_b + at.k : at.k * whole->ld_b + at.j);
    if (at.k > 0) {
        block.bias = NULL;
        block.accumulate = 1;
    } else if (whole->bias != NULL) {
        block.bias = tv_tensor_const_at(axis, whole->bias, at.j);
    }
    block.c = tv_at(whole->c, at.i * whole->ld_c + at.j, c_dtype);
    return block;
}

static tv_status_t multiply_block_at(const struct tv_tensor_axis *axis,
                                     const struct tv_matmul_args *whole, tv_dtype_t c_dtype,
                                     struct block_shape shape, struct block_place at)
{
    const struct tv_matmul_args block = block_at(axis, whole, c_dtype, shape, at);
    TV_TRY(c_dtype == TV_F32 ? axis->kernels->matmul_to_f32(axis->stream, &block)
                             : axis->kernels->matmul(axis->stream, &block));
    tv_comm_progress(axis->comm);
    return TV_OK;
}

/* One product in blocks, c of stored elements or of floats; between blocks what this rank has in flight moves on. */
static tv_status_t multiply_by_blocks(const struct tv_tensor_axis *axis,
                                      const struct tv_matmul_args *whole, tv_dtype_t c_dtype)
{
    const struct block_shape shape = shape_of_blocks(axis, whole, c_dtype);
    struct block_place at;
    for (at.i = 0; at.i < whole->m; at.i += shape.rows) {
        for (at.j = 0; at.j < whole->n; at.j += shape.cols) {
            at.k = 0;
            do { /* without a depth too: c is cleared */
                TV_TRY(multiply_block_at(axis, whole, c_dtype, shape, at));
                at.k += shape.depth;
            } while (at.k < whole->k);
        }
    }
    return TV_OK;
}

/* y[rows, out] = x[rows, in] W (+ bias) */
static tv_status_t multiply(const struct tv_tensor_axis *axis, const struct tv_linear *linear,
                            int64_t rows, const void *x, int64_t ld_x, const void *bias, void *y,
                            int64_t ld_y)
{
    const int is_out_in = linear->layout == TV_WEIGHT_OUT_IN;
    const struct tv_matmul_args args = {
        .m = rows,
        .n = linear->out,
        .k = linear->in,
        .a = x,
        .ld_a = ld_x,
        .b = linear->weight,
        .ld_b = is_out_in ? linear->in : linear->out,
        .trans_b = is_out_in,
        .bias = bias,
        .c = y,
        .ld_c = ld_y,
    };
    return multiply_by_blocks(axis, &args, tv_tensor_dtype(axis));
}

/* dx[rows, in] = (+=) dy[rows, out] W^T */
static tv_status_t input_gradient(const struct tv_tensor_axis *axis, const struct tv_linear *linear,
                                  int64_t rows, const void *dy, int64_t ld_dy, int add_dx, void *dx,
                                  int64_t ld_dx)
{
    const int is_out_in = linear->layout == TV_WEIGHT_OUT_IN;
    const struct tv_matmul_args args = {
        .m = rows,
        .n = linear->in,
        .k = linear->out,
        .a = dy,
        .ld_a = ld_dy,
        .b = linear->weight,
        .ld_b = is_out_in ? linear->in : linear->out,
        .trans_b = !is_out_in,
        .accumulate = add_dx,
        .c = dx,
        .ld_c = ld_dx,
    };
    return multiply_by_blocks(axis, &args, tv_tensor_dtype(axis));
}

tv_status_t tv_column_linear_forward(const struct tv_tensor_axis *axis,
                                     const struct tv_linear *linear, int64_t rows, const void *x,
                                     void *y, int64_t ld_y)
{
    return multiply(axis, linear, rows, x, linear->in, linear->bias, y, ld_y);
}

tv_status_t tv_column_linear_backward_input(const struct tv_tensor_axis *axis,
                                            const struct tv_linear *linear, int64_t rows,
                                            const void *dy, int64_t ld_dy, int add_dx, void *dx)
{
    return input_gradient(axis, linear, rows, dy, ld_dy, add_dx, dx, linear->in);
}

int tv_num_row_pieces(int64_t rows, int64_t cols, tv_dtype_t dtype)
{
    enum { LEAST_ROWS = 64, LEAST_BYTES = 16384 };
    const int64_t by_rows = rows / LEAST_ROWS;
    const int64_t by_bytes = rows * cols * (int64_t)tv_dtype_bytes(dtype) / LEAST_BYTES;
    const int64_t num = by_rows < by_bytes ? by_rows : by_bytes;
    return num < 1 ? 1 : num < TV_MAX_ROW_PIECES ? (int)num : TV_MAX_ROW_PIECES;
}

/* The rows of a product whose sum is cut: those of each of `parts` ranks (share) in `num` blocks,
 * the same with and without sequence parallelism, so that the bits are the same. */
struct row_cut {
    int parts, num;
    int64_t share;
};

static struct row_cut cut_of(const struct tv_tensor_axis *axis, int64_t rows, int64_t cols)
{
    const int T = tv_comm_size(axis->comm);
    const int parts = rows % T == 0 ? T : 1;
    const int64_t share = rows / parts;
    /* One rank has nothing to sum. */
    return (struct row_cut){
        parts, T > 1 ? tv_num_row_pieces(share, cols, tv_tensor_dtype(axis)) : 1, share};
}

/* Without sequence parallelism a sum takes some blocks of all rows; with it, block i of every rank. */
static int num_sums(const struct tv_tensor_axis *axis, const struct row_cut *cut, int64_t cols)
{
    const int num_blocks = cut->parts * cut->num;
    const int num = tv_num_row_pieces(cut->parts * cut->share, cols, tv_tensor_dtype(axis));
    if (axis->is_sequence_parallel)
        return cut->num;
    return num < num_blocks ? num : num_blocks;
}

/* Block i of one rank's share, counted from its first row. */
static struct tv_row_shard block_of(const struct row_cut *cut, int i)
{
    const int64_t first = cut->share * i / cut->num;
    return (struct tv_row_shard){first, cut->share * (i + 1) / cut->num - first};
}

/* What a row matrix multiplies, and where the sums go. */
struct row_product {
    const struct tv_tensor_axis *axis;
    const struct tv_linear *linear;
    struct row_cut cut;
    const void *x;
    int64_t ld_x;
    void *room, *y;
};

/* Block i of rank r's share -> partial [num, out] */
static tv_status_t multiply_block(const struct row_product *p, int r, int i, void *partial)
{
    /* The bias enters the sum once: through rank 0's part. */
    const void *bias = tv_comm_rank(p->axis->comm) == 0 ? p->linear->bias : NULL;
    const struct tv_row_shard block = block_of(&p->cut, i);
    const int64_t first = r * p->cut.share + block.first;
    return multiply(p->axis, p->linear, block.num,
                    tv_tensor_const_at(p->axis, p->x, first * p->ld_x), p->ld_x, bias, partial,
                    p->linear->out);
}

/* Piece i of all ranks' shares, one rank's behind the other's, then their sum to its rank. */
static tv_status_t start_scattered(const struct row_product *p, int i, struct tv_request **request)
{
    const int64_t out = p->linear->out;
    const struct tv_row_shard block = block_of(&p->cut, i);
    void *partial = tv_tensor_at(p->axis, p->room, p->cut.parts * block.first * out);
    for (int r = 0; r < p->cut.parts; r++)
        TV_TRY(multiply_block(p, r, i, tv_tensor_at(p->axis, partial, r * block.num * out)));
    return tv_tensor_sum_rows_start(p->axis, p->cut.parts * block.num, out, partial,
                                    tv_tensor_at(p->axis, p->y, block.first * out), request);
}

/* Piece i of all rows, some blocks of them, and its sum in place. */
static tv_status_t start_whole(const struct row_product *p, int i, int num_pieces,
                               struct tv_request **request)
{
    const int64_t out = p->linear->out;
    const int num_blocks = p->cut.parts * p->cut.num;
    void *partial = NULL;
    int64_t rows = 0;
    for (int b = num_blocks * i / num_pieces; b < num_blocks * (i + 1) / num_pieces; b++) {
        const int r = b / p->cut.num;
        const struct tv_row_shard block = block_of(&p->cut, b % p->cut.num);
        void *y = tv_tensor_at(p->axis, p->y, (r * p->cut.share + block.first) * out);
        TV_TRY(multiply_block(p, r, b % p->cut.num, y));
        partial = rows == 0 ? y : partial;
        rows += block.num;
    }
    return tv_tensor_sum_rows_start(p->axis, rows, out, partial, partial, request);
}

tv_status_t tv_row_linear_forward(const struct tv_tensor_axis *axis, const struct tv_linear *linear,
                                  int64_t rows, const void *x, int64_t ld_x, void *room, void *y)
{
    const struct row_product product = {.axis = axis,
                                        .linear = linear,
                                        .cut = cut_of(axis, rows, linear->out),
                                        .x = x,
                                        .ld_x = ld_x,
                                        .room = room,
                                        .y = y};
    const int num_pieces = num_sums(axis, &product.cut, linear->out);
    struct tv_request *sums[TV_MAX_ROW_PIECES] = {NULL};
    tv_status_t status = TV_OK;
    for (int i = 0; i < num_pieces && status == TV_OK; i++)
        status = axis->is_sequence_parallel ? start_scattered(&product, i, &sums[i])
                                            : start_whole(&product, i, num_pieces, &sums[i]);
    for (int i = 0; i < num_pieces && status == TV_OK; i++)
        status = tv_request_wait(&sums[i]);
    for (int i = 0; i < num_pieces; i++)
        tv_request_cancel(&sums[i]); /* after a failure */
    return status;
}

tv_status_t tv_row_linear_backward_input(const struct tv_tensor_axis *axis,
                                         const struct tv_linear *linear, int64_t rows,
                                         const void *dy, void *dx, int64_t ld_dx)
{
    return input_gradient(axis, linear, rows, dy, linear->out, 0, dx, ld_dx);
}

/* dweight = (+=) x^T dy, [in, out], or its transpose */
static tv_status_t weight_gradient(const struct tv_tensor_axis *axis,
                                   const struct tv_linear *linear, int64_t rows, const void *x,
                                   int64_t ld_x, const void *dy, int64_t ld_dy)
{
    const int is_out_in = linear->layout == TV_WEIGHT_OUT_IN;
    const struct tv_matmul_args args = {
        .m = is_out_in ? linear->out : linear->in,
        .n = is_out_in ? linear->in : linear->out,
        .k = rows,
        .a = is_out_in ? dy : x,
        .ld_a = is_out_in ? ld_dy : ld_x,
        .trans_a = 1,
        .b = is_out_in ? x : dy,
        .ld_b = is_out_in ? ld_x : ld_dy,
        .accumulate = linear->accumulate,
        .c = linear->dweight,
        .ld_c = is_out_in ? linear->in : linear->out,
    };
    return multiply_by_blocks(axis, &args, TV_F32);
}

/* dbias = (+=) column sums of dy[rows, out] */
static tv_status_t bias_gradient(const struct tv_tensor_axis *axis, const struct tv_linear *linear,
                                 int64_t rows, const void *dy, int64_t ld_dy)
{
    if (linear->dbias == NULL)
        return TV_OK;
    const struct tv_bias_backward_args bias = {.rows = rows,
                                               .cols = linear->out,
                                               .ld_dy = ld_dy,
                                               .dy = dy,
                                               .accumulate = linear->accumulate,
                                               .dbias = linear->dbias};
    return axis->kernels->bias_backward(axis->stream, &bias);
}

tv_status_t tv_column_linear_backward_weight(const struct tv_tensor_axis *axis,
                                             const struct tv_linear *linear, int64_t rows,
                                             const void *x, const void *dy, int64_t ld_dy)
{
    TV_TRY(weight_gradient(axis, linear, rows, x, linear->in, dy, ld_dy));
    return bias_gradient(axis, linear, rows, dy, ld_dy);
}

tv_status_t tv_row_linear_backward_weight(const struct tv_tensor_axis *axis,
                                          const struct tv_linear *linear, int64_t rows,
                                          const void *x, int64_t ld_x, const void *dy)
{
    const struct tv_row_shard own = tv_tensor_own_rows(axis, rows);
    TV_TRY(weight_gradient(axis, linear, rows, x, ld_x, dy, linear->out));
    return bias_gradient(axis, linear, own.num,
                         tv_tensor_const_at(axis, dy, own.first * linear->out), linear->out);
}
