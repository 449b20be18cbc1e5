/* tile_avx2.c -- products of tiles in AVX2 with fused multiply-add: 12 of the 16 registers hold sums. */
#include <immintrin.h>

#define TILES                  tv_tiles_avx2
#define ROWS                   6
#define VECTORS                2
#define WIDTH                  8
#define LOAD(x)                _mm256_loadu_ps(x)
#define STORE(x, v)            _mm256_storeu_ps(x, v)
#define ZERO()                 _mm256_setzero_ps()
#define SPREAD(x)              _mm256_set1_ps(x)
#define FMA(a, b, c)           _mm256_fmadd_ps(a, b, c)
#define ADD_PRODUCT(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b))
#define ADD(a, b)              _mm256_add_ps(a, b)
#define SUB(a, b)              _mm256_sub_ps(a, b)
#define MUL(a, b)              _mm256_mul_ps(a, b)
#define MAX(a, b)              _mm256_max_ps(a, b)
#define POWER_OF_2(x)          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 23))
typedef __m256 vector_t;
#include "kernels/matmul/turn_avx2.inc"

#include "kernels/matmul/tile_vector.inc"
