/* tests/pipeline/test_partition.cc -- uniform ranges of units, and refusals. */
#include "pipeline/partition.h"
#include <algorithm>
#include <gtest/gtest.h>
#include <string>
#include <vector>

static std::vector<struct tv_unit_range> uniform(int num_layers, int num_pieces)
{
    std::vector<struct tv_unit_range> ranges((size_t)num_pieces);
    EXPECT_EQ(TV_OK, tv_partition_uniform(num_layers, num_pieces, ranges.data()))
        << tv_error_message();
    return ranges;
}

/* Layers of each piece, without embedding and head. */
static std::vector<int> layers(int num_layers, int num_pieces)
{
    std::vector<int> nums;
    for (const struct tv_unit_range &range : uniform(num_layers, num_pieces))
        nums.push_back(range.num);
    nums.front()--;
    nums.back()--;
    return nums;
}

TEST(Partition, LayersAsEvenAsPossibleLongerFirst)
{
    EXPECT_EQ(layers(7, 4), (std::vector<int>{2, 2, 2, 1}));
    EXPECT_EQ(layers(30, 4), (std::vector<int>{8, 8, 7, 7}));
    EXPECT_EQ(layers(80, 16), std::vector<int>(16, 5));
    EXPECT_EQ(layers(8, 8), std::vector<int>(8, 1));
    EXPECT_EQ(layers(5, 1), (std::vector<int>{5}));
}

TEST(Partition, EmbeddingFirstHeadLast)
{
    const std::vector<struct tv_unit_range> ranges = uniform(7, 4); /* units 0 .. 8 */
    const int first[] = {0, 3, 5, 7}, num[] = {3, 2, 2, 2};
    for (size_t i = 0; i < 4; i++) {
        EXPECT_EQ(first[i], ranges[i].first);
        EXPECT_EQ(num[i], ranges[i].num);
    }
}

TEST(Partition, EveryUnitOnceAndEvenForAllSizes)
{
    for (int num_layers = 1; num_layers <= 40; num_layers++) {
        for (int num_pieces = 1; num_pieces <= num_layers; num_pieces++) {
            std::vector<int> owners((size_t)num_layers + 2);
            const std::vector<struct tv_unit_range> ranges = uniform(num_layers, num_pieces);
            for (const struct tv_unit_range &range : ranges) {
                for (int unit = range.first; unit < range.first + range.num; unit++)
                    owners.at((size_t)unit)++;
            }
            ASSERT_EQ(owners, std::vector<int>(owners.size(), 1))
                << num_layers << ", " << num_pieces;
            ASSERT_EQ(TV_OK, tv_partition_check(num_layers, num_pieces, ranges.data()));
            const std::vector<int> nums = layers(num_layers, num_pieces);
            ASSERT_GE(nums.back(), 1);
            ASSERT_LE(nums.front() - nums.back(), 1);
            ASSERT_TRUE(std::is_sorted(nums.rbegin(), nums.rend()));
        }
    }
}

TEST(Partition, FewerLayersThanStagesIsRefused)
{
    struct tv_unit_range ranges[4] = {{-7, -7}, {-7, -7}, {-7, -7}, {-7, -7}};
    EXPECT_EQ(TV_INVALID, tv_partition_uniform(3, 4, ranges));
    EXPECT_EQ("3 layers cannot be split uniformly over 4 stages: at most 3 stages, or more layers",
              std::string(tv_error_message()));
    for (const struct tv_unit_range &range : ranges)
        EXPECT_EQ(-7, range.first);
    EXPECT_EQ(TV_INVALID, tv_partition_uniform(3, 0, ranges));
    EXPECT_EQ(TV_INVALID, tv_partition_uniform(0, 1, ranges));
}

/* Embedding and head are units of their own. */
TEST(Partition, APieceMayHoldOnlyAnEnd)
{
    const struct tv_unit_range ends[] = {{0, 1}, {1, 3}, {4, 1}};
    EXPECT_EQ(TV_OK, tv_partition_check(3, 3, ends)) << tv_error_message();
}

TEST(Partition, CheckFindsGapsOverlapsAndRests)
{
    const struct tv_unit_range whole[] = {{0, 3}, {3, 3}}, gap[] = {{0, 2}, {3, 3}},
                               overlap[] = {{0, 4}, {3, 3}}, rest[] = {{0, 3}, {3, 2}},
                               beyond[] = {{0, 3}, {3, 4}}, empty[] = {{0, 0}, {0, 6}},
                               late[] = {{1, 2}, {3, 3}};
    EXPECT_EQ(TV_OK, tv_partition_check(4, 2, whole));
    for (const struct tv_unit_range *broken : {gap, overlap, rest, beyond, empty, late})
        EXPECT_EQ(TV_INVALID, tv_partition_check(4, 2, broken)) << broken - gap;
    EXPECT_EQ(TV_INVALID, tv_partition_check(4, 2, gap));
    EXPECT_STREQ("stage 1 holds units 3..5, expected to begin at 2 and hold at least one",
                 tv_error_message());
    EXPECT_EQ(TV_INVALID, tv_partition_check(4, 2, rest));
    EXPECT_STREQ("the stages hold 5 units, the model has 6", tv_error_message());
}
