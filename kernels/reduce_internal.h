/* kernels/reduce_internal.h -- sums and maxima of a row in vector lanes: lane l takes the elements
 * l, l + LANES, ..., what is left over goes to lane 0, and the lanes are folded in a fixed order. */
#ifndef TV_KERNELS_REDUCE_INTERNAL_H
#define TV_KERNELS_REDUCE_INTERNAL_H
#include "kernels/math_internal.h"
#include <math.h>

enum { TV_LANES = 8, TV_MAX_LANES = 32 };

static inline double tv_fold(const double lanes[TV_LANES])
{
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/* NaN once there is one, so that it reaches the loss; -inf when count is 0. */
static inline float tv_row_max(const float *x, int64_t count)
{
    float lanes[TV_MAX_LANES], top = -INFINITY;
    int64_t i = 0;
    for (int l = 0; l < TV_MAX_LANES; l++)
        lanes[l] = -INFINITY;
    for (; i + TV_MAX_LANES <= count; i += TV_MAX_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_MAX_LANES; l++)
            lanes[l] = lanes[l] >= x[i + l] || lanes[l] != lanes[l] ? lanes[l] : x[i + l];
    }
    for (; i < count; i++)
        lanes[0] = lanes[0] >= x[i] || lanes[0] != lanes[0] ? lanes[0] : x[i];
    for (int l = 0; l < TV_MAX_LANES; l++)
        top = top >= lanes[l] || top != top ? top : lanes[l];
    return top;
}

static inline double tv_row_sum(const float *x, int64_t count)
{
    double lanes[TV_LANES] = {0};
    int64_t i = 0;
    for (; i + TV_LANES <= count; i += TV_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_LANES; l++)
            lanes[l] += (double)x[i + l];
    }
    for (; i < count; i++)
        lanes[0] += (double)x[i];
    return tv_fold(lanes);
}

static inline double tv_row_dot(const float *x, const float *y, int64_t count)
{
    double lanes[TV_LANES] = {0};
    int64_t i = 0;
    for (; i + TV_LANES <= count; i += TV_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_LANES; l++)
            lanes[l] += (double)x[i + l] * (double)y[i + l];
    }
    for (; i < count; i++)
        lanes[0] += (double)x[i] * (double)y[i];
    return tv_fold(lanes);
}
#endif
