/* data/samples.c -- the order of samples: a permutation that is evaluated, not stored.
 *
 * A Feistel network over 2h bits, 4^(h-1) < n <= 4^h, is a bijection of 0 .. 4^h - 1 whatever its
 * round function is; following it until it comes back below n (cycle walking) makes it one of
 * 0 .. n-1. The domain is less than four times n, so that is under four rounds of it on average.
 * Source: J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002. */
#include "data/samples.h"
#include "base/rng.h"
#include <inttypes.h>

enum { NUM_ROUNDS = 8 };

/* Half the width of the network: the least h with n <= 4^h, at least 1. */
static int half_bits_of(uint64_t n)
{
    int half_bits = 1;
    while (half_bits < 32 && n > UINT64_C(1) << (2 * half_bits))
        half_bits++;
    return half_bits;
}

/* One evaluation of the network of (key, epoch). */
static uint64_t feistel(uint64_t value, int half_bits, uint64_t epoch, uint64_t key)
{
    const uint32_t mask = (uint32_t)((UINT64_C(1) << half_bits) - 1);
    const uint32_t words[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
    uint32_t left = (uint32_t)(value >> half_bits) & mask;
    uint32_t right = (uint32_t)value & mask;
    for (uint32_t round = 0; round < NUM_ROUNDS; round++) {
        const uint32_t counter[4] = {right, round, (uint32_t)epoch, (uint32_t)(epoch >> 32)};
        uint32_t random[4];
        tv_philox(counter, words, random);
        const uint32_t next = (left ^ random[0]) & mask;
        left = right;
        right = next;
    }
    return (uint64_t)left << half_bits | right;
}

int64_t tv_samples_count(int64_t num_tokens, int64_t seq_length)
{
    return num_tokens < 2 ? 0 : (num_tokens - 1) / seq_length;
}

int64_t tv_sample_at(const struct tv_sample_order *order, int64_t position)
{
    const uint64_t n = (uint64_t)order->num_samples;
    const uint64_t epoch = (uint64_t)position / n;
    uint64_t value = (uint64_t)position % n;
    if (!order->shuffle)
        return (int64_t)value;
    const uint64_t key = tv_rng_key(order->seed, "sample order");
    const int half_bits = half_bits_of(n);
    do {
        value = feistel(value, half_bits, epoch, key);
    } while (value >= n);
    return (int64_t)value;
}

int64_t tv_sample_position(int64_t consumed, int64_t global_batch, int D, int d,
                           int64_t micro_batch, int64_t micro, int64_t row)
{
    return consumed + d * (global_batch / D) + micro * micro_batch + row;
}

tv_status_t tv_samples_check_batch(int64_t global_batch, int64_t micro_batch, int D,
                                   int64_t *num_micro_out)
{
    if (global_batch < 1 || micro_batch < 1 || D < 1)
        return TV_ERR(TV_INVALID,
                      "global batch %" PRId64 ", micro-batch %" PRId64
                      " and data ranks %d must be at least 1",
                      global_batch, micro_batch, D);
    /* Divided one after the other: the product could overflow. */
    if (global_batch % micro_batch != 0 || global_batch / micro_batch % D != 0)
        return TV_ERR(TV_INVALID,
                      "global batch %" PRId64 " is not a multiple of micro-batch %" PRId64
                      " x %d data ranks",
                      global_batch, micro_batch, D);
    *num_micro_out = global_batch / micro_batch / D;
    return TV_OK;
}
