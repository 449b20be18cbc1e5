/* tests/pipeline/timing.h -- a table's simulation, with the same costs at every position. */
#ifndef TESTS_PIPELINE_TIMING_H
#define TESTS_PIPELINE_TIMING_H
#include "pipeline/simulate.h"
#include "pipeline/table.h"

struct Costs {
    double forward = 1, backward_input = 1, backward_weight = 1, send = 0;
    bool joins_pairs = false;
};

struct Timing : tv_schedule_timing {
    explicit Timing(Table &table, const Costs &costs = {}) : tv_schedule_timing{}
    {
        const size_t places = table.position_of.size();
        const std::vector<double> forward(places, costs.forward),
            input(places, costs.backward_input), weight(places, costs.backward_weight);
        const struct tv_schedule_costs by_position = {
            forward.data(), input.data(), weight.data(), costs.send, nullptr, costs.joins_pairs};
        EXPECT_EQ(TV_OK, tv_schedule_simulate(table.schedule(), &by_position, this))
            << tv_error_message();
    }
    ~Timing()
    {
        tv_schedule_timing_destroy(this);
    }
    Timing(const Timing &) = delete;
    Timing &operator=(const Timing &) = delete;

    double largest_own_bubble() const
    {
        double largest = 0;
        for (int s = 0; s < num_stages; s++)
            largest = std::max(largest, stages[s].own_window_bubble);
        return largest;
    }
};

inline double makespan_of(Table table, const Costs &costs = {})
{
    return Timing(table, costs).makespan;
}

inline std::string size_text(const std::string &name, int P, int v, int m)
{
    return name + ", P=" + std::to_string(P) + ", v=" + std::to_string(v) +
           ", m=" + std::to_string(m);
}
#endif
