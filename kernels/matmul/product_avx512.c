/* product_avx512.c -- products of matrices in AVX-512: 24 of the 32 registers hold sums, 3 the line of b. */
#include <immintrin.h>

#define PRODUCT                tv_product_avx512
#define ROWS                   8
#define VECTORS                3
#define WIDTH                  16
#define LOAD(x)                _mm512_loadu_ps(x)
#define STORE(x, v)            _mm512_storeu_ps(x, v)
#define FIRST(n)               (__mmask16)((1u << (n)) - 1)
#define LOAD_SOME(x, n)        _mm512_maskz_loadu_ps(FIRST(n), x)
#define STORE_SOME(x, v, n)    _mm512_mask_storeu_ps(x, FIRST(n), v)
#define ZERO()                 _mm512_setzero_ps()
#define SPREAD(x)              _mm512_set1_ps(x)
#define ADD(a, b)              _mm512_add_ps(a, b)
#define ADD_PRODUCT(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
typedef __m512 vector_t;

/* x[i][j] <-> x[j][i]: pairs of rows, pairs of pairs, then quarters of vectors twice. */
static inline void turn(vector_t x[WIDTH])
{
    vector_t t[WIDTH];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const __m512d low = _mm512_castps_pd(t[i / 2 * 4 + i % 2]);
        const __m512d high = _mm512_castps_pd(t[i / 2 * 4 + i % 2 + 2]);
        x[i / 2 * 4 + i % 2 * 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        x[i / 2 * 4 + i % 2 * 2 + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const int at = i / 4 * 8 + i % 4;
        t[at] = _mm512_shuffle_f32x4(x[at], x[at + 4], 0x88);
        t[at + 4] = _mm512_shuffle_f32x4(x[at], x[at + 4], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        x[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    }
}
#include "kernels/matmul/product_vector.inc"
