/* tests/pipeline/test_schedule_numbers.cc -- the schedules against published and computed numbers:
 * makespans, bubbles, slots, other costs, messages that take time. */
#include "pipeline/timing.h"
#include <random>

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

/* Cells for m = P, 3P/2, 2P, 5P/2, 4P: makespan/bubble, and behind that the largest own-window
 * bubble of a stage where it differs. Slots by stage at 4P; slots_input empty: the same. */
struct Row {
    const char *name;
    int P, v;
    const char *cells;
    std::vector<int> slots, slots_input;
    bool joins_pairs;

    Row(const char *schedule, int num_stages, int num_chunks, const char *numbers,
        std::vector<int> until_weight = {}, std::vector<int> until_input = {})
        : name(schedule), P(num_stages), v(num_chunks), cells(numbers),
          slots(std::move(until_weight)), slots_input(std::move(until_input)), joins_pairs(false)
    {
    }
    Row with_pairs() &&
    {
        joins_pairs = true;
        return *this;
    }
};

static const Row rows[] = {
    Row("naive", 4, 1, "48/.7500 72/.7500 96/.7500 120/.7500 192/.7500", times(4, 1)),
    Row("naive", 8, 1, "192/.8750 288/.8750 384/.8750 480/.8750 768/.8750", times(8, 1)),
    Row("gpipe", 4, 1, "21/.4286 27/.3333 33/.2727 39/.2308 57/.1579", times(4, 16)),
    Row("gpipe", 8, 1, "45/.4667 57/.3684 69/.3043 81/.2593 117/.1795", times(8, 32)),
    Row("1f1b", 4, 1, "21/.4286 27/.3333 33/.2727 39/.2308 57/.1579", down(4, 4, 1)),
    Row("1f1b", 8, 1, "45/.4667 57/.3684 69/.3043 81/.2593 117/.1795", down(8, 8, 1)),
    Row("interleaved", 4, 2, "33/.2727 45/.2000 57/.1579 69/.1304 105/.0857", down(4, 11, 2)),
    Row("interleaved", 4, 3, "45/.2000 63/.1429 81/.1111 99/.0909 153/.0588", down(4, 15, 2)),
    Row("interleaved", 8, 2, "69/.3043 93/.2258 117/.1795 141/.1489 213/.0986", down(8, 23, 2)),
    Row("interleaved", 8, 3, "93/.2258 129/.1628 165/.1273 201/.1045 309/.0680", down(8, 31, 2)),
    Row("zb-h1", 4, 1, "15/.2000 21/.1429 27/.1111 33/.0909 51/.0588", times(4, 4), down(4, 4, 1)),
    Row("zb-h1", 8, 1, "31/.2258 43/.1628 55/.1273 67/.1045 103/.0680", times(8, 8), down(8, 8, 1)),
    Row("zb-h2", 4, 1, "15/.2000/.2000 21/.1429/.0526 27/.1111/0 33/.0909/0 51/.0588/0",
        times(4, 7), down(4, 7, 2)),
    Row("zb-h2", 8, 1, "31/.2258/.2258 43/.1628/.0769 55/.1273/0 67/.1045/0 103/.0680/0",
        times(8, 15), down(8, 15, 2)),
    Row("zb-v", 4, 2, "30/.2000/.2000 39/.0769/.0526 51/.0588/0 63/.0476/0 99/.0303/0",
        times(4, 8)),
    Row("zb-v", 8, 2, "62/.2258/.2258 79/.0886/.0769 103/.0680/0 127/.0551/0 199/.0352/0",
        times(8, 16)),
    Row("dualpipe-v", 4, 2, "33/.2727 43/.1628 51/.0588 63/.0476 99/.0303", times(4, 9)),
    Row("dualpipe-v", 4, 2, "33/.2727 46/.2174 54/.1111 66/.0909 102/.0588", times(4, 9))
        .with_pairs(),
    Row("dualpipe-v", 8, 2, "69/.3043 87/.1724 103/.0680 127/.0551 199/.0352", times(8, 17)),
    Row("dualpipe-v", 8, 2, "69/.3043 94/.2340 110/.1273 134/.1045 206/.0680", times(8, 17))
        .with_pairs(),
    Row("v-half", 4, 2, "36/.3333 48/.2500 60/.2000 72/.1667 108/.1111"),
    Row("v-half", 8, 2, "74/.3514 98/.2653 122/.2131 146/.1781 218/.1193"),
    Row("v-min", 4, 2, "35/.3143 47/.2340 59/.1864 71/.1549 107/.1028"),
    Row("v-min", 8, 2, "75/.3600 99/.2727 123/.2195 147/.1837 219/.1233"),
};

TEST(ScheduleNumbers, Tables)
{
    for (const Row &row : rows) {
        std::istringstream cells(row.cells);
        for (int m : {row.P, 3 * row.P / 2, 2 * row.P, 5 * row.P / 2, 4 * row.P}) {
            SCOPED_TRACE(size_text(row.name, row.P, row.v, m));
            std::string cell;
            cells >> cell;
            double makespan = -1, bubble = -1, own_bubble = -1;
            const int num_read =
                std::sscanf(cell.c_str(), "%lf/%lf/%lf", &makespan, &bubble, &own_bubble);
            Table table = Table::built(row.name, row.P, m, row.v);
            Costs costs;
            costs.joins_pairs = row.joins_pairs;
            const Timing timing(table, costs);
            EXPECT_EQ(makespan, timing.makespan);
            EXPECT_NEAR(bubble, timing.bubble_fraction, 5e-5);
            EXPECT_NEAR(num_read == 3 ? own_bubble : bubble, timing.largest_own_bubble(), 5e-5);
            for (int r = 0; m == 4 * row.P && r < (int)row.slots.size(); r++) {
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
