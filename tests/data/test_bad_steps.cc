// Steps that are not finite: skipped up to a number in a row, then the end.
#include "data/bad_steps.h"
#include <cmath>
#include <gtest/gtest.h>

TEST(BadSteps, NoneIsAllowedByDefault)
{
    tv_bad_steps bad = {};
    EXPECT_EQ(tv_bad_steps_judge(&bad, 1, 1), TV_STEP_TAKE);
    EXPECT_EQ(tv_bad_steps_judge(&bad, NAN, 1), TV_STEP_STOP);
}

TEST(BadSteps, CountsThoseInARow)
{
    tv_bad_steps bad = {2, 0};
    EXPECT_EQ(tv_bad_steps_judge(&bad, NAN, 1), TV_STEP_SKIP);
    EXPECT_EQ(tv_bad_steps_judge(&bad, 1, INFINITY), TV_STEP_SKIP);
    EXPECT_EQ(bad.in_a_row, 2);
    EXPECT_EQ(tv_bad_steps_judge(&bad, 1, 1), TV_STEP_TAKE); // starts the count again
    EXPECT_EQ(bad.in_a_row, 0);
    EXPECT_EQ(tv_bad_steps_judge(&bad, -INFINITY, 1), TV_STEP_SKIP);
    EXPECT_EQ(tv_bad_steps_judge(&bad, 1, NAN), TV_STEP_SKIP);
    EXPECT_EQ(tv_bad_steps_judge(&bad, NAN, NAN), TV_STEP_STOP);
}
