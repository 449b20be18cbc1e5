/* tests/pipeline/test_simulate.cc -- the simulator by itself: every time of small lists, worked out
 * by hand. Schedules against closed forms: test_schedule_forms.cc, test_schedule_numbers.cc. */
#include "pipeline/timing.h"
#include <cmath>

/* "F0 0-2, .." of a stage. */
static std::string times_of(const Table &table, const struct tv_schedule_timing &timing, int stage)
{
    std::ostringstream text;
    const std::vector<struct tv_action> &list = table.stages[(size_t)stage];
    for (size_t i = 0; i < list.size(); i++) {
        const struct tv_action_time &time = timing.stages[stage].times[i];
        text << (i > 0 ? ", " : "") << text_of(list[i]) << " " << time.start << "-" << time.end;
    }
    return text.str();
}

class Simulate : public testing::Test
{
  protected:
    Table table = Table::built("1f1b", 2, 1);
    double forward[2] = {2, 3}, input[2] = {1, 4}, weight[2] = {5, 6};
    double link[4] = {0, 1, 2, 0};
    struct tv_schedule_costs costs = {forward, input, weight, 10, nullptr, 0};
    struct tv_schedule_timing timing = {};
    ~Simulate() override
    {
        tv_schedule_timing_destroy(&timing);
    }
};

TEST_F(Simulate, CostsByPosition)
{
    ASSERT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_EQ("F0 0-2, SEND_F0>1 2-12, RECV_B0>1 2-35, B0 35-41", times_of(table, timing, 0));
    EXPECT_EQ("RECV_F0>0 0-12, F0 12-15, B0 15-25, SEND_B0>0 25-35", times_of(table, timing, 1));
    EXPECT_EQ(41, timing.makespan);
    EXPECT_NEAR(1 - 21. / 82, timing.bubble_fraction, 1e-15);
    const double want[2][5] = {{8, 0, 33, 0, 33. / 41}, {13, 12, 0, 16, 0}};
    for (int s = 0; s < 2; s++) {
        const struct tv_stage_timing &stage = timing.stages[s];
        EXPECT_EQ(want[s][0], stage.busy);
        EXPECT_EQ(want[s][1], stage.warmup);
        EXPECT_EQ(want[s][2], stage.wait);
        EXPECT_EQ(want[s][3], stage.drain);
        EXPECT_EQ(want[s][4], stage.own_window_bubble);
        EXPECT_EQ(1, stage.peak_slots);
    }
}

TEST_F(Simulate, CostsByLink)
{
    costs.link = link;
    ASSERT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_EQ("F0 0-2, SEND_F0>1 2-3, RECV_B0>1 2-18, B0 18-24", times_of(table, timing, 0));
    EXPECT_EQ("RECV_F0>0 0-3, F0 3-6, B0 6-16, SEND_B0>0 16-18", times_of(table, timing, 1));
}

/* A message that is there before it is wanted costs nothing; a link carries several at once. */
TEST_F(Simulate, MessagesOverlap)
{
    table = Table::built("gpipe", 2, 2);
    costs.send = 7;
    ASSERT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_EQ("F0 0-2, SEND_F0>1 2-9, F1 2-4, SEND_F1>1 4-11, RECV_B0>1 4-32, B0 32-38, "
              "RECV_B1>1 38-42, B1 42-48",
              times_of(table, timing, 0));
    EXPECT_EQ("RECV_F0>0 0-9, F0 9-12, RECV_F1>0 12-12, F1 12-15, B0 15-25, SEND_B0>0 25-32, "
              "B1 25-35, SEND_B1>0 35-42",
              times_of(table, timing, 1));
}

/* Positions on one stage hand over without a message. */
TEST_F(Simulate, TheTurnOfAVCostsNothing)
{
    table = Table::built("zb-v", 1, 1);
    costs.send = 1000;
    ASSERT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_EQ("F0 0-2, F0.1 2-5, I0.1 5-9, W0.1 9-15, I0 15-16, W0 16-21",
              times_of(table, timing, 0));
}

TEST_F(Simulate, PairsInTurnOrAsOneAction)
{
    table = Table(1, 1, 2);
    set_list(&table, 0, "F0 F1+ B0 B1");
    ASSERT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_EQ("F0 0-2, F1+ 2-4, B0 4-10, B1 10-16", times_of(table, timing, 0));
    tv_schedule_timing_destroy(&timing);
    costs.joins_pairs = 1;
    ASSERT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_EQ("F0 0-2, F1+ 2-10, B0 2-10, B1 10-16", times_of(table, timing, 0));
    EXPECT_EQ(16, timing.stages[0].busy);
}

/* A pair as one action waits for the inputs of both, which may never come. */
TEST_F(Simulate, APairThatNeedsItself)
{
    table = Table(1, 1, 1);
    set_list(&table, 0, "F0+ B0");
    costs.joins_pairs = 1;
    EXPECT_EQ(TV_INVALID, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_STREQ("schedule table: the stages wait for each other", tv_error_message());
}

TEST_F(Simulate, NoCosts)
{
    forward[0] = forward[1] = input[0] = input[1] = weight[0] = weight[1] = costs.send = 0;
    ASSERT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_EQ(0, timing.makespan);
    EXPECT_EQ(0, timing.bubble_fraction);
    EXPECT_EQ(0, timing.stages[1].own_window_bubble);
}

TEST_F(Simulate, StagesThatWaitForEachOther)
{
    table = Table(2, 1, 2);
    set_list(&table, 0, "F0 B0 F1 B1");
    set_list(&table, 1, "F0 F1 B0 B1");
    timing.num_stages = 0, timing.makespan = -7;
    EXPECT_EQ(TV_INVALID, tv_schedule_simulate(table.schedule(), &costs, &timing));
    EXPECT_STREQ("schedule table: the stages wait for each other", tv_error_message());
    EXPECT_EQ(-7, timing.makespan);
}

TEST_F(Simulate, RefusesCosts)
{
    costs.link = link;
    for (double *cost : {&forward[0], &input[1], &weight[1], &costs.send, &link[1]}) {
        for (double bad : {-1., (double)NAN, (double)INFINITY}) {
            const double good = std::exchange(*cost, bad);
            timing.makespan = -7;
            EXPECT_EQ(TV_INVALID, tv_schedule_simulate(table.schedule(), &costs, &timing));
            EXPECT_STREQ("schedule 1f1b: costs must be finite and not negative",
                         tv_error_message());
            EXPECT_EQ(-7, timing.makespan);
            *cost = good;
        }
    }
}
