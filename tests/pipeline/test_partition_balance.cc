/* tests/pipeline/test_partition_balance.cc -- the least maximum stage time under a limit of bytes,
 * against all splits of small models. */
#include "pipeline/partition.h"
#include <algorithm>
#include <climits>
#include <cmath>
#include <functional>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

using Ranges = std::vector<struct tv_unit_range>;

/* A model and its pieces: what tv_partition_args points to. */
struct Problem {
    int num_layers, num_stages, num_chunks;
    bool is_v = false; /* V placement: 0 1 2 2 1 0; else loop: 0 1 2 0 1 2 */
    std::vector<struct tv_unit_cost> units = {};
    std::vector<int> stage_of = {}, slots = {}, works = {};
    std::vector<int64_t> stage_fixed = {};
    int64_t limit = 0;

    int num_pieces() const
    {
        return num_stages * num_chunks;
    }
    /* Layers of cost 1 and no bytes, ends of no cost. */
    void prepare()
    {
        units.assign((size_t)num_layers + 2, {1, 0, 0, 0});
        units.front() = units.back() = {0, 0, 0, 0};
        for (int i = 0; i < num_pieces(); i++) {
            const int turn = i % (2 * num_stages);
            stage_of.push_back(is_v && turn >= num_stages ? 2 * num_stages - 1 - turn
                                                          : i % num_stages);
        }
        slots.assign((size_t)num_pieces(), 1);
        works.assign((size_t)num_pieces(), 1);
        stage_fixed.assign((size_t)num_stages, 0);
    }
    struct tv_partition_args args() const
    {
        return {num_layers,   num_pieces(), num_stages, stage_of.data(),   units.data(),
                slots.data(), works.data(), limit,      stage_fixed.data()};
    }
};

struct Costs {
    std::vector<double> seconds;
    std::vector<int64_t> bytes;

    double slowest() const
    {
        return *std::max_element(seconds.begin(), seconds.end());
    }
    int64_t largest() const
    {
        return *std::max_element(bytes.begin(), bytes.end());
    }
    double squares() const
    {
        double sum = 0;
        for (const double s : seconds)
            sum += s * s;
        return sum;
    }
};

static Costs costs(const Problem &p, const Ranges &ranges)
{
    Costs c = {std::vector<double>((size_t)p.num_stages),
               std::vector<int64_t>((size_t)p.num_stages)};
    const struct tv_partition_args args = p.args();
    tv_partition_costs(&args, ranges.data(), c.seconds.data(), c.bytes.data());
    return c;
}

static void for_each_split(const Problem &p, const std::function<void(const Ranges &)> &visit)
{
    Ranges ranges;
    const std::function<void(int)> extend = [&](int first) {
        const int num_later = p.num_pieces() - (int)ranges.size() - 1;
        const int rest = p.num_layers + 2 - first;
        for (int num = num_later == 0 ? rest : 1; num <= rest - num_later; num++) {
            ranges.push_back({first, num});
            if (num_later == 0)
                visit(ranges);
            else
                extend(first + num);
            ranges.pop_back();
        }
    };
    extend(0);
}

/* The best of all splits: least maximum, and of those the least sum of squares. */
struct Best {
    double slowest = INFINITY, squares = INFINITY;
    int64_t least_bytes = INT64_MAX;
};

static Best brute_force(const Problem &p)
{
    Best best;
    for_each_split(p, [&](const Ranges &ranges) {
        const Costs c = costs(p, ranges);
        best.least_bytes = std::min(best.least_bytes, c.largest());
        if (p.limit != 0 && c.largest() > p.limit)
            return;
        if (c.slowest() < best.slowest ||
            (c.slowest() == best.slowest && c.squares() < best.squares)) {
            best.slowest = c.slowest();
            best.squares = c.squares();
        }
    });
    return best;
}

static Ranges balance(const Problem &p)
{
    Ranges ranges((size_t)p.num_pieces());
    const struct tv_partition_args args = p.args();
    EXPECT_EQ(TV_OK, tv_partition_balance(&args, ranges.data())) << tv_error_message();
    EXPECT_EQ(TV_OK, tv_partition_check(p.num_layers, p.num_pieces(), ranges.data()))
        << tv_error_message();
    return ranges;
}

static std::vector<int> sizes(const Ranges &ranges)
{
    std::vector<int> nums;
    for (const struct tv_unit_range &range : ranges)
        nums.push_back(range.num);
    return nums;
}

/* Returns whether a split fits. is_even: ties are to be broken by the sum of squares. */
static bool compare_with_all(const Problem &p, bool is_even)
{
    const Best best = brute_force(p);
    if (best.slowest < INFINITY) {
        const Costs c = costs(p, balance(p));
        EXPECT_EQ(best.slowest, c.slowest());
        if (is_even) {
            EXPECT_EQ(best.squares, c.squares());
        }
        EXPECT_TRUE(p.limit == 0 || c.largest() <= p.limit);
        return true;
    }
    Ranges ranges((size_t)p.num_pieces(), {-7, -7});
    const struct tv_partition_args args = p.args();
    EXPECT_EQ(TV_INVALID, tv_partition_balance(&args, ranges.data()));
    EXPECT_EQ("no split of " + std::to_string(p.num_layers) + " layers into " +
                  std::to_string(p.num_pieces()) + " pieces fits in " + std::to_string(p.limit) +
                  " bytes a stage: the best one needs " + std::to_string(best.least_bytes) +
                  " on its largest stage",
              tv_error_message());
    EXPECT_EQ(-7, ranges.front().first);
    return false;
}

static Problem random_problem(std::mt19937 &random, bool layers_differ, int max_layers)
{
    const auto draw = [&](int least, int most) {
        return least + (int)(random() % (unsigned)(most - least + 1));
    };
    const auto unit = [&](int most) {
        return tv_unit_cost{(double)draw(0, most), draw(0, 9), draw(0, 3), draw(0, 2)};
    };
    Problem p = {draw(1, max_layers), draw(1, 4), draw(1, 3)};
    while (p.num_pieces() > p.num_layers + 2)
        p.num_layers++;
    p.is_v = draw(0, 1) == 1;
    p.prepare();
    const struct tv_unit_cost layer = unit(4);
    for (struct tv_unit_cost &u : p.units)
        u = layers_differ ? unit(4) : layer;
    p.units.front() = unit(12);
    p.units.back() = unit(12);
    for (size_t i = 0; i < p.slots.size(); i++) {
        p.slots[i] = draw(0, 5);
        p.works[i] = draw(1, 2);
    }
    for (int64_t &bytes : p.stage_fixed)
        bytes = draw(0, 9);
    return p;
}

/* Without a limit, then with one between what no split needs and what every one fits in. */
static void compare_random(bool layers_differ, int max_layers, int num_problems)
{
    std::mt19937 random(7);
    int num_fit = 0, num_refused = 0;
    for (int n = 0; n < num_problems && !testing::Test::HasFailure(); n++) {
        Problem p = random_problem(random, layers_differ, max_layers);
        SCOPED_TRACE("problem " + std::to_string(n));
        const bool is_even = !layers_differ || p.num_chunks == 1;
        compare_with_all(p, is_even);
        const int64_t least = brute_force(p).least_bytes;
        p.limit = std::max<int64_t>(1, least + (int)(random() % 12) - 2);
        (compare_with_all(p, is_even) ? num_fit : num_refused)++;
    }
    EXPECT_GT(num_fit, num_problems / 4);
    EXPECT_GT(num_refused, num_problems / 20);
}

TEST(Balance, EqualLayersAgainstAllSplits)
{
    compare_random(false, 12, 2000);
}

TEST(Balance, DifferentLayersAgainstAllSplits)
{
    compare_random(true, 12, 2000);
}

TEST(Balance, ProblemsThatOthersGotWrong)
{
    const struct {
        int num_layers, num_stages, num_chunks;
        std::vector<int> layers;
    } cases[] = {
        {30, 4, 1, {8, 8, 7, 7}},
        {7, 2, 1, {4, 3}},
        {80, 16, 2, {3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
                     2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}},
        {5, 1, 1, {5}},
        {5, 1, 2, {3, 2}},
    };
    for (const auto &c : cases) {
        Problem p = {c.num_layers, c.num_stages, c.num_chunks};
        p.prepare();
        std::vector<int> layers = sizes(balance(p));
        layers.front()--;
        layers.back()--;
        EXPECT_EQ(c.layers, layers);
    }
}

/* Fewer layers than stages: the ends make up for them, as long as there are units. */
TEST(Balance, PiecesOfAnEndOnly)
{
    Problem p = {3, 4, 1};
    p.prepare();
    EXPECT_EQ((std::vector<int>{2, 1, 1, 1}), sizes(balance(p))); /* head only */
    p.units.front().seconds = 1;
    EXPECT_EQ((std::vector<int>{1, 1, 1, 2}), sizes(balance(p))); /* embedding only */
    Problem five = {3, 5, 1};
    five.prepare();
    EXPECT_EQ((std::vector<int>{1, 1, 1, 1, 1}), sizes(balance(five)));
    Problem six = {3, 6, 1};
    six.prepare();
    Ranges ranges(6, {-7, -7});
    const struct tv_partition_args args = six.args();
    EXPECT_EQ(TV_INVALID, tv_partition_balance(&args, ranges.data()));
    EXPECT_STREQ("3 layers, the embedding and the head cannot be split into 6 pieces of one or "
                 "more: 1 to 5 pieces, or more layers",
                 tv_error_message());
    EXPECT_EQ(-7, ranges[0].first);
}

/* The head is as long as three layers and the embedding as one. */
TEST(Balance, EndsCountLikeLayers)
{
    Problem p = {12, 4, 1};
    p.prepare();
    p.units.front().seconds = 1;
    p.units.back().seconds = 3;
    EXPECT_EQ((std::vector<int>{4, 4, 4, 2}), sizes(balance(p))); /* layers 3, 4, 4, 1 */
    p.num_chunks = 2;
    p.stage_of.clear();
    p.prepare();
    p.units.front().seconds = 1;
    p.units.back().seconds = 3;
    const Ranges ranges = balance(p);
    EXPECT_EQ((std::vector<double>{4, 4, 4, 4}), costs(p, ranges).seconds);
    EXPECT_EQ((std::vector<int>{2, 2, 2, 1, 2, 2, 2, 1}), sizes(ranges));
}

/* The first stage keeps four slots, the last one: a limit moves layers towards the end. */
TEST(Balance, ALimitMovesLayersToLaterStages)
{
    Problem p = {16, 4, 1};
    p.prepare();
    for (struct tv_unit_cost &u : p.units)
        u.slot_bytes = 10;
    p.units.front().slot_bytes = p.units.back().slot_bytes = 0;
    p.slots = {4, 3, 2, 1};
    EXPECT_EQ((std::vector<int>{5, 4, 4, 5}), sizes(balance(p)));
    p.limit = 130;
    const Ranges ranges = balance(p);
    EXPECT_EQ((std::vector<int64_t>{120, 120, 100, 40}), costs(p, ranges).bytes);
    EXPECT_EQ((std::vector<int>{4, 4, 5, 5}), sizes(ranges));
    p.limit = 70; /* 1 + 2 + 3 + 7 layers */
    Ranges untouched(4);
    const struct tv_partition_args args = p.args();
    EXPECT_EQ(TV_INVALID, tv_partition_balance(&args, untouched.data()));
    EXPECT_STREQ("no split of 16 layers into 4 pieces fits in 70 bytes a stage: the best one needs "
                 "80 on its largest stage",
                 tv_error_message());
}

/* Chunks of a stage are equal in time, unless only the chunk with fewer slots has the room. */
TEST(Balance, WithinAStageTheLimitDecidesLast)
{
    Problem p = {8, 1, 2};
    p.prepare();
    for (struct tv_unit_cost &u : p.units)
        u.slot_bytes = 1;
    p.units.front().slot_bytes = p.units.back().slot_bytes = 0;
    p.slots = {5, 2};
    EXPECT_EQ((std::vector<int>{5, 5}), sizes(balance(p))); /* 4 + 4 layers: 28 bytes */
    p.limit = 24;
    EXPECT_EQ((std::vector<int>{3, 7}), sizes(balance(p))); /* 2 + 6 layers: 22 bytes */
}

TEST(Balance, CostsAreSumsOverTheStage)
{
    Problem p = {2, 1, 2};
    p.prepare();
    p.units = {{1, 10, 100, 1000}, {2, 20, 200, 2000}, {4, 40, 400, 4000}, {8, 80, 800, 8000}};
    p.slots = {2, 1};
    p.works = {1, 3};
    p.stage_fixed = {5};
    const Costs c = costs(p, {{0, 3}, {3, 1}});
    EXPECT_EQ(15, c.seconds[0]);
    EXPECT_EQ(5 + 70 + 2 * 700 + 7000 + 80 + 800 + 3 * 8000, c.bytes[0]);
}

TEST(Balance, BadNumbersAreRefused)
{
    Problem p = {4, 2, 1};
    p.prepare();
    Ranges ranges(2);
    p.units[3].seconds = NAN;
    struct tv_partition_args args = p.args();
    EXPECT_EQ(TV_INVALID, tv_partition_balance(&args, ranges.data()));
    EXPECT_STREQ("unit 3 costs nan s, 0 + 0 + 0 bytes: each must be a number >= 0",
                 tv_error_message());
    p.units[3] = {1, 0, -1, 0};
    EXPECT_EQ(TV_INVALID, tv_partition_balance(&args, ranges.data()));
    for (auto &unit : p.units) // sums and squares would be infinite
        unit.seconds = 1e308;
    EXPECT_EQ(TV_INVALID, tv_partition_balance(&args, ranges.data()));
    for (auto &unit : p.units)
        unit.seconds = 1e200;
    p.units[3] = {2e200, 0, 0, 0}; // the search of different layers
    EXPECT_EQ(TV_INVALID, tv_partition_balance(&args, ranges.data()));
    for (auto &unit : p.units)
        unit.seconds = 1;
    p.stage_of[1] = 2;
    EXPECT_EQ(TV_INVALID, tv_partition_balance(&args, ranges.data()));
    EXPECT_STREQ("piece 1 is on stage 2 of 2", tv_error_message());
}

TEST(Balance, LargeModels)
{
    Problem p = {1000, 64, 4};
    p.prepare();
    p.units.back().seconds = 5;
    EXPECT_EQ(16, costs(p, balance(p)).slowest()); /* 1005 / 64, rounded up */
    Problem q = {1000, 64, 1};
    q.prepare();
    for (size_t u = 0; u < q.units.size(); u++)
        q.units[u].seconds = 1 + (double)(u * 7 % 5);
    const double mean = 3006.0 / 64; /* no piece ends more than a unit away from the mean */
    const Costs c = costs(q, balance(q));
    EXPECT_GE(c.slowest(), mean);
    EXPECT_LT(c.slowest(), mean + 5);
}

/* Layers that differ and several chunks: exact for a node's stages, given up far beyond. */
TEST(Balance, TheSearchHasAnEnd)
{
    Problem p = {32, 4, 2};
    p.prepare();
    for (size_t u = 0; u < p.units.size(); u++)
        p.units[u].seconds = 10 + (double)(u * u % 7); /* 409 in all, 102.25 a stage */
    EXPECT_EQ(104, costs(p, balance(p)).slowest());
    Problem q = {80, 16, 2};
    q.prepare();
    for (size_t u = 0; u < q.units.size(); u++)
        q.units[u].seconds = 10 + (double)(u * u % 7);
    Ranges ranges(32, {-7, -7});
    const struct tv_partition_args args = q.args();
    EXPECT_EQ(TV_UNSUPPORTED, tv_partition_balance(&args, ranges.data()));
    EXPECT_STREQ("the best split of 80 layers of different cost into 32 pieces on 16 stages was "
                 "not found in 10000000 steps; one piece a stage or equal layers can be split",
                 tv_error_message());
    EXPECT_EQ(-7, ranges[0].first);
}
