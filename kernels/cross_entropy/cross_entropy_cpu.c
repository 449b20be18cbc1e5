/* cross_entropy_cpu.c -- rows over threads, float exponentials, sums of a fixed order.
 *
 * A row is read from memory once: a block of it that lies in the first cache is searched for its maximum, then
 * its exponentials below the largest element so far are added to the row's sum, which is made smaller when that
 * element changes (Milakov, Gimelshein 2018, arXiv:1805.02867). Four exponentials are added in float, all else in
 * double. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/reduce_internal.h"

enum { QUARTER = TV_LANES, GROUP = 4 * QUARTER, BLOCK = 4096 };
#define LOG2_E 1.44269504f

/* The last elements of a block, less than a group, with -inf behind them: nothing to a maximum, and an exact 0. */
static const tv_element_t *fill_group(const tv_element_t *x, int64_t count, tv_element_t *group)
{
    for (int l = 0; l < GROUP; l++)
        group[l] = l < count ? x[l] : tv_store(-INFINITY);
    return group;
}

static inline void raise_lanes(const tv_element_t *x, float lanes[GROUP])
{
#pragma omp simd
    for (int l = 0; l < GROUP; l++) {
        const float value = tv_load(x[l]);
        lanes[l] = value > lanes[l] ? value : lanes[l];
    }
}

/* The largest that is not NaN; -inf when there is none. */
static float block_max(const tv_element_t *x, int64_t count)
{
    float lanes[GROUP];
    tv_element_t rest[GROUP];
    int64_t i = 0;
    for (int l = 0; l < GROUP; l++)
        lanes[l] = -INFINITY;
    for (; i + GROUP <= count; i += GROUP)
        raise_lanes(x + i, lanes);
    if (i < count)
        raise_lanes(fill_group(x + i, count - i, rest), lanes);
    for (int half = GROUP / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++)
            lanes[l] = lanes[half + l] > lanes[l] ? lanes[half + l] : lanes[l];
    }
    return lanes[0];
}

/* exp(x - top), which is at most 1. Rounding of the product by log2 e adds |x - top| / 2 units in the last place. */
static inline float exp_below(tv_element_t x, float top)
{
    return tv_fast_exp2((tv_load(x) - top) * LOG2_E);
}

/* lanes[l] += exp(x - top) of the elements l, l + QUARTER, l + 2 QUARTER and l + 3 QUARTER of a group */
static inline void add_group(const tv_element_t *x, float top, double lanes[QUARTER])
{
#pragma omp simd
    for (int l = 0; l < QUARTER; l++) {
        const float a = exp_below(x[l], top), b = exp_below(x[QUARTER + l], top),
                    c = exp_below(x[2 * QUARTER + l], top), d = exp_below(x[3 * QUARTER + l], top);
        lanes[l] += (double)((a + b) + (c + d));
    }
}

/* sum exp(x - top) of a block, while the next one, of this row or the next, is on its way to the cache */
static double block_sum(const tv_element_t *x, int64_t count, float top)
{
    double lanes[QUARTER] = {0};
    tv_element_t rest[GROUP];
    int64_t i = 0;
    for (; i + GROUP <= count; i += GROUP) {
        tv_fetch(x + i, BLOCK * sizeof(*x), GROUP * sizeof(*x));
        add_group(x + i, top, lanes);
    }
    if (i < count)
        add_group(fill_group(x + i, count - i, rest), top, lanes);
    return tv_fold(lanes);
}

/* Returns sum exp(x - top) of a row, top being its maximum. NaN comes out of one anywhere, and of infinities where
 * the definition has inf - inf: then the row is gone through as that says. */
static double row_sum(const tv_element_t *x, int64_t cols, float *top_out)
{
    float top = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < cols; i += BLOCK) {
        const int64_t count = cols - i < BLOCK ? cols - i : BLOCK;
        const float high = block_max(x + i, count);
        if (high > top) {
            sum *= exp((double)top - (double)high);
            top = high;
        }
        sum += block_sum(x + i, count, top);
    }
    if (sum != sum) { /* with infinities also where a block has no other number */
        top = tv_stored_row_max(x, cols);
        sum = 0;
        for (int64_t i = 0; i < cols; i += BLOCK)
            sum += block_sum(x + i, cols - i < BLOCK ? cols - i : BLOCK, top);
    }
    *top_out = top;
    return sum;
}

static double rest_sum(const tv_element_t *x, int64_t cols, float top)
{
    double lanes[TV_LANES] = {0};
    int64_t i = 0;
    for (; i + TV_LANES <= cols; i += TV_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_LANES; l++)
            lanes[l] += (double)tv_load(x[i + l]) - (double)top;
    }
    for (; i < cols; i++)
        lanes[0] += (double)tv_load(x[i]) - (double)top;
    return tv_fold(lanes);
}

tv_status_t TV_CPU(cross_entropy_forward)(struct tv_stream *stream,
                                          const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const tv_element_t *logits = (const tv_element_t *)a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        float top;
        a->row_sum[r] = (float)row_sum(logits, a->cols, &top);
        a->row_max[r] = a->row_base[r] = top;
        if (a->row_rest != NULL)
            a->row_rest[r] = (float)rest_sum(logits, a->cols, top);
        a->row_target[r] =
            a->targets[r] >= 0 && target >= 0 && target < a->cols ? tv_load(logits[target]) : 0;
    }
    return TV_OK;
}

tv_status_t TV_CPU(cross_entropy_rebase)(struct tv_stream *stream,
                                         const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows);
    if (a->cols == 0)
        return TV_OK;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const double below = (double)a->row_base[r] - (double)a->row_max[r];
        a->row_sum[r] = (float)((double)a->row_sum[r] * exp(below));
        if (a->row_rest != NULL)
            a->row_rest[r] = (float)((double)a->row_rest[r] + (double)a->cols * below);
    }
    return TV_OK;
}

tv_status_t TV_CPU(cross_entropy_loss)(struct tv_stream *stream,
                                       const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        const double max = (double)a->row_max[r], target = (double)a->row_target[r];
        const double lse = max + log((double)a->row_sum[r]);
        double loss = lse - target;
        if (a->row_rest != NULL)
            loss +=
                a->smoothing * (target - max) - a->smoothing_per_column * (double)a->row_rest[r];
        a->row_lse[r] = (float)lse;
        a->row_loss[r] = a->targets[r] < 0 ? 0 : loss;
    }
    return TV_OK;
}

static inline void to_gradient(tv_element_t *x, int64_t count, float lse, float everywhere)
{
#pragma omp simd
    for (int64_t c = 0; c < count; c++)
        x[c] = tv_store(tv_fast_exp(tv_load(x[c]) - lse) - everywhere);
}

tv_status_t TV_CPU(cross_entropy_backward)(struct tv_stream *stream,
                                           const struct tv_cross_entropy_args *a)
{
    const int threads = tv_threads_for(stream, a->rows * a->cols);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < a->rows; r++) {
        tv_element_t *logits = (tv_element_t *)a->logits + r * a->ld;
        const int64_t target = a->targets[r] - a->first;
        if (a->padded > a->cols)
            memset(logits + a->cols, 0, (size_t)(a->padded - a->cols) * sizeof(*logits));
        if (a->targets[r] < 0) {
            memset(logits, 0, (size_t)a->cols * sizeof(*logits));
            continue;
        }
        const float lse = a->row_lse[r], everywhere = (float)a->smoothing_per_column;
        const int is_here = target >= 0 && target < a->cols;
        const float logit = is_here ? tv_load(logits[target]) : 0;
        int64_t c = 0;
        for (; c + GROUP <= a->cols; c += GROUP) {
            tv_fetch(logits + c, TV_AHEAD_BYTES, GROUP * sizeof(*logits));
            to_gradient(logits + c, GROUP, lse, everywhere);
        }
        to_gradient(logits + c, a->cols - c, lse, everywhere);
        if (is_here) /* again, so that it is rounded once */
            logits[target] =
                tv_store(tv_fast_exp(logit - lse) - everywhere - (float)(1 - a->smoothing));
    }
    return TV_OK;
}

tv_status_t TV_CPU(cross_entropy)(struct tv_stream *stream, const struct tv_cross_entropy_args *a)
{
    TV_TRY(TV_CPU(cross_entropy_forward)(stream, a));
    TV_TRY(TV_CPU(cross_entropy_rebase)(stream, a));
    TV_TRY(TV_CPU(cross_entropy_loss)(stream, a));
    return TV_CPU(cross_entropy_backward)(stream, a);
}
