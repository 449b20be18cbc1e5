// The builders against the closed forms: makespan, bubble, slots, for every P <= 8 and m <= 4P.
#include "pipeline/schedule.h"
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <string>

namespace
{
struct Built {
    tv_schedule schedule = {};
    Built(const char *name, int P, int m)
    {
        EXPECT_EQ(tv_schedule_build(name, P, m, &schedule), TV_OK) << tv_error_message();
    }
    ~Built()
    {
        tv_schedule_destroy(&schedule);
    }
    Built(const Built &) = delete;
    Built &operator=(const Built &) = delete;
};

std::string compute_line(const tv_schedule &schedule, int stage)
{
    std::string line;
    for (int i = 0; i < schedule.stages[stage].num_actions; i++) {
        const tv_action &a = schedule.stages[stage].actions[i];
        if (a.kind <= TV_ACT_BACKWARD_WEIGHT)
            line += std::string(line.empty() ? "" : " ") + tv_action_kind_name(a.kind) +
                    std::to_string(a.micro);
    }
    return line;
}
} // namespace

TEST(Schedule, EveryListIsCompleteAndExecutable)
{
    for (const char *name : {"gpipe", "1f1b"})
        for (int P = 1; P <= 8; P++)
            for (int m = 1; m <= 4 * P; m++) {
                Built b(name, P, m);
                EXPECT_EQ(tv_schedule_check(&b.schedule, 0), TV_OK) << tv_error_message();
                EXPECT_EQ(b.schedule.num_stages, P);
                EXPECT_EQ(b.schedule.num_micro, m);
            }
}

TEST(Schedule, MakespanAndBubbleAreTheClosedForms)
{
    for (const char *name : {"gpipe", "1f1b"})
        for (int P = 1; P <= 8; P++)
            for (int m = 1; m <= 4 * P; m++) {
                Built b(name, P, m);
                double makespan = 0, bubble = 0;
                ASSERT_EQ(tv_schedule_simulate(&b.schedule, 1, 2, &makespan, &bubble), TV_OK);
                EXPECT_EQ(makespan, 3.0 * (m + P - 1)) << name << " P=" << P << " m=" << m;
                EXPECT_NEAR(bubble, (P - 1.0) / (m + P - 1.0), 1e-12);
            }
}

TEST(Schedule, SlotsAreTheClosedFormsAndTheCheckerHoldsThem)
{
    for (int P = 1; P <= 8; P++)
        for (int m = 1; m <= 4 * P; m++) {
            Built gpipe("gpipe", P, m), one("1f1b", P, m);
            for (int r = 0; r < P; r++) {
                EXPECT_EQ(tv_schedule_peak_slots(&gpipe.schedule, r), m);
                EXPECT_EQ(tv_schedule_peak_slots(&one.schedule, r), std::min(P - r, m));
            }
            EXPECT_EQ(tv_schedule_check(&one.schedule, std::min(P, m)), TV_OK);
            if (std::min(P, m) > 1) {
                EXPECT_EQ(tv_schedule_check(&one.schedule, std::min(P, m) - 1), TV_INVALID);
                EXPECT_NE(std::string(tv_error_message()).find("slots"), std::string::npos);
            }
        }
}

TEST(Schedule, OrdersAreTheWrittenOnes)
{
    Built one("1f1b", 4, 5), gpipe("gpipe", 2, 3), few("1f1b", 4, 2);
    EXPECT_EQ(compute_line(one.schedule, 0), "F0 F1 F2 F3 B0 F4 B1 B2 B3 B4");
    EXPECT_EQ(compute_line(one.schedule, 2), "F0 F1 B0 F2 B1 F3 B2 F4 B3 B4");
    EXPECT_EQ(compute_line(one.schedule, 3), "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4");
    EXPECT_EQ(compute_line(gpipe.schedule, 1), "F0 F1 F2 B0 B1 B2");
    EXPECT_EQ(compute_line(few.schedule, 0), "F0 F1 B0 B1");
}

TEST(Schedule, MessagesSurroundTheComputeThatNeedsThem)
{
    Built b("1f1b", 3, 1);
    const tv_action_list &middle = b.schedule.stages[1];
    const tv_action_kind_t want[] = {TV_ACT_RECV_FORWARD,  TV_ACT_FORWARD,  TV_ACT_SEND_FORWARD,
                                     TV_ACT_RECV_BACKWARD, TV_ACT_BACKWARD, TV_ACT_SEND_BACKWARD};
    const int peers[] = {0, -1, 2, 2, -1, 0};
    ASSERT_EQ(middle.num_actions, 6);
    for (int i = 0; i < 6; i++) {
        EXPECT_EQ(middle.actions[i].kind, want[i]);
        EXPECT_EQ(middle.actions[i].peer, peers[i]);
    }
    Built alone("gpipe", 1, 3);
    EXPECT_EQ(alone.schedule.stages[0].num_actions, 6); // no messages to itself
}

TEST(Schedule, NamesAndSizesAreChecked)
{
    tv_schedule schedule = {};
    EXPECT_EQ(tv_schedule_build("zb-h9", 2, 2, &schedule), TV_INVALID);
    EXPECT_NE(std::string(tv_error_message()).find("gpipe, 1f1b"), std::string::npos);
    EXPECT_EQ(tv_schedule_build("1f1b", 0, 2, &schedule), TV_INVALID);
    EXPECT_EQ(tv_schedule_build("1f1b", 2, 0, &schedule), TV_INVALID);
    EXPECT_EQ(tv_schedule_build("1f1b", 2, -5, &schedule), TV_INVALID);
    EXPECT_EQ(schedule.stages, nullptr);
    EXPECT_TRUE(tv_schedule_is_known("1f1b"));
    EXPECT_FALSE(tv_schedule_is_known("1F1B"));
}
