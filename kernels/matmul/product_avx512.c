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
#include "kernels/matmul/turn_avx512.inc"

#include "kernels/matmul/product_vector.inc"
