/* data/muon.c -- momentum, gather, Newton-Schulz, update. */
#include "data/muon.h"
#include <math.h>

enum { MAX_BLOCKS = 8, NUM_ITERATIONS = 5 };

/* Pieces of a matrix: one per tensor rank, or the same whole one on all of them. */
static int num_pieces(const struct tv_param *matrix, int T)
{
    return matrix->split_dim < 0 ? 1 : T;
}

/* Blocks are matrices of their own: [shape_out[0], shape_out[1]] each. */
static int block_shape(const struct tv_param *matrix, int64_t shape_out[2])
{
    const int num_blocks = matrix->split_dim < 0 ? 1 : matrix->num_blocks;
    shape_out[0] = matrix->shape[0];
    shape_out[1] = matrix->shape[1];
    if (num_blocks > 1)
        shape_out[matrix->split_dim] /= num_blocks;
    return num_blocks;
}

int64_t tv_muon_work_count(const struct tv_param *matrix, int T)
{
    int64_t block[2];
    block_shape(matrix, block);
    const int64_t n = block[0] < block[1] ? block[0] : block[1];
    return num_pieces(matrix, T) * tv_param_local_count(matrix, T) + 2 * block[0] * block[1] +
           2 * n * n;
}

/* y = alpha x + beta y, [count] */
static tv_status_t combine(const struct tv_muon_args *a, int64_t count, double alpha,
                           const float *x, double beta, float *y)
{
    const struct tv_axpby_args args = {1, count, count, count, alpha, beta, x, y};
    return a->kernels->axpby(a->stream, &args);
}

/* c[m,n] = op(a) op(b) of dense matrices; k is what the product sums over. */
static tv_status_t multiply(struct tv_stream *stream, const struct tv_kernels *kernels,
                            struct tv_matmul_args args)
{
    args.ld_a = args.trans_a ? args.m : args.k;
    args.ld_b = args.trans_b ? args.k : args.n;
    args.ld_c = args.n;
    return kernels->matmul(stream, &args);
}

/* One iteration: y = a x + (b A + c A A) x; gram, poly [n, n] are scratch. */
static tv_status_t iterate(struct tv_stream *stream, const struct tv_kernels *kernels,
                           const int64_t shape[2], const float *x, float *gram, float *poly,
                           float *y)
{
    const double a = 3.4445, b = -4.7750, c = 2.0315;
    const int64_t rows = shape[0], cols = shape[1];
    const int is_wide = rows <= cols;
    const int64_t n = is_wide ? rows : cols, longer = is_wide ? cols : rows;
    const struct tv_matmul_args square = {.m = n,
                                          .n = n,
                                          .k = longer,
                                          .a = x,
                                          .trans_a = !is_wide,
                                          .b = x,
                                          .trans_b = is_wide,
                                          .c = gram};
    TV_TRY(multiply(stream, kernels, square));
    const struct tv_matmul_args again = {.m = n, .n = n, .k = n, .a = gram, .b = gram, .c = poly};
    TV_TRY(multiply(stream, kernels, again));
    const struct tv_axpby_args sum = {1, n * n, n * n, n * n, b, c, gram, poly};
    TV_TRY(kernels->axpby(stream, &sum));
    const struct tv_matmul_args turn = {
        .m = rows, .n = cols, .k = n, .a = is_wide ? poly : x, .b = is_wide ? x : poly, .c = y};
    TV_TRY(multiply(stream, kernels, turn));
    const int64_t count = rows * cols;
    const struct tv_axpby_args add = {1, count, count, count, a, 1, x, y};
    return kernels->axpby(stream, &add);
}

tv_status_t tv_muon_orthogonalize(struct tv_stream *stream, const struct tv_kernels *kernels,
                                  int64_t rows, int64_t cols, float *x, float *work,
                                  const float **result_out)
{
    const int64_t shape[2] = {rows, cols}, count = rows * cols, n = rows < cols ? rows : cols;
    float *gram = work + count, *poly = gram + n * n, *from = x, *to = work;
    double squares;
    const struct tv_square_sum_array array = {count, x};
    const struct tv_square_sum_args norm = {1, &array, &squares};
    TV_TRY(kernels->square_sum(stream, &norm));
    /* the small number keeps a matrix of zeros one */
    const struct tv_axpby_args scale = {1, count, count, count, 1 / (sqrt(squares) + 1e-7),
                                        0, x,     x};
    TV_TRY(kernels->axpby(stream, &scale));
    for (int i = 0; i < NUM_ITERATIONS; i++) {
        TV_TRY(iterate(stream, kernels, shape, from, gram, poly, to));
        float *const swapped = from;
        from = to;
        to = swapped;
    }
    *result_out = from;
    return TV_OK;
}

/* Momentum of this rank's piece, and the direction of all pieces in pieces [num_pieces, count]. */
static tv_status_t gather_direction(const struct tv_muon_args *a, int64_t count, float *pieces)
{
    const int is_cut = num_pieces(a->matrix, tv_comm_size(a->tensor)) > 1;
    float *own = pieces + (is_cut ? tv_comm_rank(a->tensor) * count : 0);
    TV_TRY(combine(a, count, a->grad_scale, a->grad, a->momentum, a->m));
    TV_TRY(combine(a, count, a->momentum, a->m, 0, own));
    TV_TRY(combine(a, count, a->grad_scale, a->grad, 1, own));
    if (!is_cut)
        return TV_OK;
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_all_gather(a->tensor, own, pieces, count, TV_F32, a->stream, &request));
    return tv_request_wait(&request);
}

/* Rectangle `block` of rank t's piece. */
static struct tv_param_slice slice_of(const struct tv_muon_args *a, int t, int block)
{
    struct tv_param_slice slices[MAX_BLOCKS] = {{0}};
    tv_param_slices(a->matrix, tv_comm_size(a->tensor), t, slices, MAX_BLOCKS);
    return slices[block];
}

/* Where a rectangle lies within its block, which is dense. */
static int64_t place_in(const struct tv_param_slice *s, const int64_t block[2])
{
    return s->global_row % block[0] * block[1] + s->global_col % block[1];
}

/* One block: pieces -> x [block], O(x), and this rank's rectangle of the update. */
static tv_status_t step_block(const struct tv_muon_args *a, int b, const int64_t block[2],
                              int64_t count, const float *pieces, float *x)
{
    const int T = tv_comm_size(a->tensor);
    int64_t local[2];
    tv_param_local_shape(a->matrix, T, local);
    for (int t = 0; t < num_pieces(a->matrix, T); t++) {
        const struct tv_param_slice s = slice_of(a, t, b);
        const float *from = pieces + t * count + s.local_row * local[1] + s.local_col;
        const struct tv_axpby_args copy = {
            s.num_rows, s.num_cols, local[1], block[1], 1, 0, from, x + place_in(&s, block)};
        TV_TRY(a->kernels->axpby(a->stream, &copy));
    }
    const float *result = NULL;
    TV_TRY(tv_muon_orthogonalize(a->stream, a->kernels, block[0], block[1], x,
                                 x + block[0] * block[1], &result));
    const struct tv_param_slice s = slice_of(a, tv_comm_rank(a->tensor), b);
    const double scale = 0.2 * sqrt((double)(block[0] > block[1] ? block[0] : block[1]));
    const struct tv_axpby_args update = {.rows = s.num_rows,
                                         .cols = s.num_cols,
                                         .ld_x = block[1],
                                         .ld_y = local[1],
                                         .alpha = -a->lr * scale,
                                         .beta = 1 - a->lr * a->weight_decay,
                                         .x = result + place_in(&s, block),
                                         .y = a->param + s.local_row * local[1] + s.local_col};
    return a->kernels->axpby(a->stream, &update);
}

tv_status_t tv_muon_step(const struct tv_muon_args *a)
{
    const int T = tv_comm_size(a->tensor);
    const int64_t count = tv_param_local_count(a->matrix, T);
    int64_t block[2];
    const int num_blocks = block_shape(a->matrix, block);
    float *x = a->work + num_pieces(a->matrix, T) * count;
    if (num_blocks > MAX_BLOCKS)
        return TV_ERR(TV_INTERNAL, "%s: %d blocks", a->matrix->name, num_blocks);
    TV_TRY(gather_direction(a, count, a->work));
    for (int b = 0; b < num_blocks; b++)
        TV_TRY(step_block(a, b, block, count, a->work, x));
    return TV_OK;
}
