/* kernels_x86.c -- chooses between the copies for SSE2, which every x86-64 has, and for AVX2. */
#include "kernels/kernels_internal.h"

const struct tv_kernels *tv_table_fastest(tv_dtype_t dtype)
{
    if (!__builtin_cpu_supports("avx2"))
        return tv_table_portable(dtype);
    return dtype == TV_BF16 ? tv_table_avx2_bf16() : tv_table_avx2_f32();
}
