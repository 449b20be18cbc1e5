/* train/narrow.h -- IEEE 754 half, from and to fp32; base/dtype.h has bf16.
 *
 * Widening is exact. Narrowing rounds to the nearest, ties to even; what is beyond the largest
 * number becomes infinity, a NaN stays one. */
#ifndef TV_TRAIN_NARROW_H
#define TV_TRAIN_NARROW_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
float tv_f32_of_f16(uint16_t bits);
uint16_t tv_f16_of_f32(float value);
TV_END_C
#endif
