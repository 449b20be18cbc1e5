// Which samples a step reads: every one once per epoch, on any number of replicas, from any
// starting point.
#include "data/samples.h"
#include <algorithm>
#include <gtest/gtest.h>
#include <numeric>
#include <string>
#include <vector>

namespace
{
std::vector<int64_t> epoch_of(int64_t n, uint64_t seed, int64_t epoch, int shuffle = 1)
{
    const tv_sample_order order = {n, seed, shuffle};
    std::vector<int64_t> samples((size_t)n);
    for (int64_t i = 0; i < n; i++)
        samples[(size_t)i] = tv_sample_at(&order, epoch * n + i);
    return samples;
}

std::vector<int64_t> counted_up(int64_t n)
{
    std::vector<int64_t> all((size_t)n);
    std::iota(all.begin(), all.end(), 0);
    return all;
}

void expect_permutation(std::vector<int64_t> samples)
{
    std::sort(samples.begin(), samples.end());
    ASSERT_EQ(samples, counted_up((int64_t)samples.size()));
}

// What D replicas read in `steps` steps from `consumed`, in the order of the global batch.
std::vector<int64_t> read_by_replicas(const tv_sample_order &order, int64_t consumed, int64_t G,
                                      int64_t B, int D, int steps)
{
    std::vector<int64_t> ids((size_t)(steps * G), -1);
    int64_t m = 0;
    EXPECT_EQ(tv_samples_check_batch(G, B, D, &m), TV_OK);
    for (int k = 0; k < steps; k++)
        for (int d = 0; d < D; d++)
            for (int64_t micro = 0; micro < m; micro++)
                for (int64_t row = 0; row < B; row++) {
                    const int64_t q = tv_sample_position(consumed + k * G, G, D, d, B, micro, row);
                    const int64_t place = q - consumed;
                    EXPECT_EQ(ids.at((size_t)place), -1) << "read twice";
                    ids.at((size_t)place) = tv_sample_at(&order, q);
                }
    return ids;
}
} // namespace

TEST(Samples, CountIsWholeSamplesOnly)
{
    EXPECT_EQ(tv_samples_count(0, 8), 0);
    EXPECT_EQ(tv_samples_count(1, 8), 0);
    EXPECT_EQ(tv_samples_count(8, 8), 0);
    EXPECT_EQ(tv_samples_count(9, 8), 1); // the last target is the last token
    EXPECT_EQ(tv_samples_count(16, 8), 1);
    EXPECT_EQ(tv_samples_count(17, 8), 2);
    EXPECT_EQ(tv_samples_count(5000000000, 2048), 2441406);
}

// Steps of one pass, as far as the whole samples go: floor((N-1) / (D B S)).
TEST(Samples, StepsPerPass)
{
    EXPECT_EQ(tv_samples_count(94, 5) / (2 * 1), 9);
    EXPECT_EQ(tv_samples_count(100, 8) / (4 * 2), 1);
}

TEST(Samples, EveryEpochIsAPermutation)
{
    for (int64_t n = 1; n <= 300; n++)
        for (int64_t epoch = 0; epoch < 2; epoch++)
            expect_permutation(epoch_of(n, 1234, epoch));
    for (int64_t n : {1000, 1024, 1025, 4096, 65536, 65537})
        expect_permutation(epoch_of(n, 7, 3));
}

TEST(Samples, OrderDependsOnSeedAndEpochAndNothingElse)
{
    const auto order = epoch_of(1000, 1, 0);
    EXPECT_EQ(order, epoch_of(1000, 1, 0));
    EXPECT_NE(order, epoch_of(1000, 2, 0));
    EXPECT_NE(order, epoch_of(1000, 1, 1));
    EXPECT_NE(order, epoch_of(1000, 1, (int64_t)1 << 33));
    EXPECT_NE(order, epoch_of(1000, (uint64_t)1 + ((uint64_t)1 << 32), 0));
    EXPECT_NE(order, counted_up(1000));
}

// Neighbours in the file must not stay neighbours: of 65537 places about one is its own successor
// by chance.
TEST(Samples, ShuffleSeparatesNeighbours)
{
    const auto order = epoch_of(65537, 1234, 0);
    int fixed = 0, adjacent = 0;
    for (size_t i = 0; i < order.size(); i++) {
        fixed += order[i] == (int64_t)i;
        adjacent += i > 0 && order[i] == order[i - 1] + 1;
    }
    EXPECT_LT(fixed, 12);
    EXPECT_LT(adjacent, 12);
}

// Each place is about equally likely for each sample, also for orders of a few samples: 2000 seeds
// of n = 5, so 400 expected in each of 25 cells with a deviation of 18.
TEST(Samples, SmallOrdersAreSpread)
{
    int hits[5][5] = {};
    for (uint64_t seed = 0; seed < 2000; seed++) {
        const auto order = epoch_of(5, seed, 0);
        for (size_t i = 0; i < 5; i++)
            hits[i][order[i]]++;
    }
    for (auto &row : hits)
        for (int count : row) {
            EXPECT_GT(count, 300);
            EXPECT_LT(count, 500);
        }
}

TEST(Samples, FileOrderCrossesEpochs)
{
    const tv_sample_order order = {5, 1234, 0};
    for (int64_t q = 0; q < 23; q++)
        EXPECT_EQ(tv_sample_at(&order, q), q % 5);
}

TEST(Samples, PlacesBeyondThirtyTwoBits)
{
    const int64_t big = (int64_t)1 << 31;
    tv_sample_order order = {big * 5, 1234, 0};
    EXPECT_EQ(tv_sample_at(&order, big - 1), big - 1);
    EXPECT_EQ(tv_sample_at(&order, big), big);
    EXPECT_EQ(tv_sample_at(&order, big * 5 + 7), 7);
    order.shuffle = 1;
    std::vector<int64_t> seen;
    for (int64_t q = big * 2 - 500; q < big * 2 + 500; q++) {
        seen.push_back(tv_sample_at(&order, q));
        EXPECT_GE(seen.back(), 0);
        EXPECT_LT(seen.back(), big * 5);
    }
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
    order.num_samples = INT64_MAX;
    EXPECT_GE(tv_sample_at(&order, INT64_MAX - 1), 0);
}

// A replica count is a way to cut the same list: no repeat, no gap, and the tail of an epoch goes
// on in the next.
TEST(Samples, ReplicasReadTheSameListOnAnyMesh)
{
    const tv_sample_order order = {37, 99, 1};
    const int64_t G = 16;
    const int steps = 14;
    const auto list = read_by_replicas(order, 0, G, 1, 1, steps);
    for (int epoch = 0; epoch < 6; epoch++)
        expect_permutation(
            std::vector<int64_t>(list.begin() + epoch * 37, list.begin() + (epoch + 1) * 37));
    for (int D : {1, 2, 4, 8})
        for (int64_t B : {1, 2}) {
            EXPECT_EQ(read_by_replicas(order, 0, G, B, D, steps), list) << D << " x " << B;
            const auto resumed = read_by_replicas(order, 3 * G, G, B, D, steps - 3);
            EXPECT_EQ(resumed, std::vector<int64_t>(list.begin() + 3 * G, list.end()))
                << D << " x " << B;
        }
}

TEST(Samples, SlicesOfAReplica)
{
    // G = 12, D = 2, B = 3: replica 1 starts at 6, its micro-batch 1 at 9.
    EXPECT_EQ(tv_sample_position(0, 12, 2, 0, 3, 0, 0), 0);
    EXPECT_EQ(tv_sample_position(0, 12, 2, 0, 3, 1, 0), 3);
    EXPECT_EQ(tv_sample_position(0, 12, 2, 1, 3, 0, 0), 6);
    EXPECT_EQ(tv_sample_position(24, 12, 2, 1, 3, 1, 2), 24 + 11);
}

TEST(Samples, BatchThatDoesNotDivideIsRefused)
{
    int64_t m = -7;
    EXPECT_EQ(tv_samples_check_batch(128, 32, 8, &m), TV_INVALID);
    const std::string message = tv_error_message();
    EXPECT_NE(message.find("128"), std::string::npos);
    EXPECT_NE(message.find("32"), std::string::npos);
    EXPECT_NE(message.find("8 data ranks"), std::string::npos);
    EXPECT_EQ(tv_samples_check_batch(8, 3, 1, &m), TV_INVALID);
    EXPECT_EQ(tv_samples_check_batch(0, 1, 1, &m), TV_INVALID);
    EXPECT_EQ(tv_samples_check_batch(4, 0, 1, &m), TV_INVALID);
    EXPECT_EQ(tv_samples_check_batch(4, INT64_MAX, 2, &m), TV_INVALID);
    EXPECT_EQ(m, -7); // outputs are untouched on failure
    ASSERT_EQ(tv_samples_check_batch(96, 4, 8, &m), TV_OK);
    EXPECT_EQ(m, 3);
}
