/* kernels/math_internal.h -- float exp and exp2 that compilers turn into vector code, and how many threads
 * to use.
 *
 * exp(x) = 2^n e^r with n = round(x / ln 2), |r| <= ln2 / 2: 2^n through the exponent bits, e^r by
 * its Taylor series to r^7, whose remainder r^8 / 8! is below 1e-8 there. Within 2 units in the
 * last place of exp where the result is a normal number; 0 below that, e^88 above, NaN for NaN. */
#ifndef TV_KERNELS_MATH_INTERNAL_H
#define TV_KERNELS_MATH_INTERNAL_H
#include "base/device.h"
#include <stdint.h>
#include <string.h>

/* 2^n of a float that is 1.5 * 2^23 + n, -127 <= n <= 127: n stands in its lowest bits, and what lies above
 * leaves at the top. -127 gives 0. */
static inline float tv_power_of_2(float shifted)
{
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits + 127u) << 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    return power;
}

static inline float tv_fast_exp(float x)
{
    const float low = -87.0f, high = 88.0f;
    const float above = low > x ? low : x, clamped = high < above ? high : above; /* NaN stays */
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    const float shifted = clamped * 1.44269504f + magic, n = shifted - magic;
    /* ln 2 in two parts, 355/512 and the rest, so that n times the first one is exact */
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    return x < low ? 0.0f : p * tv_power_of_2(shifted);
}

/* 2^x for a softmax, whose arguments are at most about 0: 2^n 2^r with n = round(x), |r| <= 1/2, and a minimax
 * polynomial of degree 6 (relative error 2e-9). Within 2 units in the last place from 2^-126 to 2^126; 0 below
 * -126.5, so that -inf gives an exact 0; NaN for NaN. */
static inline float tv_fast_exp2(float x)
{
    const float low = -127.0f, magic = 12582912.0f;
    const float clamped = low > x ? low : x; /* in this order NaN stays */
    const float shifted = clamped + magic;   /* n in its lowest bits */
    const float r = clamped - (shifted - magic);
    float p = 1.5345812e-4f;
    p = p * r + 1.3399931e-3f;
    p = p * r + 9.6184890e-3f;
    p = p * r + 5.5503288e-2f;
    p = p * r + 0.24022647f;
    p = p * r + 0.69314721f;
    p = p * r + 1.0f;
    return p * tv_power_of_2(shifted);
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
