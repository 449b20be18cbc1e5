/* product_avx2.c -- products of matrices in AVX2 with fused multiply-add: 12 of the 16 registers hold sums, 3 the
 * line of b. */
#include <immintrin.h>

#define PRODUCT                tv_product_avx2
#define ROWS                   4
#define VECTORS                3
#define WIDTH                  8
#define LOAD(x)                _mm256_loadu_ps(x)
#define STORE(x, v)            _mm256_storeu_ps(x, v)
#define LOAD_SOME(x, n)        _mm256_maskload_ps(x, first_of(n))
#define STORE_SOME(x, v, n)    _mm256_maskstore_ps(x, first_of(n), v)
#define ZERO()                 _mm256_setzero_ps()
#define SPREAD(x)              _mm256_set1_ps(x)
#define ADD(a, b)              _mm256_add_ps(a, b)
#define ADD_PRODUCT(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
typedef __m256 vector_t;

static inline __m256i first_of(long n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* x[i][j] <-> x[j][i]: pairs of rows, pairs of pairs, then halves of vectors. */
static inline void turn(vector_t x[WIDTH])
{
    vector_t t[WIDTH];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m256d low = _mm256_castps_pd(t[i / 2 * 4 + i % 2]);
        const __m256d high = _mm256_castps_pd(t[i / 2 * 4 + i % 2 + 2]);
        x[i / 2 * 4 + i % 2 * 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
        x[i / 2 * 4 + i % 2 * 2 + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    }
    for (int i = 0; i < WIDTH; i++)
        x[i] = t[i];
}
#include "kernels/matmul/product_vector.inc"
