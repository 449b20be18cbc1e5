// Timelines: what is in the file, and what happens when it cannot be written.
#include "train/schedule_report.h"
#include "train/temporary.h"
#include "train/trace_file.h"
#include <jansson.h>
#include <map>

namespace
{
class Json
{
  public:
    explicit Json(const std::string &text) : root_(json_loads(text.c_str(), 0, nullptr))
    {
        EXPECT_NE(nullptr, root_) << text;
    }
    ~Json()
    {
        json_decref(root_);
    }
    Json(const Json &) = delete;
    Json &operator=(const Json &) = delete;
    const json_t *events() const
    {
        return json_object_get(root_, "traceEvents");
    }

  private:
    json_t *root_;
};

std::string text_of(const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));
    return text != nullptr ? text : "";
}

double number_of(const json_t *event, const char *key)
{
    return json_number_value(json_object_get(event, key));
}
} // namespace

TEST(TraceFile, HoldsNamesAndEvents)
{
    Temporary folder;
    struct tv_trace *trace = nullptr;
    ASSERT_EQ(TV_OK, tv_trace_open(folder.path("new/t.json").c_str(), &trace));
    tv_trace_name_process(trace, 3, "stage \"3\"\n");
    tv_trace_name_thread(trace, 3, 1, "compute");
    const struct tv_trace_event event = {"F0", "compute", 3, 1, 123456.000001, 0.5, nullptr};
    tv_trace_add(trace, &event);
    const struct tv_trace_event other = {
        "B0", "compute", 3, 1, 0, 0, json_pack("{s:i}", "micro_batch", 7)};
    tv_trace_add(trace, &other);
    ASSERT_EQ(TV_OK, tv_trace_close(trace)) << tv_error_message();
    const Json json(folder.read("new/t.json"));
    ASSERT_EQ(4u, json_array_size(json.events()));
    const json_t *process = json_array_get(json.events(), 0);
    EXPECT_EQ("M", text_of(process, "ph"));
    EXPECT_EQ("process_name", text_of(process, "name"));
    EXPECT_EQ("stage \"3\"\n", text_of(json_object_get(process, "args"), "name"));
    EXPECT_EQ("thread_name", text_of(json_array_get(json.events(), 1), "name"));
    const json_t *first = json_array_get(json.events(), 2);
    EXPECT_EQ("X", text_of(first, "ph"));
    EXPECT_EQ("compute", text_of(first, "cat"));
    EXPECT_EQ(3, number_of(first, "pid"));
    EXPECT_EQ(1, number_of(first, "tid"));
    EXPECT_EQ(123456000001.0, number_of(first, "ts"));
    EXPECT_EQ(500000, number_of(first, "dur"));
    EXPECT_EQ(7,
              number_of(json_object_get(json_array_get(json.events(), 3), "args"), "micro_batch"));
}

TEST(TraceFile, WithoutEventsItIsStillJson)
{
    Temporary folder;
    struct tv_trace *trace = nullptr;
    ASSERT_EQ(TV_OK, tv_trace_open(folder.path("t.json").c_str(), &trace));
    ASSERT_EQ(TV_OK, tv_trace_close(trace));
    EXPECT_EQ(0u, json_array_size(Json(folder.read("t.json")).events()));
    EXPECT_EQ(TV_OK, tv_trace_close(nullptr));
}

TEST(TraceFile, FailuresAreTold)
{
    struct tv_trace *trace = nullptr;
    EXPECT_EQ(TV_INVALID, tv_trace_open("/proc/nothing/t.json", &trace));
    EXPECT_EQ(nullptr, trace);
    ASSERT_EQ(TV_OK, tv_trace_open("/dev/full", &trace));
    tv_trace_name_process(trace, 0, "stage 0");
    EXPECT_EQ(TV_IO, tv_trace_close(trace));
    expect_message_has("/dev/full", tv_error_message());
    Temporary folder;
    ASSERT_EQ(TV_OK, tv_trace_open(folder.path("t.json").c_str(), &trace));
    tv_trace_name_process(trace, 0, "not UTF-8: \xff");
    EXPECT_EQ(TV_IO, tv_trace_close(trace));
}

/* Every action is an event, and the events of a thread do not overlap, though sends do. */
TEST(TraceFile, OfASchedule)
{
    Temporary folder;
    const struct tv_schedule_args args = {"zb-v", 4, 2, 8, 0};
    struct tv_schedule schedule;
    struct tv_schedule_plan plan = {};
    ASSERT_EQ(TV_OK, tv_schedule_build(&args, &schedule));
    const struct tv_plan_costs costs = {{1, 1, 1}, 3.5, 0};
    ASSERT_EQ(TV_OK, tv_schedule_plan_time(&schedule, &costs, &plan));
    ASSERT_EQ(TV_OK, tv_schedule_write_trace(&plan, 1e-3, folder.path("t.json").c_str()));
    size_t num_actions = 0, num_events = 0;
    for (int s = 0; s < 4; s++)
        num_actions += (size_t)plan.schedule.stages[s].num_actions;
    const Json json(folder.read("t.json"));
    std::map<std::pair<double, double>, double> free_at; // (pid, tid)
    double last = 0;
    for (size_t i = 0; i < json_array_size(json.events()); i++) {
        const json_t *event = json_array_get(json.events(), i);
        if (text_of(event, "ph") != "X")
            continue;
        num_events++;
        double &until = free_at[{number_of(event, "pid"), number_of(event, "tid")}];
        EXPECT_LE(until, number_of(event, "ts") + 1e-6) << text_of(event, "name");
        until = number_of(event, "ts") + number_of(event, "dur");
        last = std::max(last, until);
    }
    EXPECT_EQ(num_actions, num_events);
    EXPECT_NEAR(plan.timing.makespan * 1000, last, 1e-6);
    tv_schedule_plan_free(&plan);
}
