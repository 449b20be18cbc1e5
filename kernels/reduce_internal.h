/* kernels/reduce_internal.h -- sums and maxima of a row in vector lanes: lane l takes the elements
 * l, l + LANES, ..., what is left over goes to lane 0, and the lanes are folded in a fixed order.
 * tv_row_max, _sum and _dot of floats; tv_stored_row_max, _sum and _dot of stored elements. */
#ifndef TV_KERNELS_REDUCE_INTERNAL_H
#define TV_KERNELS_REDUCE_INTERNAL_H
#include "kernels/element_internal.h"
#include "kernels/math_internal.h"
#include <math.h>

enum { TV_LANES = 8, TV_MAX_LANES = 32 };

static inline double tv_fold(const double lanes[TV_LANES])
{
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
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
