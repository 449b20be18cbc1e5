/* kernels/math_internal.h -- float exp and exp2 that compilers turn into vector code, fetching ahead, and how many
 * threads to use.
 *
 * exp(x) = 2^n e^r with n = round(x / ln 2), |r| <= ln2 / 2: 2^n through the exponent bits, e^r by 1 + r + r^2 q(r), q
 * a minimax polynomial of degree 4 (relative error 3e-9). Within 2 units in the last place of exp where the result is a
 * normal number; 0 below -87.7, e^88 above 88, NaN for NaN. */
#ifndef TV_KERNELS_MATH_INTERNAL_H
#define TV_KERNELS_MATH_INTERNAL_H
#include "base/device.h"
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* 1.5 * 2^23, to which adding rounds to a whole number, and the bias of an exponent. */
#define TV_ROUNDING 12583039.0f

/* 2^n of a float that is TV_ROUNDING + n, -127 <= n <= 127: the exponent stands in its lowest bits, and what lies
 * above leaves at the top. -127 gives 0. */
static inline float tv_power_of_2(float shifted)
{
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    bits <<= 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    return power;
}

/* The limits of the arguments, defined in kernels.c so that compilers do not see their values: of a clamp to constants
 * gcc makes a path for each, and masks of all of them, in place of a maximum and a minimum. */
extern const struct tv_exp_limits {
    float low, high; /* of exp */
    float low2;      /* of exp2 */
} tv_exp_limits;

static inline float tv_fast_exp(float x)
{
    const float low = tv_exp_limits.low, high = tv_exp_limits.high;
    const float above = low > x ? low : x, clamped = high < above ? high : above; /* NaN stays */
    const float shifted = clamped * 1.44269504f + TV_ROUNDING, n = shifted - TV_ROUNDING;
    /* ln 2 in two parts, 355/512 and the rest, so that n times the first one is exact */
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.38145851e-3f;
    p = p * r + 8.36867395e-3f;
    p = p * r + 4.16683887e-2f;
    p = p * r + 1.66665206e-1f;
    p = p * r + 0.49999993f;
    p = p * r * r + r + 1.0f;
    return p * tv_power_of_2(shifted);
}

/* Of the polynomial below, the highest power first. */
#define TV_EXP2_POLYNOMIAL(NEXT)                                                                   \
    NEXT(1.3399931e-3f)                                                                            \
    NEXT(9.6184890e-3f)                                                                            \
    NEXT(5.5503288e-2f) NEXT(0.24022647f) NEXT(0.69314721f) NEXT(1.0f)
#define TV_EXP2_FIRST 1.5345812e-4f

/* 2^x for a softmax, whose arguments are at most about 0: 2^n 2^r with n = round(x), |r| <= 1/2, and a minimax
 * polynomial of degree 6 (relative error 2e-9). Within 2 units in the last place from 2^-126 to 2^126; 0 below
 * -126.5, so that -inf gives an exact 0; NaN for NaN. */
static inline float tv_fast_exp2(float x)
{
    const float low = tv_exp_limits.low2;
    const float clamped = low > x ? low : x; /* in this order NaN stays */
    const float shifted = clamped + TV_ROUNDING;
    const float r = clamped - (shifted - TV_ROUNDING);
    float p = TV_EXP2_FIRST;
#define NEXT(coefficient) p = p * r + coefficient;
    TV_EXP2_POLYNOMIAL(NEXT)
#undef NEXT
    return p * tv_power_of_2(shifted);
}

/* log2 of a normal x > 0: n + log2(1 + f), 1 + f the part of x in [1/sqrt 2, sqrt 2), and a minimax polynomial of
 * degree 8 for log2(1 + f) / f (relative error 3e-8). Within 2 units in the last place; NaN for NaN and infinity. */
static inline float tv_fast_log2(float x)
{
    static const float coefficients[] = {0.125837013f,  -0.207269728f, 0.215715602f,
                                         -0.238944829f, 0.287916243f,  -0.360703677f,
                                         0.480910629f,  -0.721347332f, 1.44269502f};
    const uint32_t least = 0x3f3504f3; /* 1/sqrt 2 */
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    const int32_t n = (int32_t)(bits - least) >> 23;
    bits -= (uint32_t)n << 23;
    float part;
    memcpy(&part, &bits, sizeof(part));
    const float f = part - 1;
    float p = 0;
    for (size_t i = 0; i < sizeof(coefficients) / sizeof(coefficients[0]); i++)
        p = p * f + coefficients[i];
    return p * f + ((float)n + (x - x));
}

/* What lies `ahead_bytes` behind x, `bytes` of it, sets out for the first cache, so that a loop with work to do does
 * not wait for it later. Past the end of an array nothing happens. */
enum { TV_AHEAD_BYTES = 4096 };
static inline void tv_fetch(const void *x, size_t ahead_bytes, size_t bytes)
{
    for (size_t byte = 0; byte < bytes; byte += 64)
        __builtin_prefetch((const void *)((uintptr_t)x + ahead_bytes + byte));
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
