/* tests/pipeline/test_partition_layout.cc -- Megatron-LM's layout strings, read and written. */
#include "pipeline/partition.h"
#include <gtest/gtest.h>
#include <string>
#include <vector>

using Sizes = std::vector<int>; /* units of each piece */

/* Empty when refused. */
static Sizes read(const std::string &text, int num_layers, int num_pieces)
{
    std::vector<struct tv_unit_range> ranges((size_t)num_pieces, {-7, -7});
    if (tv_partition_layout(text.c_str(), num_layers, num_pieces, ranges.data()) != TV_OK) {
        EXPECT_EQ(-7, ranges.front().first);
        return {};
    }
    EXPECT_EQ(TV_OK, tv_partition_check(num_layers, num_pieces, ranges.data()));
    Sizes sizes;
    for (const struct tv_unit_range &range : ranges)
        sizes.push_back(range.num);
    return sizes;
}

static std::string write(const Sizes &sizes)
{
    std::vector<struct tv_unit_range> ranges;
    int unit = 0;
    for (const int num : sizes) {
        ranges.push_back({unit, num});
        unit += num;
    }
    char text[256];
    EXPECT_EQ(TV_OK,
              tv_partition_format(unit - 2, (int)sizes.size(), ranges.data(), text, sizeof(text)))
        << tv_error_message();
    return text;
}

TEST(Layout, LettersBarsRepeatsAndGroups)
{
    EXPECT_EQ((Sizes{4, 2, 2, 2}), read("Ettt|tt|tt|tL", 8, 4));
    EXPECT_EQ((Sizes{4, 2, 2, 2}), read("Et*3|(tt|)*2tL", 8, 4));
    EXPECT_EQ((Sizes{4, 2, 2, 2}), read(" E, t*3 | (t t,|) *2 , t L ", 8, 4));
    EXPECT_EQ((Sizes{1, 8, 1}), read("E|t*8|L", 8, 3)); /* an end alone */
    EXPECT_EQ((Sizes{10}), read("Et*8L", 8, 1));
    EXPECT_EQ((Sizes{2, 1, 1, 2}), read("Et(|t)*3L", 4, 4));
    EXPECT_EQ((Sizes{2, 1, 1, 1, 2}), read("Et(|t)*2|t|tL", 5, 5));
    /* Groups in groups: Megatron-LM has no such thing. */
    EXPECT_EQ((Sizes{2, 2, 1, 2, 1, 1}), read("Et|((t)*2|t|)*2L", 7, 6));
    EXPECT_EQ((Sizes{3, 2, 2, 3}), read("E(tt)|(t(t)|)*2(t*2)*1L", 8, 4));
}

/* Megatron-LM's own example, without its multi-token prediction. */
TEST(Layout, ManyPieces)
{
    Sizes expected(31, 2);
    expected.front() = 4;
    expected.back() = 1;
    EXPECT_EQ(expected, read("Et*3|(tt|)*29,L", 61, 31));
}

static void expect_refused(const std::string &message, const std::string &text, int num_layers = 8,
                           int num_pieces = 2)
{
    EXPECT_EQ(Sizes{}, read(text, num_layers, num_pieces)) << text;
    EXPECT_EQ(message, tv_error_message()) << text;
}

TEST(Layout, RefusalsOfCharacters)
{
    expect_refused("stage layout, column 4: 'x' is not one of E t L | ( ) * ,", "Et|xL");
    expect_refused("stage layout, column 1: byte 0x07 is not one of E t L | ( ) * ,", "\aE");
    expect_refused("stage layout, column 3: byte 0xc3 is not one of E t L | ( ) * ,", "Et\u00e4L");
    expect_refused("stage layout, column 5: m, multi-token prediction, is not supported",
                   "Et|tm|L");
    expect_refused("stage layout, column 3: '8' is not one of E t L | ( ) * ,", "Et8|L");
}

TEST(Layout, RefusalsOfGroupsAndRepeats)
{
    expect_refused("stage layout, column 3: '(' without ')'", "Et(t|(t)L");
    expect_refused("stage layout, column 4: ')' without '('", "Ett)|L");
    expect_refused("stage layout, column 4: nothing in the parentheses", "Et()*8|L");
    expect_refused("stage layout, column 6: nothing in the parentheses", "Et(, )|L");
    expect_refused("stage layout, column 1: '*' repeats nothing", "*3Et|L");
    expect_refused("stage layout, column 4: '*' repeats nothing", "Et(*3)|L");
    expect_refused("stage layout, column 5: '*' repeats nothing", "Et*2*4|L"); /* as Megatron-LM */
    const std::string number = ": '*' takes a number of 1 to 1000000 behind it";
    expect_refused("stage layout, column 3" + number, "Et*0|L");
    expect_refused("stage layout, column 3" + number, "Et*|L");
    expect_refused("stage layout, column 3" + number, "Et*-1|L");
    expect_refused("stage layout, column 3" + number, "Et*1000001|L");
    expect_refused("stage layout, column 3" + number, "Et*18446744073709551617|L");
    expect_refused("stage layout, column 17: more than 16 parentheses open", std::string(17, '('));
}

/* What would be 10^24 layers costs as much as 65536. */
TEST(Layout, ExpansionIsBounded)
{
    expect_refused("stage layout, column 7: more than 65536 letters and bars",
                   "E((((t*1000000)*1000000)*1000000)*1000000)|L");
    expect_refused("stage layout, column 14: more than 65536 letters and bars",
                   "E((((t*10000)*10000)*10000)*10000)|L");
    expect_refused("stage layout, column 65537: more than 65536 letters and bars",
                   std::string(70000, 't'));
    EXPECT_EQ((Sizes{65533, 1}), read("Et*65532|L", 65532, 2)); /* 65535 items */
    EXPECT_EQ((Sizes{65534, 1}), read("Et*65533|L", 65533, 2));
    EXPECT_EQ((Sizes{}), read("Et*65534|L", 65534, 2));
}

TEST(Layout, RefusalsOfNumbers)
{
    expect_refused("the stage layout has 7 layers, the model 8", "Et*4|t*3L");
    expect_refused("the stage layout has 9 layers, the model 8", "Et*4|t*5L");
    expect_refused("the stage layout has 3 pieces, the pipeline 2", "Et*4|t|t*3L");
    expect_refused("the stage layout has 1 pieces, the pipeline 2", "Et*8L");
    expect_refused("the stage layout has 3 pieces, the pipeline 2", "Et*4|t*4L|");
    expect_refused("the stage layout has 0 layers, the model 8", "");
}

TEST(Layout, RefusalsOfOrder)
{
    const std::string place = " is out of place: one E (embedding), all t, one L (head)";
    expect_refused("stage layout, column 1: t" + place, "t*4|t*4L");
    expect_refused("stage layout, column 6: E" + place, "Et*4|Et*4L");
    expect_refused("stage layout, column 6: L" + place, "Et*4|Lt*4");
    expect_refused("stage layout, column 10: L" + place, "Et*4|t*4LL");
    expect_refused("stage layout, column 1: L" + place, "Lt*4|t*4E");
    expect_refused("stage layout, column 7: ends without L (head)", "Et*4|t*4");
    expect_refused("stage layout, column 2: ends without L (head)", "E|", 0, 2);
}

/* Legal in Megatron-LM. */
TEST(Layout, EmptyPiecesAreRefused)
{
    const std::string before = ": the piece before this bar is empty, each holds at least one unit";
    expect_refused("stage layout, column 6" + before, "Et*4||t*4L", 8, 3);
    expect_refused("stage layout, column 1" + before, "|Et*4|t*4L", 8, 3);
    expect_refused("stage layout, column 6" + before, "Et*4|*2t*4L", 8, 3);
    expect_refused("stage layout, column 9: the piece behind this bar is empty, each holds at "
                   "least one unit",
                   "Et*4t*4L|", 8, 2);
}

TEST(Layout, WrittenWithRepeats)
{
    EXPECT_EQ("Et*8|t*8|t*7|t*7L", write({9, 8, 7, 8}));
    EXPECT_EQ("Et*3|(tt|)*29L", write([] {
                  Sizes sizes(31, 2);
                  sizes.front() = 4;
                  sizes.back() = 1;
                  return sizes;
              }()));
    EXPECT_EQ("E|t|tt|L", write({1, 1, 2, 1}));
    EXPECT_EQ("Et*8L", write({10}));
    EXPECT_EQ("E|L", write({1, 1}));
    EXPECT_EQ("Ett|(t*3|)*2(tt|)*3t*3L", write({3, 3, 3, 2, 2, 2, 4}));
}

TEST(Layout, WhatIsWrittenIsReadBack)
{
    for (int num_layers = 1; num_layers <= 20; num_layers++) {
        for (int num_pieces = 1; num_pieces <= num_layers; num_pieces++) {
            std::vector<struct tv_unit_range> ranges((size_t)num_pieces);
            ASSERT_EQ(TV_OK, tv_partition_uniform(num_layers, num_pieces, ranges.data()));
            Sizes sizes;
            for (const struct tv_unit_range &range : ranges)
                sizes.push_back(range.num);
            EXPECT_EQ(sizes, read(write(sizes), num_layers, num_pieces));
        }
    }
}

TEST(Layout, WritesOnlyWhatFits)
{
    const struct tv_unit_range ranges[] = {{0, 5}, {5, 5}};
    char text[16] = "untouched";
    EXPECT_EQ(TV_INVALID, tv_partition_format(8, 2, ranges, text, 9));
    EXPECT_STREQ("the layout of 2 pieces needs 10 bytes, there are 9", tv_error_message());
    EXPECT_STREQ("untouched", text);
    EXPECT_EQ(TV_OK, tv_partition_format(8, 2, ranges, text, 10));
    EXPECT_STREQ("Et*4|t*4L", text);
    EXPECT_EQ(TV_INVALID, tv_partition_format(9, 2, ranges, text, 16));
    EXPECT_STREQ("the stages hold 10 units, the model has 11", tv_error_message());
}
