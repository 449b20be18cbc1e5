/* tests/pipeline/test_schedule_forms.cc -- makespan, idle time and slots of every schedule in closed
 * form, for all P <= 8 and m <= 4P. Costs F = I = W = 1. */
#include "pipeline/timing.h"
#include <functional>

enum { MAX_STAGES = 8 };

/* A number per stage. Empty: no closed form for these sizes. */
using ByStage = std::function<int(int r)>;

struct Forms {
    int makespan;
    ByStage idle;        /* in the stage's own window */
    ByStage slots;       /* until W */
    ByStage slots_input; /* until I */
};

static void expect_forms(Table &table, const Forms &forms, const Costs &costs = {})
{
    const int P = (int)table.stages.size();
    const Timing timing(table, costs);
    ASSERT_EQ(forms.makespan, timing.makespan);
    const double busy = 3.0 * table.num_chunks * table.num_micro;
    ASSERT_NEAR(1 - busy / forms.makespan, timing.bubble_fraction, 1e-12);
    for (int r = 0; r < P; r++) {
        const struct tv_stage_timing &stage = timing.stages[r];
        ASSERT_EQ(busy, stage.busy);
        ASSERT_EQ(timing.makespan, stage.warmup + stage.busy + stage.wait + stage.drain);
        ASSERT_NEAR(stage.wait / (busy + stage.wait), stage.own_window_bubble, 1e-12);
        if (forms.idle) {
            ASSERT_EQ(forms.idle(r), stage.wait) << "stage " << r;
        }
        if (forms.slots) {
            ASSERT_EQ(forms.slots(r), stage.peak_slots) << "stage " << r;
            ASSERT_EQ(forms.slots_input(r), stage.peak_slots_input) << "stage " << r;
        }
    }
}

/* All sizes for one schedule. */
static void for_all_sizes(const char *name, int v, const std::function<Forms(int P, int m)> &forms,
                          const Costs &costs = {})
{
    for (int P = 1; P <= MAX_STAGES; P++) {
        for (int m = 1; m <= 4 * P; m++) {
            SCOPED_TRACE(size_text(name, P, v, m));
            Table table = Table::built(name, P, m, v);
            expect_forms(table, forms(P, m), costs);
        }
    }
}

static ByStage all_stages(int number)
{
    return [=](int) { return number; };
}

TEST(ScheduleForms, Naive)
{
    for_all_sizes("naive", 1, [](int P, int m) -> Forms {
        return {3 * P * m, [=](int r) { return 3 * (P - 1) * m - 3 * r; }, all_stages(1),
                all_stages(1)};
    });
}

TEST(ScheduleForms, Gpipe)
{
    for_all_sizes("gpipe", 1, [](int P, int m) -> Forms {
        return {3 * (m + P - 1), [=](int r) { return 3 * (P - 1 - r); }, all_stages(m),
                all_stages(m)};
    });
}

TEST(ScheduleForms, OneForwardOneBackward)
{
    for_all_sizes("1f1b", 1, [](int P, int m) -> Forms {
        const ByStage slots = [=](int r) { return std::min(P - r, m); };
        return {3 * (m + P - 1), [=](int r) { return 3 * (P - 1 - r); }, slots, slots};
    });
}

/* spread: 2 the usual warm-up, 1 the lean one. */
static Forms interleaved_forms(int P, int v, int m, int spread)
{
    const int q = std::max(1, m / P), largest = (m + q - 1) / q;
    const ByStage slots = [=](int r) {
        return std::min(v * m, spread * (P - 1 - r) + (v - 1) * largest + 1);
    };
    const ByStage idle = [=](int r) { return 3 * (P - 1 - r) + 3 * (v - 1) * std::max(0, P - m); };
    return {3 * (std::max(v * m + P, v * P + m) - 1), idle, slots, slots};
}

TEST(ScheduleForms, Interleaved)
{
    for (int v = 2; v <= 4; v++)
        for_all_sizes("interleaved", v,
                      [=](int P, int m) { return interleaved_forms(P, v, m, 2); });
}

/* The slot limit chooses: the usual warm-up, the lean one, the lean one of the next multiple of P. */
TEST(ScheduleForms, InterleavedWithinALimit)
{
    for (int v = 2; v <= 4; v++) {
        for (int P = 1; P <= MAX_STAGES; P++) {
            for (int m = 1; m <= 4 * P; m++) {
                SCOPED_TRACE(size_text("interleaved", P, v, m));
                const Forms usual = interleaved_forms(P, v, m, 2);
                const Forms lean = interleaved_forms(P, v, m, 1);
                Table table = Table::built("interleaved", P, m, v, usual.slots(0));
                expect_forms(table, usual);
                table = Table::built("interleaved", P, m, v, lean.slots(0));
                expect_forms(table, lean.slots(0) == usual.slots(0) ? usual : lean);

                const int least = v * std::min(P, m);
                table = Table::built("interleaved", P, m, v, least);
                for (int r = 0; r < P && least < lean.slots(0); r++)
                    ASSERT_GE(v * P - r, tv_schedule_peak_slots(table.schedule(), r));
                if (least < lean.slots(0)) {
                    ASSERT_EQ(lean.makespan + 3 * (v - 1) * (P - m % P), makespan_of(table));
                }
                struct tv_schedule schedule = {};
                const struct tv_schedule_args args = {"interleaved", P, v, m, least - 1};
                ASSERT_EQ(TV_INVALID, tv_schedule_build(&args, &schedule));
                ASSERT_NE(std::string::npos, std::string(tv_error_message())
                                                 .find("needs " + std::to_string(least) + " slots"))
                    << tv_error_message();
            }
        }
    }
}

static Forms zb_h_forms(int P, int m, int e)
{
    Forms forms = {std::max(3 * m + P - 1, 2 * m + 2 * P - 1), nullptr,
                   all_stages(std::min(P, m) + e),
                   [=](int r) { return std::min(P - r + std::min(e, P - 1 - r), m); }};
    if (m >= P)
        forms.idle = [=](int r) { return std::max(0, P - 1 - r - e); };
    return forms;
}

TEST(ScheduleForms, ZeroBubbleH1)
{
    for_all_sizes("zb-h1", 1, [](int P, int m) { return zb_h_forms(P, m, 0); });
}

TEST(ScheduleForms, ZeroBubbleH2)
{
    for_all_sizes("zb-h2", 1, [](int P, int m) {
        return zb_h_forms(P, m, std::max(0, std::min(P - 1, m - P)));
    });
}

/* Between them: every number of extra forwards, chosen by the limit. */
TEST(ScheduleForms, ZeroBubbleWithinALimit)
{
    for (int P = 1; P <= MAX_STAGES; P++) {
        for (int m = P; m <= 4 * P; m++) {
            for (int e = 0; e <= std::min(P - 1, m - P); e++) {
                SCOPED_TRACE(size_text("zb-h2", P, 1, m) + ", e=" + std::to_string(e));
                Table table = Table::built("zb-h2", P, m, 1, P + e);
                expect_forms(table, zb_h_forms(P, m, e));
            }
        }
    }
}

TEST(ScheduleForms, ZeroBubbleV)
{
    for_all_sizes("zb-v", 2, [](int P, int m) -> Forms {
        const int makespan = std::max(6 * m + P - 1, 4 * m + 4 * P - 2);
        if (m < 2 * P - 1)
            return {makespan, nullptr, nullptr, nullptr};
        return {makespan, all_stages(0), all_stages(2 * P), all_stages(2 * P)};
    });
}

TEST(ScheduleForms, ZeroBubbleVWithFewerMicroBatches)
{
    for (int P = 2; P <= MAX_STAGES; P++) {
        for (int m = 1; m < 2 * P - 1; m++) {
            SCOPED_TRACE(size_text("zb-v", P, 2, m));
            Table table = Table::built("zb-v", P, m);
            const Timing timing(table);
            ASSERT_GT(timing.largest_own_bubble(), 0);
            int least = 2 * P;
            for (int r = 0; r < P; r++) {
                ASSERT_GE(2 * P, timing.stages[r].peak_slots);
                least = std::min(least, timing.stages[r].peak_slots);
            }
            ASSERT_LT(least, 2 * P);
        }
    }
}

/* Pairs in turn, and pairs as one action. */
TEST(ScheduleForms, DualpipeV)
{
    Costs joined;
    joined.joins_pairs = true;
    for (int P = 1; P <= MAX_STAGES; P++) {
        for (int m = 2 * P; m <= 4 * P; m++) {
            SCOPED_TRACE(size_text("dualpipe-v", P, 2, m));
            Table table = Table::built("dualpipe-v", P, m);
            const ByStage slots = P == 1 ? ByStage() : all_stages(2 * P + 1);
            expect_forms(table, {6 * m + P - 1, [=](int r) { return P - 1 - r; }, slots, slots});
            expect_forms(
                table, {6 * m + 2 * (P - 1), [=](int r) { return 2 * (P - 1) - r; }, slots, slots},
                joined);
        }
    }
}

static int most_slots(Table &table)
{
    int most = 0;
    for (int r = 0; r < (int)table.stages.size(); r++)
        most = std::max(most, tv_schedule_peak_slots(table.schedule(), r));
    return most;
}

TEST(ScheduleForms, VHalf)
{
    for (int P = 2; P <= MAX_STAGES; P++) {
        for (int m = P / 2 + 1; m <= 4 * P; m++) {
            SCOPED_TRACE(size_text("v-half", P, 2, m));
            Table table = Table::built("v-half", P, m);
            const int x = P % 2 == 0 ? (7 * P - 4) / 2 : (7 * P - 7) / 2;
            expect_forms(table, {6 * m + x, nullptr, nullptr, nullptr});
            ASSERT_EQ(P / 2 * 2 + 2, most_slots(table));
        }
    }
}

TEST(ScheduleForms, VMin)
{
    for (int P = 2; P <= MAX_STAGES; P++) {
        for (int m = 2; m <= 4 * P; m++) {
            SCOPED_TRACE(size_text("v-min", P, 2, m));
            Table table = Table::built("v-min", P, m);
            expect_forms(table, {6 * m + 4 * P - (P % 3 == 0 ? 3 : 5), nullptr, nullptr, nullptr});
            if (m >= (P + 4) / 3) {
                ASSERT_EQ((P + 4) / 3 * 2, most_slots(table));
            }
        }
    }
}
