/* train/narrow.c -- the bits of half: sign, 5 of exponent, 10 of fraction. */
#include "train/narrow.h"
#include <string.h>

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

float tv_f32_of_f16(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = bits >> 10 & 0x1Fu;
    const uint32_t fraction = bits & 0x3FFu;
    if (exponent == 0) { /* fraction * 2^-24, exact */
        const float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 31) /* infinity, NaN */
        return float_of_bits(sign | 0x7F800000u | fraction << 13);
    return float_of_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13);
}

/* `bits` without its lowest `num`, rounded. */
static uint32_t round_off(uint32_t bits, uint32_t num)
{
    const uint32_t kept = bits >> num, rest = bits & ((1u << num) - 1), half = 1u << (num - 1);
    return kept + (rest > half || (rest == half && (kept & 1)));
}

uint16_t tv_f16_of_f32(float value)
{
    const uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000u;
    const uint32_t size = bits & 0x7FFFFFFFu, exponent = size >> 23;
    if (size > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u | (size >> 13 & 0x3FFu));
    if (exponent >= 127 + 16) /* 2^16 and more */
        return (uint16_t)(sign | 0x7C00u);
    if (exponent >= 127 - 14) /* a carry out of the fraction is right, up to infinity */
        return (uint16_t)(sign | round_off(size - ((127u - 15) << 23), 13));
    if (exponent < 102) /* below half of the least, 2^-24 */
        return (uint16_t)sign;
    return (uint16_t)(sign | round_off((size & 0x7FFFFFu) | 0x800000u, 126 - exponent));
}
