// Philox against the vectors published with Random123, and what is drawn from it.
#include "base/rng.h"
#include <cmath>
#include <gtest/gtest.h>
#include <set>
#include <vector>

static void expect_philox(std::vector<uint32_t> counter, std::vector<uint32_t> key,
                          std::vector<uint32_t> want)
{
    uint32_t got[4];
    tv_philox(counter.data(), key.data(), got);
    for (int i = 0; i < 4; i++)
        EXPECT_EQ(got[i], want[(size_t)i]) << "word " << i;
}

TEST(Philox, KnownAnswers)
{
    expect_philox({0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    expect_philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff},
                  {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    expect_philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
                  {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(Rng, KeysDependOnSeedAndName)
{
    std::set<uint64_t> keys;
    for (uint64_t seed = 0; seed < 10; seed++)
        for (const char *name : {"a", "b", "wte.weight", ""})
            keys.insert(tv_rng_key(seed, name));
    EXPECT_EQ(keys.size(), 40u);
}

TEST(Rng, NormalHasTheRightMomentsAndNoRepeats)
{
    const uint64_t key = tv_rng_key(1234, "moments");
    const int n = 200000;
    double sum = 0, square = 0, fourth = 0, lag = 0, last = 0;
    for (int i = 0; i < n; i++) {
        const double x = tv_rng_normal(key, (uint64_t)i);
        ASSERT_TRUE(std::isfinite(x));
        sum += x;
        square += x * x;
        fourth += x * x * x * x;
        lag += x * last;
        last = x;
    }
    EXPECT_NEAR(sum / n, 0, 0.01);
    EXPECT_NEAR(square / n, 1, 0.015);
    EXPECT_NEAR(fourth / n, 3, 0.15);
    EXPECT_NEAR(lag / n, 0, 0.01);
}

TEST(Rng, ManyNormalsAreThoseOneByOne)
{
    const uint64_t key = tv_rng_key(1, "many");
    for (uint64_t first : {0, 1, 6, 7})
        for (int64_t count : {0, 1, 2, 3, 127, 128, 129, 130, 1001}) {
            std::vector<float> got((size_t)count + 1, 9);
            tv_rng_normals(key, first, count, 0.02, got.data());
            for (int64_t i = 0; i < count; i++)
                ASSERT_EQ((float)(0.02 * tv_rng_normal(key, first + (uint64_t)i)), got[(size_t)i])
                    << first << " + " << i << " of " << count;
            ASSERT_EQ(9, got.back());
        }
}

TEST(Rng, BelowStaysBelowAndReachesAll)
{
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < 1000; i++) {
        const uint64_t x = tv_rng_below(7, i, 10);
        ASSERT_LT(x, 10u);
        seen.insert(x);
    }
    EXPECT_EQ(seen.size(), 10u);
    EXPECT_EQ(tv_rng_below(7, 3, 1), 0u);
}
