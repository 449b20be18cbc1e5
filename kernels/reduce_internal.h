/* kernels/reduce_internal.h -- sums and maxima of a row of stored elements in vector lanes: lane l takes the elements
 * l, l + LANES, ..., what is left over goes to lane 0, and the lanes are folded in a fixed order. */
#ifndef TV_KERNELS_REDUCE_INTERNAL_H
#define TV_KERNELS_REDUCE_INTERNAL_H
#include "kernels/element_internal.h"
#include "kernels/math_internal.h"
#include <math.h>

enum { TV_LANES = 16, TV_MAX_LANES = 32 };

static inline double tv_fold(const double lanes[TV_LANES])
{
    double eight[TV_LANES / 2];
    for (int l = 0; l < TV_LANES / 2; l++)
        eight[l] = lanes[l] + lanes[TV_LANES / 2 + l];
    return ((eight[0] + eight[1]) + (eight[2] + eight[3])) +
           ((eight[4] + eight[5]) + (eight[6] + eight[7]));
}

/* NaN once there is one, so that it reaches the loss; -inf when count is 0. */
static inline float tv_stored_row_max(const tv_element_t *x, int64_t count)
{
    float lanes[TV_MAX_LANES], top = -INFINITY;
    int64_t i = 0;
    for (int l = 0; l < TV_MAX_LANES; l++)
        lanes[l] = -INFINITY;
    for (; i + TV_MAX_LANES <= count; i += TV_MAX_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_MAX_LANES; l++) {
            const float value = tv_load(x[i + l]);
            lanes[l] = lanes[l] >= value || lanes[l] != lanes[l] ? lanes[l] : value;
        }
    }
    for (; i < count; i++) {
        const float value = tv_load(x[i]);
        lanes[0] = lanes[0] >= value || lanes[0] != lanes[0] ? lanes[0] : value;
    }
    for (int l = 0; l < TV_MAX_LANES; l++)
        top = top >= lanes[l] || top != top ? top : lanes[l];
    return top;
}

static inline double tv_stored_row_sum(const tv_element_t *x, int64_t count)
{
    double lanes[TV_LANES] = {0};
    int64_t i = 0;
    for (; i + TV_LANES <= count; i += TV_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_LANES; l++)
            lanes[l] += (double)tv_load(x[i + l]);
    }
    for (; i < count; i++)
        lanes[0] += (double)tv_load(x[i]);
    return tv_fold(lanes);
}

/* In fp32: of a row as short as a head. */
static inline float tv_stored_row_dot(const tv_element_t *x, const tv_element_t *y, int64_t count)
{
    float lanes[TV_LANES] = {0};
    int64_t i = 0;
    for (; i + TV_LANES <= count; i += TV_LANES) {
#pragma omp simd
        for (int l = 0; l < TV_LANES; l++)
            lanes[l] += tv_load(x[i + l]) * tv_load(y[i + l]);
    }
    for (; i < count; i++)
        lanes[0] += tv_load(x[i]) * tv_load(y[i]);
    float eight[TV_LANES / 2];
    for (int l = 0; l < TV_LANES / 2; l++)
        eight[l] = lanes[l] + lanes[TV_LANES / 2 + l];
    return ((eight[0] + eight[1]) + (eight[2] + eight[3])) +
           ((eight[4] + eight[5]) + (eight[6] + eight[7]));
}
#endif
