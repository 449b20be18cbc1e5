// The ramp of the global batch: parsing, and the batch at every number of consumed samples.
#include "data/batch_ramp.h"
#include <gtest/gtest.h>
#include <vector>

namespace
{
tv_status_t parse(const char *text, int64_t final, int64_t grain)
{
    tv_batch_ramp ramp = {};
    return tv_batch_ramp_parse(text, final, grain, &ramp);
}

std::vector<int64_t> batches(const tv_batch_ramp &ramp, int num)
{
    std::vector<int64_t> got;
    int64_t consumed = 0;
    for (int k = 0; k < num; k++) {
        got.push_back(tv_batch_ramp_at(&ramp, consumed));
        consumed += got.back();
    }
    return got;
}
} // namespace

TEST(BatchRamp, CommasOrBlanks)
{
    for (const char *text : {"4,8,100", "4 8 100", "4, 8, 100", " 4  8 100"}) {
        tv_batch_ramp ramp = {};
        ASSERT_EQ(tv_batch_ramp_parse(text, 20, 4, &ramp), TV_OK) << text;
        EXPECT_EQ(ramp.start, 4);
        EXPECT_EQ(ramp.increment, 8);
        EXPECT_EQ(ramp.samples, 100);
        EXPECT_EQ(ramp.final, 20);
    }
}

TEST(BatchRamp, Refusals)
{
    for (const char *text : {"", "4", "4,8", "4,8,", "4,8,100,", "4,8,100,2", "4;8;100", "4,,100",
                             "a,8,100", "4+8+100", "4,8,99999999999999999999"})
        EXPECT_EQ(parse(text, 20, 4), TV_INVALID) << text;
    EXPECT_EQ(parse("0,8,100", 16, 4), TV_INVALID);
    EXPECT_EQ(parse("4,0,100", 4, 4), TV_INVALID);
    EXPECT_EQ(parse("4,-8,100", 20, 4), TV_INVALID);
    EXPECT_EQ(parse("4,8,-1", 20, 4), TV_INVALID);
    EXPECT_EQ(parse("6,8,100", 22, 4), TV_INVALID);  // START is no multiple of B x D
    EXPECT_EQ(parse("4,6,100", 16, 4), TV_INVALID);  // nor INCREMENT
    EXPECT_EQ(parse("24,8,100", 20, 4), TV_INVALID); // above the final batch
    EXPECT_EQ(parse("4,8,100", 16, 4), TV_INVALID);  // not hit by whole increments
}

// Megatron-LM: start + floor(consumed / (samples / increments)) increment.
TEST(BatchRamp, GrowsInEqualPartsOfTheSamples)
{
    const tv_batch_ramp ramp = {4, 4, 40, 16};
    EXPECT_EQ(batches(ramp, 9), (std::vector<int64_t>{4, 4, 4, 4, 8, 8, 12, 16, 16}));
    EXPECT_EQ(tv_batch_ramp_at(&ramp, 13), 4);
    EXPECT_EQ(tv_batch_ramp_at(&ramp, 14), 8);
    EXPECT_EQ(tv_batch_ramp_at(&ramp, 39), 12);
    EXPECT_EQ(tv_batch_ramp_at(&ramp, 40), 16);
    EXPECT_EQ(tv_batch_ramp_num(&ramp), 4);
    for (int64_t i = 0; i < 4; i++)
        EXPECT_EQ(tv_batch_ramp_batch(&ramp, i), 4 * (i + 1));
}

TEST(BatchRamp, EdgesAreConstantBatches)
{
    const tv_batch_ramp none = {0, 0, 0, 16}, equal = {16, 4, 40, 16}, at_once = {4, 4, 0, 16};
    for (const auto &ramp : {none, equal, at_once})
        EXPECT_EQ(batches(ramp, 5), (std::vector<int64_t>(5, 16)));
    EXPECT_EQ(tv_batch_ramp_num(&none), 1);
    EXPECT_EQ(tv_batch_ramp_num(&equal), 1);
    const tv_batch_ramp huge = {1, 1, 1000000000000, 1 << 20};
    EXPECT_EQ(tv_batch_ramp_at(&huge, 999999999999), (1 << 20) - 1);
}
