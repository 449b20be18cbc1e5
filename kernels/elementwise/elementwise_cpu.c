/* elementwise_cpu.c -- vector loops over threads; column sums in double, a block of columns at a
 * time. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/reduce_internal.h"

enum { COLUMNS = 64, PIECES = 64, SQUARES = 32 };

tv_status_t TV_CPU(add)(struct tv_stream *stream, const struct tv_add_args *a)
{
    const int threads = tv_threads_for(stream, a->count);
    const tv_element_t *x = a->a, *b = a->b;
    tv_element_t *y = a->y;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : threads > 1)
    for (int64_t i = 0; i < a->count; i++)
        y[i] = tv_store(tv_load(x[i]) + tv_load(b[i]));
    return TV_OK;
}

tv_status_t TV_CPU(axpby)(struct tv_stream *stream, const struct tv_axpby_args *a)
{
    const int is_dense = a->ld_x == a->cols && a->ld_y == a->cols;
    const int64_t rows = is_dense ? 1 : a->rows;
    const int64_t cols = is_dense ? a->rows * a->cols : a->cols;
    const int threads = tv_threads_for(stream, cols);
    const double alpha = a->alpha, beta = a->beta;
    for (int64_t r = 0; r < rows; r++) {
        const float *x = a->x + r * a->ld_x;
        float *y = a->y + r * a->ld_y;
        if (beta == 0) {
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : threads > 1)
            for (int64_t c = 0; c < cols; c++)
                y[c] = (float)(alpha * (double)x[c]);
        } else {
#pragma omp parallel for simd num_threads(threads) schedule(static) if (parallel : threads > 1)
            for (int64_t c = 0; c < cols; c++)
                y[c] = (float)(alpha * (double)x[c] + beta * (double)y[c]);
        }
    }
    return TV_OK;
}

static void add_column_sums(const struct tv_bias_backward_args *a, int64_t first)
{
    double sum[COLUMNS] = {0};
    const int64_t cols = a->cols - first < COLUMNS ? a->cols - first : COLUMNS;
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *dy = (const tv_element_t *)a->dy + r * a->ld_dy + first;
#pragma omp simd
        for (int64_t c = 0; c < cols; c++)
            sum[c] += (double)tv_load(dy[c]);
    }
    for (int64_t c = 0; c < cols; c++)
        a->dbias[first + c] = (float)((a->accumulate ? (double)a->dbias[first + c] : 0) + sum[c]);
}

tv_status_t TV_CPU(bias_backward)(struct tv_stream *stream, const struct tv_bias_backward_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t first = 0; first < a->cols; first += COLUMNS)
        add_column_sums(a, first);
    return TV_OK;
}

/* In so many lanes that an addition does not wait for the one before it. */
static double piece_square_sum(const float *x, int64_t count)
{
    double lanes[SQUARES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + SQUARES <= count; i += SQUARES) {
        tv_fetch(x + i, TV_AHEAD_BYTES, SQUARES * sizeof(*x));
#pragma omp simd
        for (int l = 0; l < SQUARES; l++)
            lanes[l] += (double)x[i + l] * (double)x[i + l];
    }
    for (; i < count; i++)
        lanes[i % SQUARES] += (double)x[i] * (double)x[i];
    for (int l = 0; l < SQUARES; l += TV_LANES)
        sum += tv_fold(lanes + l);
    return sum;
}

/* Always 64 pieces, added in order: the same sum for any number of threads. */
static double square_sum(struct tv_stream *stream, const struct tv_square_sum_array *a)
{
    const int threads = tv_threads_for(stream, a->count);
    double piece[PIECES], sum = 0;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int i = 0; i < PIECES; i++) {
        int64_t first;
        const int64_t count = tv_share(a->count, 16, PIECES, i, &first);
        piece[i] = piece_square_sum(a->x + first, count);
    }
    for (int i = 0; i < PIECES; i++)
        sum += piece[i];
    return sum;
}

tv_status_t TV_CPU(square_sum)(struct tv_stream *stream, const struct tv_square_sum_args *a)
{
    for (int i = 0; i < a->num; i++)
        a->sums_out[i] = square_sum(stream, &a->of[i]);
    return TV_OK;
}
