/* tile_avx2.c -- products of tiles in AVX2 with fused multiply-add: 12 of the 16 registers hold sums. */
#include <immintrin.h>

#define PRODUCT      tv_tile_product_avx2
#define ROWS         6
#define VECTORS      2
#define WIDTH        8
#define LOAD(x)      _mm256_loadu_ps(x)
#define STORE(x, v)  _mm256_storeu_ps(x, v)
#define ZERO()       _mm256_setzero_ps()
#define SPREAD(x)    _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
typedef __m256 vector_t;
#include "kernels/matmul/tile_vector.inc"
