/* base/rng.c -- Philox 4x32-10 (Salmon et al., SC 2011) and what is drawn from it. */
#include "base/rng.h"
#include <math.h>
#include <string.h>
#include <xxhash.h>

static void philox_round(uint32_t counter[4], const uint32_t key[2])
{
    const uint64_t product0 = (uint64_t)0xD2511F53u * counter[0];
    const uint64_t product1 = (uint64_t)0xCD9E8D57u * counter[2];
    const uint32_t next[4] = {(uint32_t)(product1 >> 32) ^ counter[1] ^ key[0], (uint32_t)product1,
                              (uint32_t)(product0 >> 32) ^ counter[3] ^ key[1], (uint32_t)product0};
    memcpy(counter, next, sizeof(next));
}

void tv_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t state[4];
    uint32_t round_key[2] = {key[0], key[1]};
    memcpy(state, counter, sizeof(state));
    for (int round = 0; round < 10; round++) {
        philox_round(state, round_key);
        round_key[0] += 0x9E3779B9u;
        round_key[1] += 0xBB67AE85u;
    }
    memcpy(out, state, sizeof(state));
}

uint64_t tv_rng_key(uint64_t seed, const char *name)
{
    return XXH64(name, strlen(name), seed);
}

/* Block `block` of draw `attempt` under `key`. */
static void draw_block(uint64_t key, uint64_t block, uint32_t attempt, uint32_t out[4])
{
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), attempt, 0};
    const uint32_t words[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
    tv_philox(counter, words, out);
}

uint64_t tv_rng_bits(uint64_t key, uint64_t index)
{
    uint32_t word[4];
    draw_block(key, index >> 1, 0, word);
    const size_t half = (index & 1) * 2;
    return (uint64_t)word[half] | (uint64_t)word[half + 1] << 32;
}

uint64_t tv_rng_below(uint64_t key, uint64_t index, uint64_t bound)
{
    const uint64_t limit =
        UINT64_MAX - UINT64_MAX % bound; /* a multiple of bound: no bias below it */
    for (uint32_t attempt = 1;; attempt++) {
        uint32_t word[4];
        draw_block(key, index, attempt, word);
        const uint64_t bits = (uint64_t)word[0] | (uint64_t)word[1] << 32;
        if (bits < limit)
            return bits % bound;
    }
}

static const double two_pi = 6.283185307179586476925286766559;

/* What the two normal numbers of a block are made of. */
struct polar {
    double radius, angle;
};

static struct polar draw_polar(uint64_t key, uint64_t block)
{
    uint32_t word[4];
    draw_block(key, block, 0, word);
    const uint64_t bits0 = (uint64_t)word[0] | (uint64_t)word[1] << 32;
    const uint64_t bits1 = (uint64_t)word[2] | (uint64_t)word[3] << 32;
    const double u0 =
        ((double)(bits0 >> 11) + 1.0) * 0x1.0p-53; /* (0, 1]: its logarithm is finite */
    const double u1 = (double)(bits1 >> 11) * 0x1.0p-53;
    return (struct polar){sqrt(-2.0 * log(u0)), two_pi * u1};
}

double tv_rng_normal(uint64_t key, uint64_t index)
{
    const struct polar p = draw_polar(key, index >> 1);
    return (index & 1) ? p.radius * sin(p.angle) : p.radius * cos(p.angle);
}

void tv_rng_normals(uint64_t key, uint64_t first, int64_t count, double scale, float *out)
{
    enum { PAIRS = 64 };
    struct polar p[PAIRS];
    int64_t i = 0;
    if (count > 0 && (first & 1))
        out[i++] = (float)(scale * tv_rng_normal(key, first));
    while (count - i >= 2) {
        const int64_t num = (count - i) / 2 < PAIRS ? (count - i) / 2 : PAIRS;
        for (int64_t k = 0; k < num; k++)
            p[k] = draw_polar(key, ((first + (uint64_t)i) >> 1) + (uint64_t)k);
        /* apart, for a sincos of both may round otherwise */
        for (int64_t k = 0; k < num; k++)
            out[i + 2 * k] = (float)(scale * (p[k].radius * cos(p[k].angle)));
        for (int64_t k = 0; k < num; k++)
            out[i + 2 * k + 1] = (float)(scale * (p[k].radius * sin(p[k].angle)));
        i += 2 * num;
    }
    if (i < count)
        out[i] = (float)(scale * tv_rng_normal(key, first + (uint64_t)i));
}
