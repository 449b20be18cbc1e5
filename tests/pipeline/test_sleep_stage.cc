/* tests/pipeline/test_sleep_stage.cc -- each action takes its cost, by the clock. */
#include "base/clock.h"
#include "pipeline/sleep_stage.h"
#include "pipeline/table.h"

/* Asleep at least as long as asked; not much longer, though a loaded machine may be late. */
TEST(SleepStage, TakesWhatAnActionCosts)
{
    const double forward[] = {1, 2, 3, 4}, input[] = {10, 20, 30, 40}, weight[] = {5, 6, 7, 8};
    const struct tv_schedule_costs costs = {forward, input, weight, 0, nullptr, 0};
    Table table = Table::built("zb-v", 2, 1);
    struct tv_sleep_stage stage = {table.schedule(), 1, &costs, 1e-4};
    const struct tv_stage_functions functions = tv_sleep_stage_functions(&stage);
    auto seconds = [&](auto function, int chunk) {
        struct tv_stage_call call = {};
        double best = 1;
        call.chunk = chunk;
        for (int i = 0; i < 20; i++) {
            const double started = tv_clock_seconds();
            EXPECT_EQ(TV_OK, function(functions.context, &call));
            best = std::min(best, tv_clock_seconds() - started);
        }
        return best;
    };
    for (int chunk = 0; chunk < 2; chunk++) {
        const int p = tv_schedule_position(table.schedule(), 1, chunk);
        const double wants[] = {forward[p], input[p], weight[p], input[p] + weight[p]};
        const double gots[] = {
            seconds(functions.forward, chunk), seconds(functions.backward_input, chunk),
            seconds(functions.backward_weight, chunk), seconds(functions.backward, chunk)};
        for (int i = 0; i < 4; i++) {
            EXPECT_GE(gots[i], 1e-4 * wants[i]) << "position " << p << ", function " << i;
            EXPECT_LE(gots[i], 1e-4 * wants[i] + 1e-3) << "position " << p << ", function " << i;
        }
    }
}

TEST(SleepStage, NothingTakesNoTime)
{
    const double zero[] = {0};
    const struct tv_schedule_costs costs = {zero, zero, zero, 0, nullptr, 0};
    Table table = Table::built("gpipe", 1, 1);
    struct tv_sleep_stage stage = {table.schedule(), 0, &costs, 1};
    const struct tv_stage_functions functions = tv_sleep_stage_functions(&stage);
    const struct tv_stage_call call = {};
    double best = 1;
    for (int i = 0; i < 20; i++) {
        const double started = tv_clock_seconds();
        EXPECT_EQ(TV_OK, functions.backward(functions.context, &call));
        best = std::min(best, tv_clock_seconds() - started);
    }
    EXPECT_LT(best, 2e-5); /* a system call that sleeps takes 50 us and more */
}
