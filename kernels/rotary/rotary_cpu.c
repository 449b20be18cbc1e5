/* rotary_cpu.c -- angles once per position and pair, for all heads of all rows at that position, or,
 * where rows say their positions, once per row; float rotation. */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include <math.h>

enum { MAX_HALF = 256 };

static void turn(double position, const double *frequency, int half, int inverse, float *cosine,
                 float *sine)
{
    for (int i = 0; i < half; i++) {
        const double angle = position * frequency[i];
        cosine[i] = (float)cos(angle);
        sine[i] = (float)(inverse ? -sin(angle) : sin(angle));
    }
}

/* Rows first, first + step ... */
static void rotate_rows(const struct tv_rotary_args *a, int64_t first, int64_t step,
                        const float *cosine, const float *sine)
{
    const int half = a->head_dim / 2;
    for (int64_t r = first; r < a->rows; r += step) {
        for (int head = 0; head < a->num_heads; head++) {
            tv_element_t *low = (tv_element_t *)a->x + r * a->ld_x + (int64_t)head * a->head_dim,
                         *high = low + half;
#pragma omp simd
            for (int i = 0; i < half; i++) {
                const float x = tv_load(low[i]), y = tv_load(high[i]);
                low[i] = tv_store(x * cosine[i] - y * sine[i]);
                high[i] = tv_store(y * cosine[i] + x * sine[i]);
            }
        }
    }
}

tv_status_t TV_CPU(rotary)(struct tv_stream *stream, const struct tv_rotary_args *a)
{
    const int half = a->head_dim / 2;
    if (half > MAX_HALF)
        return TV_REF(rotary)(stream, a);
    const int threads = tv_threads_for(stream, a->rows * a->num_heads * a->head_dim);
    double frequency[MAX_HALF];
    for (int i = 0; i < half; i++)
        frequency[i] = pow(a->theta, -2.0 * i / a->head_dim);
    const int64_t step = a->positions != NULL ? a->rows : a->seq_length;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t first = 0; first < step; first++) {
        float cosine[MAX_HALF], sine[MAX_HALF];
        const int64_t position = a->positions != NULL ? a->positions[first] : first;
        turn((double)position, frequency, half, a->inverse, cosine, sine);
        rotate_rows(a, first, step, cosine, sine);
    }
    return TV_OK;
}
