/* kernels/reduce_internal.h -- sums and maxima of a row in vector lanes: lane l takes the elements
 * l, l + LANES, ..., what is left over goes to lane 0, and the lanes are folded in a fixed order.
 * tv_row_max, _sum and _dot of floats; tv_stored_row_max, _sum and _dot of stored elements. */
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

#define TV_ROW(op)     tv_row_##op
#define TV_ROW_TYPE    float
#define TV_ROW_LOAD(x) (x)
#include "kernels/reduce_rows.inc"
#undef TV_ROW
#undef TV_ROW_TYPE
#undef TV_ROW_LOAD

#define TV_ROW(op)     tv_stored_row_##op
#define TV_ROW_TYPE    tv_element_t
#define TV_ROW_LOAD(x) tv_load(x)
#include "kernels/reduce_rows.inc"
#undef TV_ROW
#undef TV_ROW_TYPE
#undef TV_ROW_LOAD
#endif
