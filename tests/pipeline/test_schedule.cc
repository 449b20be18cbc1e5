/* tests/pipeline/test_schedule.cc -- lists, slots and times of the schedules, against closed
 * forms. */
#include "pipeline/table.h"
#include <cmath>

static const char *const names[] = {"gpipe", "1f1b"};

static int expected_slots(const std::string &name, int P, int r, int m)
{
    return name == "gpipe" ? m : std::min(P - r, m);
}

static double makespan_of(Table &table, double forward, double backward, double *bubble)
{
    double makespan = -1;
    EXPECT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), forward, backward, &makespan, bubble))
        << tv_error_message();
    return makespan;
}

TEST(Schedule, ListsOf1f1b)
{
    Table table = Table::built("1f1b", 3, 4);
    EXPECT_EQ("F0 SEND_F0>1 F1 SEND_F1>1 F2 SEND_F2>1 RECV_B0>1 B0 F3 SEND_F3>1 RECV_B1>1 B1 "
              "RECV_B2>1 B2 RECV_B3>1 B3",
              text_of(table.stages[0]));
    EXPECT_EQ("RECV_F0>0 F0 SEND_F0>2 RECV_F1>0 F1 SEND_F1>2 RECV_B0>2 B0 SEND_B0>0 "
              "RECV_F2>0 F2 SEND_F2>2 RECV_B1>2 B1 SEND_B1>0 "
              "RECV_F3>0 F3 SEND_F3>2 RECV_B2>2 B2 SEND_B2>0 RECV_B3>2 B3 SEND_B3>0",
              text_of(table.stages[1]));
    EXPECT_EQ("RECV_F0>1 F0 B0 SEND_B0>1 RECV_F1>1 F1 B1 SEND_B1>1 RECV_F2>1 F2 B2 SEND_B2>1 "
              "RECV_F3>1 F3 B3 SEND_B3>1",
              text_of(table.stages[2]));
}

TEST(Schedule, ListsOf1f1bWithFewerMicroBatchesThanStages)
{
    Table table = Table::built("1f1b", 4, 2);
    EXPECT_EQ("F0 F1 B0 B1", text_of(table.stages[0], true));
    EXPECT_EQ("F0 F1 B0 B1", text_of(table.stages[1], true));
    EXPECT_EQ("F0 F1 B0 B1", text_of(table.stages[2], true));
    EXPECT_EQ("F0 B0 F1 B1", text_of(table.stages[3], true));
}

TEST(Schedule, ListsOfGpipe)
{
    Table table = Table::built("gpipe", 2, 3);
    EXPECT_EQ("F0 SEND_F0>1 F1 SEND_F1>1 F2 SEND_F2>1 RECV_B0>1 B0 RECV_B1>1 B1 RECV_B2>1 B2",
              text_of(table.stages[0]));
    EXPECT_EQ("RECV_F0>0 F0 RECV_F1>0 F1 RECV_F2>0 F2 B0 SEND_B0>0 B1 SEND_B1>0 B2 SEND_B2>0",
              text_of(table.stages[1]));
}

TEST(Schedule, OneStageHasNoMessages)
{
    EXPECT_EQ("F0 F1 B0 B1", text_of(Table::built("gpipe", 1, 2).stages[0]));
    EXPECT_EQ("F0 B0 F1 B1", text_of(Table::built("1f1b", 1, 2).stages[0]));
}

TEST(Schedule, ClosedForms)
{
    for (const char *name : names) {
        for (int P = 1; P <= 8; P++) {
            for (int m = 1; m <= 4 * P; m++) {
                SCOPED_TRACE(std::string(name) + ", P=" + std::to_string(P) +
                             ", m=" + std::to_string(m));
                Table table = Table::built(name, P, m);
                const int most = expected_slots(name, P, 0, m);
                ASSERT_EQ(TV_OK, tv_schedule_check(table.schedule(), most)) << tv_error_message();
                if (most > 1) { /* limit 0 is no limit */
                    ASSERT_EQ(TV_INVALID, tv_schedule_check(table.schedule(), most - 1));
                }
                for (int r = 0; r < P; r++)
                    ASSERT_EQ(expected_slots(name, P, r, m),
                              tv_schedule_peak_slots(table.schedule(), r));
                double bubble = -1;
                ASSERT_EQ(3.0 * (m + P - 1), makespan_of(table, 1, 2, &bubble));
                ASSERT_NEAR((P - 1.0) / (m + P - 1), bubble, 1e-15);
                ASSERT_EQ(12.0 * (m + P - 1), makespan_of(table, 7, 5, &bubble));
                ASSERT_NEAR((P - 1.0) / (m + P - 1), bubble, 1e-15);
            }
        }
    }
}

TEST(Schedule, PublishedNumbers)
{
    const struct {
        int P, m;
        double makespan, bubble;
    } rows[] = {{4, 4, 21, .4286},  {4, 6, 27, .3333},  {4, 8, 33, .2727},  {4, 10, 39, .2308},
                {4, 16, 57, .1579}, {8, 8, 45, .4667},  {8, 12, 57, .3684}, {8, 16, 69, .3043},
                {8, 20, 81, .2593}, {8, 32, 117, .1795}};
    for (const auto &row : rows) {
        for (const char *name : names) {
            Table table = Table::built(name, row.P, row.m);
            double bubble = -1;
            EXPECT_EQ(row.makespan, makespan_of(table, 1, 2, &bubble));
            EXPECT_NEAR(row.bubble, bubble, 5e-5);
        }
    }
}

TEST(Schedule, NamesAndRefusals)
{
    struct tv_schedule schedule = {};
    schedule.num_stages = -7;
    EXPECT_TRUE(tv_schedule_is_known("gpipe") && tv_schedule_is_known("1f1b"));
    EXPECT_FALSE(tv_schedule_is_known("1f1B") || tv_schedule_is_known(""));
    EXPECT_STREQ("gpipe, 1f1b", tv_schedule_names());
    EXPECT_EQ(TV_INVALID, tv_schedule_build("zb", 2, 2, &schedule));
    EXPECT_STREQ("schedule zb is not one of gpipe, 1f1b", tv_error_message());
    EXPECT_EQ(TV_INVALID, tv_schedule_build("1f1b", 0, 2, &schedule));
    EXPECT_EQ(TV_INVALID, tv_schedule_build("1f1b", 2, 0, &schedule));
    EXPECT_STREQ("a schedule of 2 stages and 0 micro-batches", tv_error_message());
    EXPECT_EQ(-7, schedule.num_stages);
}

TEST(Schedule, LoopPlacement)
{
    Table table(4, 3, 1);
    EXPECT_EQ(0, tv_schedule_position(table.schedule(), 0, 0));
    EXPECT_EQ(3, tv_schedule_position(table.schedule(), 3, 0));
    EXPECT_EQ(9, tv_schedule_position(table.schedule(), 1, 2));
    EXPECT_EQ(-1, tv_schedule_neighbour(table.schedule(), 0, 0, -1));
    EXPECT_EQ(3, tv_schedule_neighbour(table.schedule(), 0, 1, -1));
    EXPECT_EQ(0, tv_schedule_neighbour(table.schedule(), 3, 0, 1));
    EXPECT_EQ(-1, tv_schedule_neighbour(table.schedule(), 3, 2, 1));
}

TEST(Schedule, MessagesBetweenChunksGoRound)
{
    Table table = interleaved(2, 2, 1, 2);
    EXPECT_EQ("F0 SEND_F0>1 RECV_F0.1>1 F0.1 SEND_F0.1>1 RECV_B0.1>1 B0.1 SEND_B0.1>1 RECV_B0>1 B0",
              text_of(table.stages[0]));
    EXPECT_EQ("RECV_F0>0 F0 SEND_F0>0 RECV_F0.1>0 F0.1 B0.1 SEND_B0.1>0 RECV_B0>0 B0 SEND_B0>0",
              text_of(table.stages[1]));
}

/* Several chunks: lowering, checker, slots and simulator take them as they are. */
TEST(Schedule, SeveralChunks)
{
    for (int v = 2; v <= 3; v++) {
        for (int P = 2; P <= 5; P++) {
            for (int m = 1; m <= 3 * P; m++) {
                SCOPED_TRACE("P=" + std::to_string(P) + ", v=" + std::to_string(v) +
                             ", m=" + std::to_string(m));
                Table table = interleaved(P, v, m, 2);
                ASSERT_EQ(TV_OK, tv_schedule_check(table.schedule(), 0)) << tv_error_message();
                double bubble = -1;
                ASSERT_EQ(3.0 * (std::max(v * m + P, v * P + m) - 1),
                          makespan_of(table, 1, 2, &bubble));
                const int q = std::max(1, m / P), largest = (m + q - 1) / q;
                for (int r = 0; r < P; r++)
                    ASSERT_EQ(std::min(v * m, 2 * (P - 1 - r) + (v - 1) * largest + 1),
                              tv_schedule_peak_slots(table.schedule(), r));
            }
        }
    }
}

/* The backward in two parts: I lets the stage before go on, W holds the slot. */
TEST(Schedule, BackwardInTwoParts)
{
    for (int P = 1; P <= 8; P++) {
        for (int m = P; m <= 4 * P; m++) {
            SCOPED_TRACE("P=" + std::to_string(P) + ", m=" + std::to_string(m));
            Table table = zero_bubble(P, m);
            ASSERT_EQ(TV_OK, tv_schedule_check(table.schedule(), P)) << tv_error_message();
            double bubble = -1;
            ASSERT_EQ(3.0 * m + P - 1, makespan_of(table, 1, 2, &bubble));
            ASSERT_NEAR((P - 1.0) / (3 * m + P - 1), bubble, 1e-15);
            for (int r = 0; r < P; r++)
                ASSERT_EQ(P, tv_schedule_peak_slots(table.schedule(), r));
        }
    }
}

TEST(Schedule, SimulationOfStagesThatWaitForEachOther)
{
    Table table(2, 1, 2);
    set_list(&table, 0, "F0 B0 F1 B1");
    set_list(&table, 1, "F0 F1 B0 B1");
    double makespan = -7, bubble = -7;
    EXPECT_EQ(TV_INVALID, tv_schedule_simulate(table.schedule(), 1, 2, &makespan, &bubble));
    EXPECT_EQ(-7, makespan);
    EXPECT_EQ(-7, bubble);
}
