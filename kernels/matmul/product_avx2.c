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
#include "kernels/matmul/turn_avx2.inc"

#include "kernels/matmul/product_vector.inc"
