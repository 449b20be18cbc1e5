/* kernels/dropout/dropout_cuda_internal.h -- the words that decide what dropout drops, in CUDA kernels. */
#ifndef TV_KERNELS_DROPOUT_CUDA_INTERNAL_H
#define TV_KERNELS_DROPOUT_CUDA_INTERNAL_H
#include "kernels/cuda_internal.h"

/* The words of columns [4 quad, 4 quad + 4) of a row: tv_philox (base/rng.h) of their counter. */
__device__ inline uint4 tv_dropout_words(const tv_dropout &d, int64_t row, int plane, int64_t quad)
{
    const uint64_t token = (uint64_t)(d.first_token + row);
    uint32_t word[4] = {(uint32_t)quad, (uint32_t)token, (uint32_t)(token >> 32),
                        (uint32_t)(d.first_plane + plane)};
    uint32_t key0 = (uint32_t)d.key, key1 = (uint32_t)(d.key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t high0 = __umulhi(0xD2511F53u, word[0]), low0 = 0xD2511F53u * word[0];
        const uint32_t high1 = __umulhi(0xCD9E8D57u, word[2]), low1 = 0xCD9E8D57u * word[2];
        word[0] = high1 ^ word[1] ^ key0;
        word[1] = low1;
        word[2] = high0 ^ word[3] ^ key1;
        word[3] = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
}

/* The word of column 4 quad + i. */
__device__ inline uint32_t tv_dropout_word(uint4 words, int i)
{
    return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}
#endif
