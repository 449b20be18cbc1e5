/* kernels/element_internal.h -- what a stored element is in this copy of the functions: a float, or
 * with TV_STORAGE_BF16 a bf16, read into a float and rounded when it is stored. */
#ifndef TV_KERNELS_ELEMENT_INTERNAL_H
#define TV_KERNELS_ELEMENT_INTERNAL_H
#include "base/dtype.h"

#ifdef TV_STORAGE_BF16
typedef uint16_t tv_element_t;
static inline float tv_load(tv_element_t x)
{
    return tv_bf16_to_f32(x);
}
static inline tv_element_t tv_store(float x)
{
    return tv_bf16_from_f32(x);
}
#else
typedef float tv_element_t;
static inline float tv_load(tv_element_t x)
{
    return x;
}
static inline tv_element_t tv_store(float x)
{
    return x;
}
#endif
#endif
