/* kernels_x86.c -- the copies for SSE2, which every x86-64 has, for AVX2 and for AVX-512. */
#include "kernels/kernels_internal.h"
#include "kernels/matmul/product_internal.h"
#include "kernels/matmul/tile_internal.h"

static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

const struct tv_kernels *tv_table_copy(int index, tv_dtype_t dtype)
{
    if (has_avx512() && index-- == 0)
        return dtype == TV_BF16 ? tv_table_avx512_bf16() : tv_table_avx512_f32();
    if (__builtin_cpu_supports("avx2") && index-- == 0)
        return dtype == TV_BF16 ? tv_table_avx2_bf16() : tv_table_avx2_f32();
    return index == 0 ? tv_table_portable(dtype) : NULL;
}

static int has_fma(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

tv_product_fn tv_product(int index)
{
    __builtin_cpu_init(); /* called in a constructor, too */
    if (has_avx512() && index-- == 0)
        return tv_product_avx512;
    if (has_fma() && index-- == 0)
        return tv_product_avx2;
    return index == 0 ? tv_product_blas : NULL;
}

const char *tv_product_name(void)
{
    return has_avx512() ? "AVX-512" : has_fma() ? "AVX2" : tv_blas_name();
}

const struct tv_tiles *tv_tiles_of(int index)
{
    if (has_avx512() && index-- == 0)
        return &tv_tiles_avx512;
    if (has_fma() && index-- == 0)
        return &tv_tiles_avx2;
    return index == 0 ? &tv_tiles_blas : NULL;
}
