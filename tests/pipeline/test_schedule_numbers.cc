/* tests/pipeline/test_schedule_numbers.cc -- the schedules against published and computed numbers:
 * makespans, bubbles, slots, other costs, messages that take time. */
#include "pipeline/timing.h"
#include <random>

/* A table's row: m = P, 3P/2, 2P, 5P/2, 4P. */
struct Row {
    const char *name;
    int P, v;
    bool joins_pairs;
    double makespan[5], bubble[5];
    double own_bubble[5];                /* largest of a stage in its own window; -1: the bubble */
    std::vector<int> slots, slots_input; /* at 4P, by stage; slots_input empty: the same */
};

/* "Same as the bubble." */
#define SAME                                                                                       \
    {                                                                                              \
        -1, -1, -1, -1, -1                                                                         \
    }

static std::vector<int> times(int count, int number)
{
    return std::vector<int>((size_t)count, number);
}

/* from, from - step, ..: one per stage. */
static std::vector<int> down(int P, int from, int step)
{
    std::vector<int> numbers;
    for (int r = 0; r < P; r++)
        numbers.push_back(from - step * r);
    return numbers;
}

static const Row rows[] = {{"naive",
                            4,
                            1,
                            false,
                            {48, 72, 96, 120, 192},
                            {.75, .75, .75, .75, .75},
                            SAME,
                            times(4, 1),
                            {}},
                           {"naive",
                            8,
                            1,
                            false,
                            {192, 288, 384, 480, 768},
                            {.875, .875, .875, .875, .875},
                            SAME,
                            times(8, 1),
                            {}},
                           {"gpipe",
                            4,
                            1,
                            false,
                            {21, 27, 33, 39, 57},
                            {.4286, .3333, .2727, .2308, .1579},
                            SAME,
                            times(4, 16),
                            {}},
                           {"gpipe",
                            8,
                            1,
                            false,
                            {45, 57, 69, 81, 117},
                            {.4667, .3684, .3043, .2593, .1795},
                            SAME,
                            times(8, 32),
                            {}},
                           {"1f1b",
                            4,
                            1,
                            false,
                            {21, 27, 33, 39, 57},
                            {.4286, .3333, .2727, .2308, .1579},
                            SAME,
                            {4, 3, 2, 1},
                            {}},
                           {"1f1b",
                            8,
                            1,
                            false,
                            {45, 57, 69, 81, 117},
                            {.4667, .3684, .3043, .2593, .1795},
                            SAME,
                            down(8, 8, 1),
                            {}},
                           {"interleaved",
                            4,
                            2,
                            false,
                            {33, 45, 57, 69, 105},
                            {.2727, .2000, .1579, .1304, .0857},
                            SAME,
                            {11, 9, 7, 5},
                            {}},
                           {"interleaved",
                            4,
                            3,
                            false,
                            {45, 63, 81, 99, 153},
                            {.2000, .1429, .1111, .0909, .0588},
                            SAME,
                            {15, 13, 11, 9},
                            {}},
                           {"interleaved",
                            8,
                            2,
                            false,
                            {69, 93, 117, 141, 213},
                            {.3043, .2258, .1795, .1489, .0986},
                            SAME,
                            down(8, 23, 2),
                            {}},
                           {"interleaved",
                            8,
                            3,
                            false,
                            {93, 129, 165, 201, 309},
                            {.2258, .1628, .1273, .1045, .0680},
                            SAME,
                            down(8, 31, 2),
                            {}},
                           {"zb-h1",
                            4,
                            1,
                            false,
                            {15, 21, 27, 33, 51},
                            {.2000, .1429, .1111, .0909, .0588},
                            SAME,
                            times(4, 4),
                            {4, 3, 2, 1}},
                           {"zb-h1",
                            8,
                            1,
                            false,
                            {31, 43, 55, 67, 103},
                            {.2258, .1628, .1273, .1045, .0680},
                            SAME,
                            times(8, 8),
                            down(8, 8, 1)},
                           {"zb-h2",
                            4,
                            1,
                            false,
                            {15, 21, 27, 33, 51},
                            {.2000, .1429, .1111, .0909, .0588},
                            {.2000, .0526, 0, 0, 0},
                            times(4, 7),
                            {7, 5, 3, 1}},
                           {"zb-h2",
                            8,
                            1,
                            false,
                            {31, 43, 55, 67, 103},
                            {.2258, .1628, .1273, .1045, .0680},
                            {.2258, .0769, 0, 0, 0},
                            times(8, 15),
                            down(8, 15, 2)},
                           {"zb-v",
                            4,
                            2,
                            false,
                            {30, 39, 51, 63, 99},
                            {.2000, .0769, .0588, .0476, .0303},
                            {.2000, .0526, 0, 0, 0},
                            times(4, 8),
                            {}},
                           {"zb-v",
                            8,
                            2,
                            false,
                            {62, 79, 103, 127, 199},
                            {.2258, .0886, .0680, .0551, .0352},
                            {.2258, .0769, 0, 0, 0},
                            times(8, 16),
                            {}},
                           {"dualpipe-v",
                            4,
                            2,
                            false,
                            {33, 43, 51, 63, 99},
                            {.2727, .1628, .0588, .0476, .0303},
                            SAME,
                            times(4, 9),
                            {}},
                           {"dualpipe-v",
                            4,
                            2,
                            true,
                            {33, 46, 54, 66, 102},
                            {.2727, .2174, .1111, .0909, .0588},
                            SAME,
                            times(4, 9),
                            {}},
                           {"dualpipe-v",
                            8,
                            2,
                            false,
                            {69, 87, 103, 127, 199},
                            {.3043, .1724, .0680, .0551, .0352},
                            SAME,
                            times(8, 17),
                            {}},
                           {"dualpipe-v",
                            8,
                            2,
                            true,
                            {69, 94, 110, 134, 206},
                            {.3043, .2340, .1273, .1045, .0680},
                            SAME,
                            times(8, 17),
                            {}},
                           {"v-half",
                            4,
                            2,
                            false,
                            {36, 48, 60, 72, 108},
                            {.3333, .2500, .2000, .1667, .1111},
                            SAME,
                            {},
                            {}},
                           {"v-half",
                            8,
                            2,
                            false,
                            {74, 98, 122, 146, 218},
                            {.3514, .2653, .2131, .1781, .1193},
                            SAME,
                            {},
                            {}},
                           {"v-min",
                            4,
                            2,
                            false,
                            {35, 47, 59, 71, 107},
                            {.3143, .2340, .1864, .1549, .1028},
                            SAME,
                            {},
                            {}},
                           {"v-min",
                            8,
                            2,
                            false,
                            {75, 99, 123, 147, 219},
                            {.3600, .2727, .2195, .1837, .1233},
                            SAME,
                            {},
                            {}}};

TEST(ScheduleNumbers, Tables)
{
    for (const Row &row : rows) {
        for (int k = 0; k < 5; k++) {
            const int m = std::vector<int>{2, 3, 4, 5, 8}[(size_t)k] * row.P / 2;
            SCOPED_TRACE(size_text(row.name, row.P, row.v, m));
            Table table = Table::built(row.name, row.P, m, row.v);
            Costs costs;
            costs.joins_pairs = row.joins_pairs;
            const Timing timing(table, costs);
            EXPECT_EQ(row.makespan[k], timing.makespan);
            EXPECT_NEAR(row.bubble[k], timing.bubble_fraction, 5e-5);
            const double own = row.own_bubble[k];
            EXPECT_NEAR(own < 0 ? row.bubble[k] : own, timing.largest_own_bubble(), 5e-5);
            for (int r = 0; k == 4 && r < (int)row.slots.size(); r++) {
                EXPECT_EQ(row.slots[(size_t)r], timing.stages[r].peak_slots);
                EXPECT_EQ((row.slots_input.empty() ? row.slots : row.slots_input)[(size_t)r],
                          timing.stages[r].peak_slots_input);
            }
        }
    }
}

static std::vector<int> slots_of(Table table)
{
    std::vector<int> slots;
    for (int r = 0; r < (int)table.stages.size(); r++)
        slots.push_back(tv_schedule_peak_slots(table.schedule(), r));
    return slots;
}

TEST(ScheduleNumbers, SlotsOfTwoChunks)
{
    EXPECT_EQ((std::vector<int>{5, 6, 7, 8}), slots_of(Table::built("zb-v", 4, 4)));
    EXPECT_EQ((std::vector<int>{9, 10, 11, 12, 13, 14, 15, 16}),
              slots_of(Table::built("zb-v", 8, 8)));
    for (const auto &row : std::vector<std::tuple<const char *, int, int>>{
             {"v-half", 4, 6}, {"v-half", 8, 10}, {"v-min", 4, 4}, {"v-min", 8, 8}}) {
        const std::vector<int> slots =
            slots_of(Table::built(std::get<0>(row), std::get<1>(row), 4 * std::get<1>(row)));
        EXPECT_EQ(std::get<2>(row), *std::max_element(slots.begin(), slots.end()));
    }
}

TEST(ScheduleNumbers, SlotsOfInterleaved)
{
    EXPECT_EQ((std::vector<int>{8, 7, 6, 5}), slots_of(Table::built("interleaved", 4, 16, 2, 8)));
    EXPECT_EQ((std::vector<int>{12, 11, 10, 9}),
              slots_of(Table::built("interleaved", 4, 16, 3, 12)));
    EXPECT_EQ(down(8, 16, 1), slots_of(Table::built("interleaved", 8, 32, 2, 16)));
    EXPECT_EQ(down(8, 24, 1), slots_of(Table::built("interleaved", 8, 32, 3, 24)));
    const struct {
        int P, m, lean, usual;
    } cases[] = {{4, 6, 10, 12}, {4, 10, 9, 12}, {8, 12, 20, 24}, {8, 20, 18, 25}};
    for (const auto &c : cases) {
        EXPECT_EQ(c.usual, slots_of(Table::built("interleaved", c.P, c.m, 2))[0]);
        EXPECT_EQ(c.lean, slots_of(Table::built("interleaved", c.P, c.m, 2, c.lean))[0]);
    }
    EXPECT_EQ(69, makespan_of(Table::built("interleaved", 4, 10, 2)));
    EXPECT_EQ(75, makespan_of(Table::built("interleaved", 4, 10, 2, 8)));
}

TEST(ScheduleNumbers, ZeroBubbleWithFewerMicroBatchesThanStages)
{
    const double makespans[] = {9, 11, 13};
    const double idle[][4] = {{6, 4, 2, 0}, {5, 4, 2, 0}, {4, 3, 2, 0}};
    for (int m = 1; m <= 3; m++) {
        Table table = Table::built("zb-h2", 4, m);
        const Timing timing(table);
        EXPECT_EQ(makespans[m - 1], timing.makespan);
        for (int r = 0; r < 4; r++)
            EXPECT_EQ(idle[m - 1][r], timing.stages[r].wait) << "m=" << m << ", stage " << r;
    }
}

TEST(ScheduleNumbers, ZeroBubbleAgainst1f1b)
{
    const struct {
        int P, m;
        double ratio;
    } cases[] = {{4, 4, .4667}, {4, 16, .3725}, {8, 8, .4839}, {8, 32, .3786}};
    for (const auto &c : cases) {
        Table split = Table::built("zb-h1", c.P, c.m), whole = Table::built("1f1b", c.P, c.m);
        EXPECT_NEAR(c.ratio, Timing(split).bubble_fraction / Timing(whole).bubble_fraction, 5e-5);
    }
}

/* What the makespan is above the work of a stage. */
static double excess(const char *name, int P, int m, const Costs &costs)
{
    const double work = costs.forward + costs.backward_input + costs.backward_weight;
    return makespan_of(Table::built(name, P, m), costs) -
           tv_schedule_default_chunks(name) * m * work;
}

TEST(ScheduleNumbers, UnequalCosts)
{
    Costs costs;
    costs.forward = 2, costs.backward_input = 3, costs.backward_weight = 2;
    Table table = Table::built("zb-v", 4, 16);
    const Timing timing(table, costs);
    EXPECT_EQ(9, timing.makespan - 2 * 16 * 7);
    double idle = 0;
    for (int r = 0; r < 4; r++)
        idle = std::max(idle, timing.stages[r].wait);
    EXPECT_EQ(6, idle);

    costs.forward = 2, costs.backward_input = 2, costs.backward_weight = 1;
    EXPECT_EQ(53, excess("v-min", 4, 16, costs));
    EXPECT_EQ(26, excess("v-half", 4, 16, costs));
    EXPECT_EQ(30, 2 * excess("1f1b", 4, 16, costs)); /* in units of half a stage */
}

TEST(ScheduleNumbers, RandomIntegerCosts)
{
    std::mt19937 random(12345);
    auto draw = [&](int least, int most) {
        return least + (int)(random() % (unsigned)(most - least + 1));
    };
    for (int k = 0; k < 400; k++) {
        const int P = draw(1, 8), m = draw(P, 4 * P), v = draw(2, 4);
        const int f = draw(1, 9), b = draw(0, 9), w = draw(0, 9), all = f + b + w;
        const Costs costs = {(double)f, (double)b, (double)w, 0, false};
        SCOPED_TRACE(size_text("costs " + std::to_string(f) + ", " + std::to_string(b) + ", " +
                                   std::to_string(w),
                               P, v, m));
        ASSERT_EQ(all * (m + P - 1), makespan_of(Table::built("gpipe", P, m), costs));
        ASSERT_EQ(all * (m + P - 1), makespan_of(Table::built("1f1b", P, m), costs));
        ASSERT_EQ(all * (v * m + P - 1), makespan_of(interleaved(P, v, m, 2), costs));
        ASSERT_EQ(all * (v * m + P - 1), makespan_of(interleaved(P, v, m, 1), costs));
        if (w > f)
            continue;
        ASSERT_EQ(all * m + (P - 1) * (f + std::max(0, b - w)),
                  makespan_of(Table::built("zb-h1", P, m), costs));
        if (m < 2 * P - 1)
            continue;
        Table h2 = Table::built("zb-h2", P, m);
        const Timing timing(h2, costs);
        ASSERT_EQ(all * m + (P - 1) * std::max(f, f + b - 2 * w), timing.makespan);
        ASSERT_EQ((P - 1) * std::max(0, f + b - 2 * w), timing.stages[0].wait);
    }
}

/* 1f1b with twice the warm-up. */
static Table roomy_1f1b(int P, int m)
{
    std::vector<struct tv_action> forwards, backwards;
    for (int i = 0; i < m; i++) {
        forwards.push_back({TV_ACT_FORWARD, 0, i, -1, 0});
        backwards.push_back({TV_ACT_BACKWARD, 0, i, -1, 0});
    }
    Table table(P, 1, m);
    for (int r = 0; r < P; r++)
        table.stages[(size_t)r] = in_turn(forwards, backwards, std::min(2 * (P - 1 - r), m));
    return table.lowered();
}

TEST(ScheduleNumbers, WarmupThatHidesMessages)
{
    for (int P = 1; P <= 8; P++) {
        for (int m = 1; m <= 4 * P; m++) {
            Table table = roomy_1f1b(P, m);
            ASSERT_EQ(TV_OK, tv_schedule_check(table.schedule(), 0)) << tv_error_message();
            ASSERT_EQ(3 * (m + P - 1), makespan_of(table));
            for (int r = 0; r < P; r++)
                ASSERT_EQ(std::min(2 * (P - r) - 1, m),
                          tv_schedule_peak_slots(table.schedule(), r));
        }
    }
}

/* What a message of a quarter of a one-chunk action adds, in units of one-chunk actions. */
static double added_by_messages(const Table &table)
{
    Costs costs;
    costs.send = .25 * table.num_chunks;
    return (makespan_of(table, costs) - makespan_of(table)) / table.num_chunks;
}

TEST(ScheduleNumbers, MessagesThatTakeTime)
{
    const int P = 8, m = 32;
    EXPECT_EQ(1.75, added_by_messages(Table::built("zb-h2", P, m)));
    EXPECT_EQ(3.5, added_by_messages(Table::built("gpipe", P, m)));
    EXPECT_EQ(3.5, added_by_messages(roomy_1f1b(P, m)));
    EXPECT_EQ(7, added_by_messages(Table::built("zb-h1", P, m)));
    EXPECT_EQ(7.5, added_by_messages(Table::built("interleaved", P, m, 2)));
    EXPECT_EQ(8.25, added_by_messages(Table::built("zb-v", P, m)));
    EXPECT_EQ(9, added_by_messages(Table::built("v-half", P, m)));
    EXPECT_EQ(10, added_by_messages(Table::built("dualpipe-v", P, m)));
    EXPECT_EQ(17, added_by_messages(Table::built("1f1b", P, m)));
    EXPECT_EQ(31.5, added_by_messages(Table::built("interleaved", P, m, 2, 2 * P)));
    EXPECT_EQ(47, added_by_messages(Table::built("v-min", P, m)));
}
