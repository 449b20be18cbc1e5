// Uniform partition: every unit once, in order; what cannot be split is refused (row B21).
#include "pipeline/partition.h"
#include <cstring>
#include <gtest/gtest.h>
#include <vector>

TEST(Partition, UniformHoldsEveryUnitOnce)
{
    for (int layers = 1; layers <= 40; layers++)
        for (int pieces = 1; pieces <= layers; pieces++) {
            std::vector<tv_unit_range> r((size_t)pieces);
            ASSERT_EQ(tv_partition_uniform(layers, pieces, r.data()), TV_OK);
            EXPECT_EQ(tv_partition_check(layers, pieces, r.data()), TV_OK) << tv_error_message();
            int least = 1000, most = 0;
            for (int p = 0; p < pieces; p++) {
                const int own = r[(size_t)p].num - (p == 0) - (p == pieces - 1);
                least = std::min(least, own);
                most = std::max(most, own);
            }
            EXPECT_LE(most - least, 1);
            EXPECT_GE(least, 1);
        }
}

TEST(Partition, TheReportedCases)
{
    std::vector<tv_unit_range> r(16);
    ASSERT_EQ(tv_partition_uniform(7, 4, r.data()), TV_OK); // embedding + 2, 2, 2, 1 + head
    EXPECT_EQ(r[0].num, 3);
    EXPECT_EQ(r[1].num, 2);
    EXPECT_EQ(r[3].num, 2);
    EXPECT_EQ(tv_partition_uniform(30, 4, r.data()), TV_OK);
    EXPECT_EQ(tv_partition_uniform(80, 16, r.data()), TV_OK);
    EXPECT_EQ(tv_partition_uniform(3, 4, r.data()), TV_INVALID);
    EXPECT_NE(std::strstr(tv_error_message(), "3 layers"), nullptr);
}

TEST(Partition, APieceMayHoldOnlyAnEnd)
{
    const tv_unit_range ends[] = {{0, 1}, {1, 3}, {4, 1}};
    EXPECT_EQ(tv_partition_check(3, 3, ends), TV_OK);
    const tv_unit_range gap[] = {{0, 1}, {2, 3}};
    EXPECT_EQ(tv_partition_check(3, 2, gap), TV_INVALID);
    const tv_unit_range empty[] = {{0, 5}, {5, 0}};
    EXPECT_EQ(tv_partition_check(3, 2, empty), TV_INVALID);
    const tv_unit_range short_of_head[] = {{0, 2}, {2, 2}};
    EXPECT_EQ(tv_partition_check(3, 2, short_of_head), TV_INVALID);
}
