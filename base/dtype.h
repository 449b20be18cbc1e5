/* base/dtype.h -- element types of buffers and messages, and bf16: the upper half of a float. */
#ifndef TV_BASE_DTYPE_H
#define TV_BASE_DTYPE_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { TV_F32, TV_F64, TV_BF16, TV_I32, TV_I64, TV_U8 } tv_dtype_t;

static inline size_t tv_dtype_bytes(tv_dtype_t dtype)
{
    switch (dtype) {
    case TV_F32:
    case TV_I32:
        return 4;
    case TV_F64:
    case TV_I64:
        return 8;
    case TV_BF16:
        return 2;
    case TV_U8:
        return 1;
    }
    return 0;
}

/* Element `index` of an array of that type. */
static inline void *tv_at(void *data, int64_t index, tv_dtype_t dtype)
{
    return (char *)data + index * (int64_t)tv_dtype_bytes(dtype);
}
static inline const void *tv_const_at(const void *data, int64_t index, tv_dtype_t dtype)
{
    return (const char *)data + index * (int64_t)tv_dtype_bytes(dtype);
}

/* bf16: sign, 8 bits of exponent, 7 of mantissa. */
static inline float tv_bf16_to_f32(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}
/* Rounds to nearest, ties to even, beyond the range to infinity; a NaN stays one. */
static inline uint16_t tv_bf16_from_f32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16,
                   quiet = bits >> 16 | 0x40u;
    return (uint16_t)(x != x ? quiet : rounded);
}
/* y[count] of a dtype that is TV_F32 or TV_BF16 = x, rounded; y may be x. Host memory. */
static inline void tv_round_f32(const float *x, int64_t count, tv_dtype_t dtype, void *y)
{
    if (dtype == TV_F32 && y != x)
        memmove(y, x, (size_t)count * sizeof(*x));
    for (int64_t i = 0; dtype == TV_BF16 && i < count; i++) {
        const uint16_t rounded = tv_bf16_from_f32(x[i]);
        memcpy((char *)y + i * (int64_t)sizeof(rounded), &rounded, sizeof(rounded));
    }
}
#endif
