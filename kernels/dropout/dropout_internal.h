/* kernels/dropout/dropout_internal.h -- what multiplies an element under dropout: 0 or 1 / (1 - p).
 *
 * One at a time through base/rng, which is the definition, and a row at a time in vector lanes,
 * which computes the same words. */
#ifndef TV_KERNELS_DROPOUT_INTERNAL_H
#define TV_KERNELS_DROPOUT_INTERNAL_H
#include "base/rng.h"
#include "kernels/kernels.h"

enum { TV_DROPOUT_LANES = 16, TV_DROPOUT_COLUMNS = 4 * TV_DROPOUT_LANES };

static inline float tv_dropout_factor(const struct tv_dropout *d, int64_t row, int plane,
                                      int64_t column)
{
    const uint64_t token = (uint64_t)(d->first_token + row);
    const uint32_t counter[4] = {(uint32_t)(column / 4), (uint32_t)token, (uint32_t)(token >> 32),
                                 (uint32_t)(d->first_plane + plane)};
    const uint32_t key[2] = {(uint32_t)d->key, (uint32_t)(d->key >> 32)};
    uint32_t word[4];
    tv_philox(counter, key, word);
    return word[column % 4] < d->threshold ? 0.0f : d->scale;
}

/* factor_out of columns [column, column + TV_DROPOUT_COLUMNS) of a row; column is a multiple of 4.
 * tv_philox for 16 neighbouring blocks at once. */
static inline void tv_dropout_factors(const struct tv_dropout *d, int64_t row, int plane,
                                      int64_t column, float factor_out[TV_DROPOUT_COLUMNS])
{
    const uint64_t token = (uint64_t)(d->first_token + row);
    uint32_t word[4][TV_DROPOUT_LANES];
    uint32_t key0 = (uint32_t)d->key, key1 = (uint32_t)(d->key >> 32);
    for (int l = 0; l < TV_DROPOUT_LANES; l++) {
        word[0][l] = (uint32_t)(column / 4) + (uint32_t)l;
        word[1][l] = (uint32_t)token;
        word[2][l] = (uint32_t)(token >> 32);
        word[3][l] = (uint32_t)(d->first_plane + plane);
    }
    for (int round = 0; round < 10; round++) {
#pragma omp simd
        for (int l = 0; l < TV_DROPOUT_LANES; l++) {
            const uint64_t product0 = (uint64_t)0xD2511F53u * word[0][l];
            const uint64_t product1 = (uint64_t)0xCD9E8D57u * word[2][l];
            word[0][l] = (uint32_t)(product1 >> 32) ^ word[1][l] ^ key0;
            word[1][l] = (uint32_t)product1;
            word[2][l] = (uint32_t)(product0 >> 32) ^ word[3][l] ^ key1;
            word[3][l] = (uint32_t)product0;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    const uint32_t threshold = d->threshold;
    const float scale = d->scale;
#pragma omp simd
    for (int l = 0; l < TV_DROPOUT_LANES; l++) {
        factor_out[4 * l] = word[0][l] < threshold ? 0.0f : scale;
        factor_out[4 * l + 1] = word[1][l] < threshold ? 0.0f : scale;
        factor_out[4 * l + 2] = word[2][l] < threshold ? 0.0f : scale;
        factor_out[4 * l + 3] = word[3][l] < threshold ? 0.0f : scale;
    }
}
#endif
