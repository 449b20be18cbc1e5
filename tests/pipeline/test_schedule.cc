/* tests/pipeline/test_schedule.cc -- the lists of the schedules, and what a builder refuses. */
#include "pipeline/timing.h"
#include <functional>

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

TEST(Schedule, ListOfNaive)
{
    EXPECT_EQ("F0 SEND_F0>1 RECV_B0>1 B0 F1 SEND_F1>1 RECV_B1>1 B1",
              text_of(Table::built("naive", 2, 2).stages[0]));
}

TEST(Schedule, ListsOfZeroBubble)
{
    Table table = Table::built("zb-h1", 3, 4);
    EXPECT_EQ("F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3", text_of(table.stages[0], true));
    EXPECT_EQ("F0 I0 W0 F1 I1 F2 I2 F3 I3 W1 W2 W3", text_of(table.stages[2], true));
    table = Table::built("zb-h1", 3, 1); /* out of m = 3 */
    EXPECT_EQ("F0 I0 W0", text_of(table.stages[0], true));
    table = Table::built("zb-h2", 2, 3);
    EXPECT_EQ("F0 F1 F2 I0 W0 I1 W1 I2 W2", text_of(table.stages[0], true));
    EXPECT_EQ("F0 I0 F1 I1 F2 I2 W0 W1 W2", text_of(table.stages[1], true));
}

TEST(Schedule, ListsOfInterleaved)
{
    Table table = Table::built("interleaved", 2, 3, 2); /* one group of 3 */
    EXPECT_EQ("F0 F1 F2 F0.1 F1.1 F2.1 B0.1 B1.1 B2.1 B0 B1 B2", text_of(table.stages[0], true));
    EXPECT_EQ("F0 F1 F2 F0.1 B0.1 F1.1 B1.1 F2.1 B2.1 B0 B1 B2", text_of(table.stages[1], true));
    table = Table::built("interleaved", 2, 5, 2); /* groups of 3 and 2 */
    EXPECT_EQ("F0 F1 F2 F0.1 B0.1 F1.1 B1.1 F2.1 B2.1 F3 B0 F4 B1 F3.1 B2 F4.1 B3.1 B4.1 B3 B4",
              text_of(table.stages[1], true));
}

TEST(Schedule, ListsOfZeroBubbleV)
{
    Table table = Table::built("zb-v", 2, 3);
    EXPECT_EQ("F0 F1 F2 F0.1 I0.1 W0.1 F1.1 I1.1 W1.1 I0 W0 F2.1 I2.1 W2.1 I1 W1 I2 W2",
              text_of(table.stages[0], true));
    EXPECT_EQ("F0 F0.1 F1 F1.1 I0.1 W0.1 F2 I0 W0 F2.1 I1.1 W1.1 I1 I2.1 I2 W1 W2.1 W2",
              text_of(table.stages[1], true));
}

TEST(Schedule, ListsOfDualpipeV)
{
    Table table = Table::built("dualpipe-v", 2, 4);
    EXPECT_EQ("F0 F1 F2 F0.1 I0.1 W0.1 F1.1 F3+ B1.1 F2.1+ B0 B2.1 F3.1+ B1 B3.1 I2 W2 I3 W3",
              text_of(table.stages[0], true));
    EXPECT_EQ("F0 F0.1 F1 F1.1 F2 B0.1 F2.1+ B0 F3+ B1.1 F3.1+ B1 B2.1 B2 I3.1 I3 W3.1 W3",
              text_of(table.stages[1], true));
    table = Table::built("dualpipe-v", 2, 3); /* the pair of F3 and B1.1 has lost its first half */
    EXPECT_EQ("F0 F1 F2 F0.1 I0.1 W0.1 F1.1 B1.1 F2.1+ B0 B2.1 B1 I2 W2",
              text_of(table.stages[0], true));
}

TEST(Schedule, ListOfVHalf)
{
    EXPECT_EQ("F0 F0.1 F1 I0.1 W0.1 F1.1 I0 I1.1 W0 W1.1 I1 W1",
              text_of(Table::built("v-half", 2, 2).stages[0], true));
}

/* Half of a pair stays as a plain action. */
TEST(Schedule, Drop)
{
    const struct tv_schedule_args args = {"table", 1, 1, 3, 0};
    struct tv_schedule schedule = {};
    ASSERT_EQ(TV_OK, tv_schedule_alloc(&args, TV_PLACE_LOOP, 6, &schedule));
    Table whole(1, 1, 3);
    set_list(&whole, 0, "F2+ B0 F0+ B2 F1+ B1");
    for (const struct tv_action &a : whole.stages[0]) {
        tv_schedule_append(&schedule, 0, a.kind, a.chunk, a.micro);
        schedule.stages[0].actions[schedule.stages[0].num_actions - 1].is_paired = a.is_paired;
    }
    tv_schedule_drop(&schedule, 2);
    EXPECT_EQ("B0 F0 F1+ B1", text_of(Table(schedule).stages[0]));
    EXPECT_EQ(2, schedule.num_micro);
    tv_schedule_destroy(&schedule);
}

/* Every schedule, with each number of chunks up to 4 that it takes. */
static void for_all_schedules(const std::function<void(const std::string &name, int v)> &visit)
{
    for (int i = 0; tv_schedule_name(i) != nullptr; i++) {
        for (int v = 1; v <= 4; v++) {
            if (tv_schedule_check_chunks(tv_schedule_name(i), v) == TV_OK)
                visit(tv_schedule_name(i), v);
        }
    }
}

/* One stage: gradients of the weights micro-batch by micro-batch, the last chunk first. So a weight
 * that two chunks share sums the same bits under every schedule. */
TEST(Schedule, OneStageAddsInOneOrder)
{
    for_all_schedules([](const std::string &name, int v) {
        for (int m = 1; m <= 9; m++) {
            SCOPED_TRACE(size_text(name, 1, v, m));
            const Table table = Table::built(name.c_str(), 1, m, v);
            int num_weights = 0;
            for (const struct tv_action &a : table.stages[0]) {
                ASSERT_TRUE(tv_action_is_compute(a.kind));
                if (tv_action_makes_dw(a.kind)) {
                    ASSERT_EQ(num_weights++, a.micro * v + v - 1 - a.chunk);
                }
            }
            ASSERT_EQ(v * m, num_weights);
        }
    });
}

/* Each receive stands right before the action that needs it: on a channel of its own, each kind is
 * needed in the order in which it is sent. And each pair is a forward and a backward. */
TEST(Schedule, MessagesAreNeededInTheOrderInWhichTheyAreSent)
{
    for_all_schedules([](const std::string &name, int v) {
        for (int P = 1; P <= 8; P++) {
            for (int m = 1; m <= 3 * P + 2; m++) {
                SCOPED_TRACE(size_text(name, P, v, m));
                const Table table = Table::built(name.c_str(), P, m, v);
                ASSERT_TRUE(table.is_ordered);
                for (const std::vector<struct tv_action> &list : table.stages) {
                    for (size_t i = 0; i < list.size(); i++) {
                        const struct tv_action &a = list[i];
                        if (tv_action_is_recv(a.kind)) {
                            ASSERT_EQ(a.chunk, list[i + 1].chunk);
                            ASSERT_EQ(a.micro, list[i + 1].micro);
                        }
                        if (!a.is_paired)
                            continue;
                        while (!tv_action_is_compute(list[++i].kind)) {
                        }
                        ASSERT_EQ(TV_ACT_FORWARD, a.kind);
                        ASSERT_EQ(TV_ACT_BACKWARD, list[i].kind);
                        ASSERT_EQ(1 - a.chunk, list[i].chunk);
                    }
                }
            }
        }
    });
}

TEST(Schedule, ManyStagesAndMicroBatches)
{
    const int P = 64, m = 1024;
    EXPECT_EQ(3 * (m + P - 1), makespan_of(Table::built("1f1b", P, m)));
    EXPECT_EQ(6 * m + P - 1, makespan_of(Table::built("zb-v", P, m)));
    EXPECT_EQ(3 * (4 * m + P - 1), makespan_of(Table::built("interleaved", P, m, 4)));
}

static void expect_refused(const struct tv_schedule_args &args, const std::string &sentence)
{
    struct tv_schedule schedule = {};
    schedule.num_stages = -7;
    EXPECT_EQ(TV_INVALID, tv_schedule_build(&args, &schedule));
    EXPECT_EQ(sentence, tv_error_message());
    EXPECT_EQ(-7, schedule.num_stages);
}

TEST(Schedule, Names)
{
    std::string names;
    for (int i = 0; tv_schedule_name(i) != nullptr; i++) {
        names += (i > 0 ? ", " : "") + std::string(tv_schedule_name(i));
        EXPECT_TRUE(tv_schedule_is_known(tv_schedule_name(i)));
    }
    EXPECT_EQ(names, tv_schedule_names());
    EXPECT_EQ("naive, gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, v-half, v-min, dualpipe-v",
              names);
    EXPECT_EQ(nullptr, tv_schedule_name(-1));
    EXPECT_FALSE(tv_schedule_is_known("1f1B") || tv_schedule_is_known(""));
}

TEST(Schedule, Refusals)
{
    expect_refused({"zb", 2, 1, 2, 0},
                   std::string("schedule zb is not one of ") + tv_schedule_names());
    expect_refused({"1f1b", 0, 1, 2, 0}, "a schedule of 0 stages and 2 micro-batches");
    expect_refused({"1f1b", 2, 1, 0, 0}, "a schedule of 2 stages and 0 micro-batches");
    expect_refused({"1f1b", 2, 1, 1, -1}, "a schedule with -1 slots");
    expect_refused({"1f1b", 2, 1, 1 << 24, 0},
                   "2 stages, 1 chunks and 16777216 micro-batches are too many");
    expect_refused({"zb-v", 1 << 20, 2, 1, 0},
                   "1048576 stages, 2 chunks and 1 micro-batches are too many");
}

TEST(Schedule, Chunks)
{
    for_all_schedules([](const std::string &name, int v) {
        const bool is_v =
            name == "zb-v" || name == "v-half" || name == "v-min" || name == "dualpipe-v";
        const bool is_several = is_v || name == "interleaved";
        EXPECT_EQ(is_several ? 2 : 1, tv_schedule_default_chunks(name.c_str())) << name;
        EXPECT_EQ(is_v ? TV_PLACE_V : TV_PLACE_LOOP, tv_schedule_placement(name.c_str())) << name;
        EXPECT_TRUE(name == "interleaved" ? v >= 2 : v == 1 + is_v) << name;
    });
    expect_refused({"interleaved", 2, 1, 2, 0},
                   "schedule interleaved takes 2 or more chunks per stage, not 1");
    expect_refused({"zb-v", 2, 1, 2, 0}, "schedule zb-v takes 2 chunks per stage, not 1");
    expect_refused({"dualpipe-v", 2, 3, 2, 0},
                   "schedule dualpipe-v takes 2 chunks per stage, not 3");
    expect_refused({"1f1b", 2, 2, 2, 0}, "schedule 1f1b takes 1 chunk per stage, not 2");
    expect_refused({"zb-h2", 2, 0, 2, 0}, "schedule zb-h2 takes 1 chunk per stage, not 0");
}

/* Every schedule says how many slots it needs, and that many are enough. */
TEST(Schedule, SlotLimits)
{
    const struct {
        const char *name;
        int v, least; /* P = 4, m = 8 */
    } cases[] = {{"naive", 1, 1}, {"gpipe", 1, 8},     {"1f1b", 1, 4}, {"interleaved", 2, 8},
                 {"zb-h1", 1, 4}, {"zb-h2", 1, 4},     {"zb-v", 2, 8}, {"v-half", 2, 6},
                 {"v-min", 2, 4}, {"dualpipe-v", 2, 9}};
    for (const auto &c : cases) {
        Table table = Table::built(c.name, 4, 8, c.v, c.least);
        EXPECT_EQ(TV_OK, tv_schedule_check(table.schedule(), c.least));
        if (c.least > 1) /* limit 0 is no limit */
            expect_refused({c.name, 4, c.v, 8, c.least - 1},
                           std::string("schedule ") + c.name +
                               " with 4 stages and 8 micro-batches needs " +
                               std::to_string(c.least) + " slots; --slot-limit is " +
                               std::to_string(c.least - 1));
    }
    expect_refused(
        {"zb-h2", 4, 1, 2, 1},
        "schedule zb-h2 with 4 stages and 2 micro-batches needs 2 slots; --slot-limit is 1");
    const Table usual = Table::built("zb-h1", 4, 8), roomy = Table::built("zb-h1", 4, 8, 1, 7);
    for (size_t s = 0; s < 4; s++)
        EXPECT_EQ(text_of(usual.stages[s]), text_of(roomy.stages[s])); /* extra room is left */
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

TEST(Schedule, VPlacement)
{
    Table table(4, 2, 1, TV_PLACE_V);
    for (int r = 0; r < 4; r++) {
        EXPECT_EQ(r, tv_schedule_position(table.schedule(), r, 0));
        EXPECT_EQ(7 - r, tv_schedule_position(table.schedule(), r, 1));
        EXPECT_EQ(r, tv_schedule_stage_of(table.schedule(), 7 - r));
        EXPECT_EQ(1, tv_schedule_chunk_of(table.schedule(), 7 - r));
    }
    EXPECT_EQ(3, tv_schedule_neighbour(table.schedule(), 3, 0, 1));
    EXPECT_EQ(-1, tv_schedule_neighbour(table.schedule(), 0, 1, 1));
}

TEST(Schedule, MessagesBetweenChunksGoRound)
{
    Table table = Table::built("interleaved", 2, 1);
    EXPECT_EQ("F0 SEND_F0>1 RECV_F0.1>1 F0.1 SEND_F0.1>1 RECV_B0.1>1 B0.1 SEND_B0.1>1 RECV_B0>1 B0",
              text_of(table.stages[0]));
    EXPECT_EQ("RECV_F0>0 F0 SEND_F0>0 RECV_F0.1>0 F0.1 B0.1 SEND_B0.1>0 RECV_B0>0 B0 SEND_B0>0",
              text_of(table.stages[1]));
}
