/* base/rng.h -- random numbers that depend on nothing but their place: the same on every mesh, no
 * state to save.
 *
 * A number is a pure function of (key, index). Philox 4x32-10: J. Salmon, M. Moraes, R. Dror, D.
 * Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The key is made from the run's seed
 * and a name. */
#ifndef TV_BASE_RNG_H
#define TV_BASE_RNG_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
/* One block of Philox 4x32 with 10 rounds: counter[4], key[2] -> out[4]. */
void tv_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Key for `name` under `seed` (xxHash64 of the name, seeded). */
uint64_t tv_rng_key(uint64_t seed, const char *name);
/* 64 random bits for element `index` of the stream `key`. */
uint64_t tv_rng_bits(uint64_t key, uint64_t index);
/* Uniform in [0, bound), bound >= 1, without modulo bias (rejects by a second word of the same
 * counter block). */
uint64_t tv_rng_below(uint64_t key, uint64_t index, uint64_t bound);
/* Standard normal, Box-Muller in double from one Philox block per pair (2i, 2i+1) of indices. */
double tv_rng_normal(uint64_t key, uint64_t index);
/* out[i] = scale * tv_rng_normal(key, first + i), to the bit, for i in [0, count): a pair costs one block, one
 * logarithm, one root. */
void tv_rng_normals(uint64_t key, uint64_t first, int64_t count, double scale, float *out);
TV_END_C
#endif
