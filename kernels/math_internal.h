/* kernels/math_internal.h -- float exp and tanh that compilers turn into vector code, and how many threads to use.
 *
 * exp: x = n ln2 + r with |r| <= ln2/2, 2^n through the exponent bits, a polynomial of degree 6 for e^r (within 2 units
 * in the last place of double exp over the range where the result is a normal number; below it, 0). */
#ifndef TV_KERNELS_MATH_INTERNAL_H
#define TV_KERNELS_MATH_INTERNAL_H
#include "base/device.h"
#include <stdint.h>
#include <string.h>

static inline float tv_fast_exp(float x)
{
    const float low = -87.0f, high = 88.0f;
    const float clamped = x < low ? low : x > high ? high : x;
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    const float shifted = clamped * 1.44269504f + magic;
    const float n = shifted - magic;
    const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    const float value = p * power;
    return x < low ? 0.0f : x != x ? x : value;
}

/* 1 - 2 / (e^2x + 1), with a short series where that would cancel. */
static inline float tv_fast_tanh(float x)
{
    const float e = tv_fast_exp(2.0f * x);
    const float far = 1.0f - 2.0f / (e + 1.0f);
    const float s = x * x;
    const float near =
        x *
        (1.0f + s * (-0.333333333f + s * (0.133333333f + s * (-0.053968254f + s * 0.021869489f))));
    return s < 0.04f ? near : far;
}

/* Threads for a loop over `work` elements: one when it is not worth waking the others. */
static inline int tv_threads_for(const struct tv_stream *stream, int64_t work)
{
    return work < 16384 ? 1 : tv_device_num_threads(tv_stream_device(stream));
}

/* Thread i of n takes [first, first + count) of `total`, in whole multiples of `grain`. */
static inline int64_t tv_share(int64_t total, int64_t grain, int n, int i, int64_t *first)
{
    const int64_t grains = (total + grain - 1) / grain;
    const int64_t from = grains * i / n * grain, to = grains * (i + 1) / n * grain;
    *first = from < total ? from : total;
    return (to < total ? to : total) - *first;
}
#endif
