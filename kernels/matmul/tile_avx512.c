/* tile_avx512.c -- products of tiles in AVX-512: 24 of the 32 registers hold sums. */
#include <immintrin.h>

#define TILES                  tv_tiles_avx512
#define ROWS                   6
#define VECTORS                4
#define WIDTH                  16
#define LOAD(x)                _mm512_loadu_ps(x)
#define STORE(x, v)            _mm512_storeu_ps(x, v)
#define ZERO()                 _mm512_setzero_ps()
#define SPREAD(x)              _mm512_set1_ps(x)
#define FMA(a, b, c)           _mm512_fmadd_ps(a, b, c)
#define ADD_PRODUCT(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#define ADD(a, b)              _mm512_add_ps(a, b)
#define SUB(a, b)              _mm512_sub_ps(a, b)
#define MUL(a, b)              _mm512_mul_ps(a, b)
#define MAX(a, b)              _mm512_max_ps(a, b)
#define POWER_OF_2(x)          _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 23))
typedef __m512 vector_t;
#include "kernels/matmul/turn_avx512.inc"

#include "kernels/matmul/tile_vector.inc"
