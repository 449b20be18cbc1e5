/* kernels_x86.c -- chooses between the copies for SSE2, which every x86-64 has, and for AVX2. */
#include "kernels/kernels_internal.h"

const struct tv_kernels *tv_table_fastest(void)
{
    return __builtin_cpu_supports("avx2") ? tv_table_avx2() : tv_table_cpu();
}
