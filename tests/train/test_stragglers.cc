// Each rank's time over the median of the ranks that do the same work.
#include "train/stragglers.h"
#include <gtest/gtest.h>
#include <vector>

namespace
{

std::vector<double> ratios(tv_mesh_coord extent, const std::vector<double> &seconds)
{
    std::vector<double> over(seconds.size(), -1);
    EXPECT_EQ(tv_straggler_ratios(extent, seconds.data(), over.data()), TV_OK);
    return over;
}

using Numbers = std::vector<double>;

TEST(Stragglers, AStageIsComparedWithItself)
{
    // 2 stages x 3 replicas: the second stage has three times the work, and one slow rank
    EXPECT_EQ(ratios({{2, 3, 1}}, {1, 1, 1, 3, 6, 3}), (Numbers{1, 1, 1, 1, 2, 1}));
    // replicas and tensor ranks of a stage do the same work
    EXPECT_EQ(ratios({{1, 2, 2}}, {2, 2, 2, 5}), (Numbers{1, 1, 1, 2.5}));
    EXPECT_EQ(ratios({{2, 1, 2}}, {1, 4, 8, 8}), (Numbers{1, 4, 1, 1}));
}

TEST(Stragglers, OfTwoInTheMiddleTheLowerIsTheMedian)
{
    EXPECT_EQ(ratios({{1, 2, 1}}, {3, 2}), (Numbers{1.5, 1}));
    EXPECT_EQ(ratios({{1, 4, 1}}, {8, 1, 4, 2}), (Numbers{4, 0.5, 2, 1}));
}

TEST(Stragglers, AloneNobodyIsSlow)
{
    EXPECT_EQ(ratios({{3, 1, 1}}, {1, 5, 100}), (Numbers{1, 1, 1}));
    EXPECT_EQ(ratios({{1, 2, 1}}, {0, 7}), (Numbers{1, 1}));
}

} // namespace
