/* tests/pipeline/test_schedule_check.cc -- broken schedules are refused, and the sentence names
 * where. */
#include "pipeline/timing.h"

static void expect_refused(Table &table, const std::string &sentence, int slot_limit = 0)
{
    EXPECT_EQ(TV_INVALID, tv_schedule_check(table.schedule(), slot_limit));
    EXPECT_EQ(sentence, tv_error_message());
}

/* Breakages of 1f1b with P=3, m=4, whose lists are in test_schedule.cc. */
struct Breakage {
    const char *name;
    void (*apply)(Table *table);
    const char *sentence; /* behind "schedule 1f1b: " */
};

static void PrintTo(const Breakage &breakage, std::ostream *out)
{
    *out << breakage.name;
}

static void swap_actions(Table *table, int stage, size_t a, size_t b)
{
    std::swap(table->stages[(size_t)stage][a], table->stages[(size_t)stage][b]);
}

static void erase(Table *table, int stage, tv_action_kind_t kind, int micro)
{
    std::vector<struct tv_action> &list = table->stages[(size_t)stage];
    list.erase(list.begin() + (long)table->find(stage, kind, micro));
}

static void repeat(Table *table, int stage, tv_action_kind_t kind, int micro)
{
    std::vector<struct tv_action> &list = table->stages[(size_t)stage];
    const size_t i = table->find(stage, kind, micro);
    list.insert(list.begin() + (long)i, list[i]);
}

static struct tv_action *at(Table *table, int stage, tv_action_kind_t kind, int micro)
{
    return &table->stages[(size_t)stage][table->find(stage, kind, micro)];
}

static const Breakage breakages[] = {
    {"BackwardBeforeForward", [](Table *t) { swap_actions(t, 2, 1, 2); },
     "stage 2, action 1: B of micro-batch 0, chunk 0: before its F"},
    {"ForwardBeforeItsInput", [](Table *t) { swap_actions(t, 1, 3, 4); },
     "stage 1, action 3: F of micro-batch 1, chunk 0: before its input was received"},
    {"BackwardBeforeItsGradient", [](Table *t) { swap_actions(t, 0, 6, 7); },
     "stage 0, action 6: B of micro-batch 0, chunk 0: before its gradient was received"},
    {"SendBeforeForward", [](Table *t) { swap_actions(t, 0, 2, 3); },
     "stage 0, action 2: SEND_F of micro-batch 1, chunk 0: before its F"},
    {"SendBeforeBackward", [](Table *t) { swap_actions(t, 2, 2, 3); },
     "stage 2, action 2: SEND_B of micro-batch 0, chunk 0: before its B or I"},
    {"MissingForward", [](Table *t) { erase(t, 2, TV_ACT_FORWARD, 3); },
     "stage 2, action 13: B of micro-batch 3, chunk 0: before its F"},
    {"MissingBackward", [](Table *t) { erase(t, 0, TV_ACT_BACKWARD, 3); },
     "stage 0: B of micro-batch 3, chunk 0 is missing"},
    {"MissingSendForward", [](Table *t) { erase(t, 0, TV_ACT_SEND_FORWARD, 2); },
     "stage 0: SEND_F of micro-batch 2, chunk 0 is missing"},
    {"MissingSendBackward", [](Table *t) { erase(t, 1, TV_ACT_SEND_BACKWARD, 3); },
     "stage 1: SEND_B of micro-batch 3, chunk 0 is missing"},
    {"MissingReceive", [](Table *t) { erase(t, 1, TV_ACT_RECV_FORWARD, 2); },
     "stage 1, action 9: F of micro-batch 2, chunk 0: before its input was received"},
    {"ForwardTwice", [](Table *t) { repeat(t, 1, TV_ACT_FORWARD, 2); },
     "stage 1, action 11: F of micro-batch 2, chunk 0: a second time"},
    {"BackwardTwice", [](Table *t) { repeat(t, 2, TV_ACT_BACKWARD, 1); },
     "stage 2, action 7: B of micro-batch 1, chunk 0: a second time"},
    {"SendTwice", [](Table *t) { repeat(t, 0, TV_ACT_SEND_FORWARD, 0); },
     "stage 0, action 2: SEND_F of micro-batch 0, chunk 0: a second time"},
    {"ReceiveTwice", [](Table *t) { repeat(t, 2, TV_ACT_RECV_FORWARD, 0); },
     "stage 2, action 1: RECV_F of micro-batch 0, chunk 0: a second time"},
    {"InputGradientAndBackward",
     [](Table *t) {
         t->stages[2].insert(t->stages[2].begin() + 3, {TV_ACT_BACKWARD_INPUT, 0, 0, -1, 0});
     },
     "stage 2, action 3: I of micro-batch 0, chunk 0: a second time"},
    {"WeightGradientBeforeInputGradient",
     [](Table *t) { at(t, 2, TV_ACT_BACKWARD, 0)->kind = TV_ACT_BACKWARD_WEIGHT; },
     "stage 2, action 2: W of micro-batch 0, chunk 0: before its I"},
    {"MissingWeightGradient",
     [](Table *t) { at(t, 2, TV_ACT_BACKWARD, 1)->kind = TV_ACT_BACKWARD_INPUT; },
     "stage 2: W of micro-batch 1, chunk 0 is missing"},
    {"BackwardsDescend",
     [](Table *t) { /* the last two backwards of stage 0, with their receives */
                    swap_actions(t, 0, 12, 14);
                    swap_actions(t, 0, 13, 15);
     },
     "stage 0, action 15: B of micro-batch 2, chunk 0: backwards of a chunk must ascend"},
    {"WrongPeer", [](Table *t) { at(t, 0, TV_ACT_SEND_FORWARD, 1)->peer = 2; },
     "stage 0, action 3: SEND_F of micro-batch 1, chunk 0: a message with the wrong stage"},
    {"NoPeer", [](Table *t) { at(t, 1, TV_ACT_RECV_BACKWARD, 0)->peer = -1; },
     "stage 1, action 6: RECV_B of micro-batch 0, chunk 0: a message with the wrong stage"},
    {"PeerThatIsNotThere", [](Table *t) { at(t, 2, TV_ACT_RECV_FORWARD, 0)->peer = 99; },
     "stage 2, action 0: RECV_F of micro-batch 0, chunk 0: a message with the wrong stage"},
    {"ReceiveAtTheFirstStage",
     [](Table *t) {
         t->stages[0].insert(t->stages[0].begin(), {TV_ACT_RECV_FORWARD, 0, 0, -1, 0});
     },
     "stage 0, action 0: RECV_F of micro-batch 0, chunk 0: a message with the wrong stage"},
    {"SendAtTheLastStage",
     [](Table *t) {
         t->stages[2].push_back({TV_ACT_SEND_FORWARD, 0, 0, 0, 0});
     },
     "stage 2, action 16: SEND_F of micro-batch 0, chunk 0: a message with the wrong stage"},
    {"MicroBatchTooLarge", [](Table *t) { at(t, 1, TV_ACT_FORWARD, 3)->micro = 4; },
     "stage 1, action 16: F of micro-batch 4, chunk 0: no such micro-batch or chunk"},
    {"MicroBatchNegative", [](Table *t) { at(t, 0, TV_ACT_FORWARD, 0)->micro = -1; },
     "stage 0, action 0: F of micro-batch -1, chunk 0: no such micro-batch or chunk"},
    {"ChunkTooLarge", [](Table *t) { at(t, 2, TV_ACT_BACKWARD, 0)->chunk = 1; },
     "stage 2, action 2: B of micro-batch 0, chunk 1: no such micro-batch or chunk"},
    {"UnknownKind", [](Table *t) { at(t, 1, TV_ACT_FORWARD, 0)->kind = (tv_action_kind_t)99; },
     "stage 1, action 1: unknown kind 99"},
    {"SendsSwapped", /* F0 F1 SEND_F1 SEND_F0 */
     [](Table *t) {
         swap_actions(t, 0, 1, 2);
         swap_actions(t, 0, 2, 3);
     },
     "stage 1, action 0: RECV_F of micro-batch 0, chunk 0: does not match the order in which its "
     "peer sends"},
    {"ReceivesSwapped", /* the receiver takes micro-batch 1 first */
     [](Table *t) {
         set_list(t, 2,
                  "RECV_F1>1 RECV_F0>1 F0 B0 SEND_B0>1 F1 B1 SEND_B1>1 RECV_F2>1 F2 B2 SEND_B2>1 "
                  "RECV_F3>1 F3 B3 SEND_B3>1");
     },
     "stage 2, action 0: RECV_F of micro-batch 1, chunk 0: does not match the order in which its "
     "peer sends"},
    {"GradientsSwapped",
     [](Table *t) {
         set_list(t, 2,
                  "RECV_F0>1 F0 RECV_F1>1 F1 B0 B1 SEND_B1>1 SEND_B0>1 RECV_F2>1 F2 B2 SEND_B2>1 "
                  "RECV_F3>1 F3 B3 SEND_B3>1");
     },
     "stage 2, action 6: SEND_B of micro-batch 1, chunk 0: gradients are sent in the order in "
     "which "
     "they are made"},
    {"CrossingOrders", /* stage 0 wants a gradient before it sends what the gradient needs */
     [](Table *t) {
         std::vector<struct tv_action> &list = t->stages[0];
         std::rotate(list.begin() + 1, list.begin() + 6, list.begin() + 7);
     },
     "stage 0, action 1: RECV_B of micro-batch 0, chunk 0: waits for ever: the stages wait for "
     "each "
     "other"},
};

class ScheduleCheck : public testing::TestWithParam<Breakage>
{
};

TEST_P(ScheduleCheck, Refuses)
{
    Table table = Table::built("1f1b", 3, 4);
    ASSERT_EQ(TV_OK, tv_schedule_check(table.schedule(), 0)) << tv_error_message();
    GetParam().apply(&table);
    expect_refused(table, std::string("schedule 1f1b: ") + GetParam().sentence);
}

INSTANTIATE_TEST_SUITE_P(Broken, ScheduleCheck, testing::ValuesIn(breakages),
                         [](const auto &test) { return std::string(test.param.name); });

/* Each stage is right by itself, together they stand still: the warm-up of stage 0 is too short. */
TEST(ScheduleCheckTogether, StagesThatWaitForEachOther)
{
    Table compute(2, 1, 2);
    set_list(&compute, 0, "F0 B0 F1 B1");
    set_list(&compute, 1, "F0 F1 B0 B1");
    Table table = compute.lowered();
    expect_refused(table, "schedule table: stage 0, action 2: RECV_B of micro-batch 0, chunk 0: "
                          "waits for ever: the stages wait for each other");
    set_list(&compute, 1, "F0 B0 F1 B1");
    table = compute.lowered();
    EXPECT_EQ(TV_OK, tv_schedule_check(table.schedule(), 1)) << tv_error_message();
}

/* Where two neighbouring positions are on one stage there is no message, but still an order. */
TEST(ScheduleCheckTogether, ChunksOfOneStage)
{
    Table table(1, 2, 1);
    set_list(&table, 0, "F0.1 F0 B0.1 B0");
    expect_refused(table, "schedule table: stage 0, action 0: F of micro-batch 0, chunk 1: before "
                          "its input was made");
    set_list(&table, 0, "F0 F0.1 B0 B0.1");
    expect_refused(table, "schedule table: stage 0, action 2: B of micro-batch 0, chunk 0: before "
                          "its gradient was made");
    set_list(&table, 0, "F0 F0.1 B0.1 B0");
    EXPECT_EQ(TV_OK, tv_schedule_check(table.schedule(), 2)) << tv_error_message();
}

/* A message of the right stages and micro-batch, but of another chunk. */
TEST(ScheduleCheckTogether, ChunksSwappedUnderWay)
{
    Table table = interleaved(2, 2, 1, 2);
    set_list(&table, 1,
             "RECV_F0.1>0 RECV_F0>0 F0 SEND_F0>0 F0.1 B0.1 SEND_B0.1>0 RECV_B0>0 B0 SEND_B0>0");
    expect_refused(table, "schedule table: stage 1, action 0: RECV_F of micro-batch 0, chunk 1: "
                          "does not match the order in which its peer sends");
}

TEST(ScheduleCheckTogether, SlotLimit)
{
    Table table = Table::built("1f1b", 3, 4);
    EXPECT_EQ(TV_OK, tv_schedule_check(table.schedule(), 3));
    expect_refused(table,
                   "schedule 1f1b: stage 0, action 4: F of micro-batch 2, chunk 0: more slots than "
                   "the limit",
                   2);
}

TEST(ScheduleCheckTogether, EmptyExtents)
{
    Table table(1, 1, 0);
    expect_refused(table, "schedule table: 1 stages, 1 chunks, 0 micro-batches");
    Table nothing(0, 1, 1);
    expect_refused(nothing, "schedule table: 0 stages, 1 chunks, 1 micro-batches");
}

/* No action can be left out or done twice. */
TEST(ScheduleCheckTogether, EveryActionCountsOnce)
{
    for (const char *name : {"naive", "gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v",
                             "v-half", "dualpipe-v"}) {
        for (int P = 1; P <= 3; P++) {
            for (int m = 1; m <= 5; m++) {
                const Table whole = Table::built(name, P, m);
                for (size_t s = 0; s < (size_t)P; s++) {
                    for (size_t i = 0; i < whole.stages[s].size(); i++) {
                        Table without = whole, twice = whole;
                        without.stages[s].erase(without.stages[s].begin() + (long)i);
                        twice.stages[s].push_back(whole.stages[s][i]);
                        ASSERT_EQ(TV_INVALID, tv_schedule_check(without.schedule(), 0));
                        ASSERT_EQ(TV_INVALID, tv_schedule_check(twice.schedule(), 0));
                    }
                }
            }
        }
    }
}

/* ---- the backward in two parts ---- */

/* Breakages of "F0 F1 I0 I1 W0 W1" on one stage. */
TEST(ScheduleCheckParts, Refuses)
{
    const struct {
        const char *list, *sentence;
    } cases[] = {
        {"F0 F1 W0 I0 I1 W1", "stage 0, action 2: W of micro-batch 0, chunk 0: before its I"},
        {"I0 F0 F1 I1 W0 W1", "stage 0, action 0: I of micro-batch 0, chunk 0: before its F"},
        {"F0 F1 I0 I1 I0 W0 W1", "stage 0, action 4: I of micro-batch 0, chunk 0: a second time"},
        {"F0 F1 I0 I1 W0 W1 W0", "stage 0, action 6: W of micro-batch 0, chunk 0: a second time"},
        {"F0 F1 I0 I1 W0", "stage 0: W of micro-batch 1, chunk 0 is missing"},
        {"F0 F1 I0 W0", "stage 0: B of micro-batch 1, chunk 0 is missing"},
        {"F0 F1 B0 W0 I1 W1", "stage 0, action 3: W of micro-batch 0, chunk 0: before its I"},
        {"F0 F1 I0 B0 W0 B1", "stage 0, action 3: B of micro-batch 0, chunk 0: a second time"},
        {"F0 F1 I1 I0 W0 W1",
         "stage 0, action 3: I of micro-batch 0, chunk 0: backwards of a chunk must ascend"},
        {"F0 F1 I0 I1 W1 W0",
         "stage 0, action 5: W of micro-batch 0, chunk 0: weight gradients of a chunk must ascend"},
        {"F0 F1 I0 B1 W0",
         "stage 0, action 4: W of micro-batch 0, chunk 0: weight gradients of a chunk must ascend"},
    };
    Table table(1, 1, 2);
    for (const auto &c : cases) {
        set_list(&table, 0, c.list);
        expect_refused(table, std::string("schedule table: ") + c.sentence);
    }
}

TEST(ScheduleCheckParts, MayBeMixedWithWholeBackwards)
{
    Table table(1, 1, 3);
    set_list(&table, 0, "F0 B0 F1 F2 I1 W1 B2");
    EXPECT_EQ(TV_OK, tv_schedule_check(table.schedule(), 2)) << tv_error_message();
}

/* A schedule from a file may do its backwards in any order. */
TEST(ScheduleCheckParts, OrderIsOnlyABuildersPromise)
{
    Table table(1, 1, 2);
    table.is_ordered = false;
    for (const char *list : {"F0 F1 I1 I0 W0 W1", "F0 F1 I0 I1 W1 W0", "F0 F1 B1 B0"}) {
        set_list(&table, 0, list);
        EXPECT_EQ(TV_OK, tv_schedule_check(table.schedule(), 0)) << tv_error_message();
    }
}

/* W holds the slot. */
TEST(ScheduleCheckParts, SlotsUntilTheWeightGradient)
{
    Table table = Table::built("zb-h1", 3, 4);
    EXPECT_EQ(TV_OK, tv_schedule_check(table.schedule(), 3));
    expect_refused(
        table,
        "schedule zb-h1: stage 0, action 4: F of micro-batch 2, chunk 0: more slots than "
        "the limit",
        2);
}

/* ---- several chunks ---- */

/* The lists of one placement under the other. */
TEST(ScheduleCheckChunks, WrongPlacement)
{
    Table table = Table::built("zb-v", 2, 3);
    table.position_of = {0, 2, 1, 3};
    expect_refused(table, "schedule zb-v: stage 0, action 8: I of micro-batch 0, chunk 1: before "
                          "its gradient was received");
    table = Table::built("interleaved", 2, 1);
    table.position_of = {0, 3, 1, 2};
    expect_refused(table, "schedule interleaved: stage 0, action 4: SEND_F of micro-batch 0, "
                          "chunk 1: a message with the wrong stage");
}

/* A stage may want messages in another order than they are sent in, if it takes them in that order. */
TEST(ScheduleCheckChunks, MessagesThatOvertake)
{
    Table compute(2, 1, 2);
    compute.is_ordered = false;
    set_list(&compute, 0, "F0 F1 B1 B0");
    set_list(&compute, 1, "F1 F0 B1 B0");
    Table table = compute.lowered();
    EXPECT_EQ("RECV_F0>0 RECV_F1>0 F1 F0 B1 SEND_B1>0 B0 SEND_B0>0", text_of(table.stages[1]));
    EXPECT_EQ(TV_OK, tv_schedule_check(table.schedule(), 0)) << tv_error_message();
    set_list(&table, 1, "RECV_F1>0 F1 RECV_F0>0 F0 B1 SEND_B1>0 B0 SEND_B0>0");
    expect_refused(table, "schedule table: stage 1, action 0: RECV_F of micro-batch 1, chunk 0: "
                          "does not match the order in which its peer sends");
}

static std::vector<int> groups_of(int P, int m)
{
    std::vector<int> sizes((size_t)(m / P), P);
    if (m % P > 0)
        sizes.push_back(m % P);
    return sizes;
}

/* Groups of P and a short last one: the usual warm-up stands still, the lean one is only late. */
TEST(ScheduleCheckChunks, ShortLastGroup)
{
    const int cases[][3] = {{4, 3, 5},  {4, 3, 9},  {4, 3, 13}, {5, 2, 7},
                            {8, 2, 10}, {8, 2, 11}, {8, 2, 12}, {8, 2, 13}};
    for (const auto &[P, v, m] : cases) {
        SCOPED_TRACE(size_text("groups of P", P, v, m));
        Table usual = interleaved_groups(P, v, groups_of(P, m), 2, P);
        EXPECT_EQ(TV_INVALID, tv_schedule_check(usual.schedule(), 0));
        EXPECT_NE(std::string::npos, std::string(tv_error_message()).find("waits for ever"));
        Table lean = interleaved_groups(P, v, groups_of(P, m), 1, P);
        EXPECT_EQ(TV_OK, tv_schedule_check(lean.schedule(), 0)) << tv_error_message();
    }
    EXPECT_EQ(140, makespan_of(interleaved_groups(8, 3, groups_of(8, 9), 1, 8)));
    EXPECT_EQ(102, makespan_of(Table::built("interleaved", 8, 9, 3)));
}

/* Groups larger than P need a warm-up of their size. */
TEST(ScheduleCheckChunks, WarmupFromPUnderLargerGroups)
{
    Table table = interleaved_groups(4, 2, {6}, 1, 4);
    EXPECT_EQ(TV_INVALID, tv_schedule_check(table.schedule(), 0));
    EXPECT_NE(std::string::npos, std::string(tv_error_message()).find("before its F"));
}
