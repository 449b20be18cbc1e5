// cuda_bf16.h -- CUDA's bf16, for the emulation: rounding to nearest, ties to even, as base/dtype.h has it.
#ifndef TV_TESTS_EMULATION_CUDA_BF16_H
#define TV_TESTS_EMULATION_CUDA_BF16_H
#include "base/dtype.h"
#include "vector_types.h"

struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) : bits(tv_bf16_from_f32(x))
    {
    }
    operator float() const
    {
        return tv_bf16_to_f32(bits);
    }
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline float __bfloat162float(__nv_bfloat16 x)
{
    return tv_bf16_to_f32(x.bits);
}
inline __nv_bfloat16 __float2bfloat16(float x)
{
    return __nv_bfloat16(x);
}
inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    return __nv_bfloat16(x);
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__nv_bfloat16(x), __nv_bfloat16(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 x)
{
    return {__bfloat162float(x.x), __bfloat162float(x.y)};
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    __nv_bfloat16 x;
    x.bits = bits;
    return x;
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x)
{
    return x.bits;
}
#endif
