/* tests/pipeline/contract_executor.cc -- order, values and buffers of each call, on any number
 * of stages. */
#include "pipeline/contract_executor.h"
#include "pipeline/executor_internal.h"
#include <unistd.h>

enum { SMALL = 16, LARGE = 2 << 20 }; /* floats: 64 bytes, 8 MiB */

LinearStage::LinearStage(struct tv_comm *pipe, Table *table, int64_t count_)
    : stage(tv_comm_rank(pipe)), num_micro(table->num_micro), count(count_),
      stride(count_ > 4096 ? 997 : 1), schedule(table->schedule())
{
    num_slots = tv_schedule_peak_slots(schedule, stage);
    holders.assign((size_t)num_slots, -1);
    calls.reserve(4096);
}

int LinearStage::last_position() const
{
    return schedule->num_stages * schedule->num_chunks - 1;
}

int LinearStage::position_of(const struct tv_stage_call &call) const
{
    return tv_schedule_position(schedule, stage, call.chunk);
}

static int factor(int position)
{
    return 1 + position % 2;
}

/* What position `position` receives, or makes if it is the first. */
float LinearStage::input(int position, int micro, int64_t j) const
{
    float x = (float)(64 * step + 8 * micro + j % 7 + (is_eval ? 1 << 12 : 0));
    for (int p = 0; p < position; p++)
        x = x * (float)factor(p) + (float)micro;
    return x;
}

/* Gradient of the output of `position`. */
float LinearStage::gradient(int position, int micro, int64_t j) const
{
    float dy = (float)(32 * step + 4 * micro + j % 5 + 1);
    for (int p = last_position(); p > position; p--)
        dy = dy * (float)factor(p) + (float)micro;
    return dy;
}

void LinearStage::expect_values(const float *got, const char *what,
                                const struct tv_stage_call &call) const
{
    int64_t num_wrong = 0;
    for (int64_t j = 0; j < count; j += stride) {
        const float want = what[0] == 'x' ? input(position_of(call), call.micro, j)
                                          : gradient(position_of(call), call.micro, j);
        num_wrong += got[j] != want;
    }
    EXPECT_EQ(0, num_wrong) << what << " of stage " << stage << ", chunk " << call.chunk
                            << ", micro-batch " << call.micro << ", step " << step;
}

/* Stages take turns at being late. */
void LinearStage::delay(const struct tv_stage_call &call) const
{
    if (has_delays)
        usleep((unsigned)((call.micro * 5 + stage * 3 + (int)calls.size()) % 4) * 150 +
               (unsigned)late_us);
}

void LinearStage::forward(const struct tv_stage_call &call)
{
    const int position = position_of(call);
    EXPECT_EQ(position == 0, call.x == nullptr);
    EXPECT_EQ(position == last_position(), call.y == nullptr);
    EXPECT_TRUE(call.dy == nullptr && call.dx == nullptr && !call.is_last_backward);
    ASSERT_TRUE(call.slot >= 0 && call.slot < num_slots);
    if (!is_eval) {
        EXPECT_EQ(-1, holders[(size_t)call.slot]);
        holders[(size_t)call.slot] = call.micro * schedule->num_chunks + call.chunk;
    }
    if (call.x != nullptr)
        expect_values(call.x, "x", call);
    delay(call);
    for (int64_t j = 0; call.y != nullptr && j < count; j += stride) {
        const float x = call.x != nullptr ? call.x[j] : input(0, call.micro, j);
        call.y[j] = x * (float)factor(position) + (float)call.micro;
    }
}

void LinearStage::backward(const struct tv_stage_call &call)
{
    const int position = position_of(call);
    EXPECT_EQ(position == last_position(), call.dy == nullptr);
    EXPECT_EQ(position == 0, call.dx == nullptr);
    EXPECT_EQ(call.micro == num_micro - 1, call.is_last_backward != 0);
    ASSERT_TRUE(call.slot >= 0 && call.slot < num_slots);
    EXPECT_EQ(call.micro * schedule->num_chunks + call.chunk, holders[(size_t)call.slot]);
    holders[(size_t)call.slot] = -1;
    EXPECT_EQ(position == 0, call.x == nullptr);
    if (call.x != nullptr)
        expect_values(call.x, "x, kept,", call);
    if (call.dy != nullptr)
        expect_values(call.dy, "dy", call);
    delay(call);
    for (int64_t j = 0; call.dx != nullptr && j < count; j += stride) {
        const float dy = call.dy != nullptr ? call.dy[j] : gradient(position, call.micro, j);
        call.dx[j] = dy * (float)factor(position) + (float)call.micro;
    }
}

struct tv_stage_functions LinearStage::functions()
{
    return {this,
            [](void *context, const struct tv_stage_call *call) {
                auto *self = (LinearStage *)context;
                self->calls.push_back({TV_ACT_FORWARD, *call});
                if (call->micro == self->fail_micro)
                    return TV_ERR(TV_NUMERIC, "stage %d fails on purpose", self->stage);
                self->forward(*call);
                return TV_OK;
            },
            [](void *context, const struct tv_stage_call *call) {
                auto *self = (LinearStage *)context;
                self->calls.push_back({TV_ACT_BACKWARD, *call});
                self->backward(*call);
                return TV_OK;
            }};
}

Pipeline::Pipeline(struct tv_comm *pipe, Table schedule, int64_t count)
    : table(std::move(schedule)), stage(pipe, &table, count)
{
    EXPECT_EQ(TV_OK, tv_device_open(TV_DEVICE_CPU, 1, &device));
    EXPECT_EQ(TV_OK, tv_stream_create(device, &stream));
    EXPECT_EQ(TV_OK, tv_executor_create(pipe, stream, table.schedule(), count, &executor))
        << tv_error_message();
}

Pipeline::~Pipeline()
{
    tv_executor_destroy(executor);
    EXPECT_EQ(0, bytes());
    tv_stream_destroy(stream);
    tv_device_close(device);
}

int64_t Pipeline::bytes() const
{
    size_t bytes = 0;
    for (int kind = 0; kind < TV_NUM_MEM_KINDS; kind++)
        bytes += tv_device_bytes(device, (tv_mem_kind_t)kind);
    return (int64_t)bytes;
}

tv_status_t Pipeline::run(struct tv_executor_report *report)
{
    const struct tv_stage_functions functions = stage.functions();
    stage.calls.clear();
    stage.step++;
    return tv_executor_run(executor, &functions, report);
}

void Pipeline::expect_step()
{
    struct tv_executor_report report = {-1, -1, -1};
    if (has_failed)
        return;
    const tv_status_t status = run(&report);
    has_failed = status != TV_OK;
    ASSERT_OK(status);
    std::string got;
    for (const Call &call : stage.calls)
        got += (got.empty() ? "" : " ") +
               text_of({call.kind, call.args.chunk, call.args.micro, -1, 0});
    EXPECT_EQ(text_of(table.stages[(size_t)executor->stage], true), got);
    EXPECT_GE(report.busy_seconds, 0);
    EXPECT_GE(report.wait_seconds, 0);
    EXPECT_LE(report.busy_seconds + report.wait_seconds, report.window_seconds);
}

/* Every sum of messages is exact: m activations to the next stage, m gradients to the previous. */
static void each_schedule(struct tv_comm *world)
{
    const int P = tv_comm_size(world), stage = tv_comm_rank(world);
    for (const char *name : {"gpipe", "1f1b"}) {
        for (int m : {1, 2, 3, 5, 8}) {
            SCOPED_TRACE(std::string(name) + ", m=" + std::to_string(m));
            Pipeline pipeline(world, Table::built(name, P, m), SMALL);
            ASSERT_NE(nullptr, pipeline.executor);
            EXPECT_EQ(std::string(name) == "gpipe" ? m : std::min(P - stage, m),
                      tv_executor_num_slots(pipeline.executor));
            pipeline.stage.has_delays = true;
            pipeline.expect_step();
            if (pipeline.has_failed)
                return;
            const int64_t bytes = m * SMALL * (int64_t)sizeof(float);
            EXPECT_EQ(stage < P - 1 ? bytes : 0,
                      tv_comm_get_stats(pipeline.executor->forward).sent_bytes);
            EXPECT_EQ(stage > 0 ? bytes : 0,
                      tv_comm_get_stats(pipeline.executor->backward).sent_bytes);
        }
    }
}

/* Every step uses the same buffers for the same calls, and no new memory. */
static void fifty_steps(struct tv_comm *world)
{
    for (const char *name : {"gpipe", "1f1b"}) {
        Pipeline pipeline(world, Table::built(name, tv_comm_size(world), 5), SMALL);
        ASSERT_NE(nullptr, pipeline.executor);
        pipeline.expect_step();
        if (pipeline.has_failed)
            return;
        const std::vector<Call> first = pipeline.stage.calls;
        const struct tv_stage_functions functions = pipeline.stage.functions();
        for (int step = 1; step < 50; step++) {
            struct tv_executor_report report;
            pipeline.stage.calls.clear();
            pipeline.stage.step++;
            const int64_t allocated = num_allocations();
            ASSERT_OK(tv_executor_run(pipeline.executor, &functions, &report));
            ASSERT_EQ(allocated, num_allocations()) << "step " << step;
            ASSERT_EQ(first.size(), pipeline.stage.calls.size());
            for (size_t i = 0; i < first.size(); i++) {
                const struct tv_stage_call &a = first[i].args, &b = pipeline.stage.calls[i].args;
                ASSERT_TRUE(a.micro == b.micro && a.slot == b.slot && a.x == b.x && a.y == b.y &&
                            a.dy == b.dy && a.dx == b.dx)
                    << name << ", step " << step << ", call " << i;
            }
        }
    }
}

/* The x of a backward is the one of its forward, and no two of those in flight share one. */
static void inputs_stay(struct tv_comm *world)
{
    Pipeline pipeline(world, Table::built("gpipe", tv_comm_size(world), 6), SMALL);
    ASSERT_NE(nullptr, pipeline.executor);
    pipeline.expect_step();
    const std::vector<Call> &calls = pipeline.stage.calls;
    ASSERT_EQ(12u, calls.size());
    for (size_t i = 0; i < 6; i++) {
        EXPECT_EQ(calls[i].args.x, calls[i + 6].args.x);
        for (size_t k = 0; k < i && calls[i].args.x != nullptr; k++)
            EXPECT_NE(calls[k].args.x, calls[i].args.x);
    }
}

/* A transport may hand small messages over without asking, large ones not. */
static void large_messages(struct tv_comm *world)
{
    if (tv_comm_size(world) > 4)
        return; /* memory */
    for (const char *name : {"gpipe", "1f1b"}) {
        Pipeline pipeline(world, Table::built(name, tv_comm_size(world), 3), LARGE);
        ASSERT_NE(nullptr, pipeline.executor);
        pipeline.expect_step();
        if (pipeline.has_failed)
            return;
    }
}

static void expect_evaluation(Pipeline *pipeline, int num_micro)
{
    LinearStage *stage = &pipeline->stage;
    const struct tv_stage_functions functions = stage->functions();
    if (pipeline->has_failed)
        return;
    stage->calls.clear();
    stage->is_eval = true;
    const tv_status_t status = tv_executor_run_forward(pipeline->executor, num_micro, &functions);
    stage->is_eval = false;
    pipeline->has_failed = status != TV_OK;
    ASSERT_OK(status);
    ASSERT_EQ((size_t)num_micro, stage->calls.size());
    for (int i = 0; i < num_micro; i++) {
        const Call &call = stage->calls[(size_t)i];
        EXPECT_EQ(TV_ACT_FORWARD, call.kind);
        EXPECT_EQ(i, call.args.micro);
        EXPECT_EQ(0, call.args.slot);
    }
}

static void evaluation_between_steps(struct tv_comm *world)
{
    for (int m : {1, 4}) {
        Pipeline pipeline(world, Table::built("1f1b", tv_comm_size(world), m), SMALL);
        ASSERT_NE(nullptr, pipeline.executor);
        pipeline.stage.has_delays = true;
        for (int num_micro : {2, 0, 1, 7, 4}) {
            expect_evaluation(&pipeline, num_micro);
            pipeline.expect_step();
        }
        /* Early stages are far ahead, and yet finished when they return: their executor goes. */
        pipeline.stage.late_us = 1000 * tv_comm_rank(world);
        expect_evaluation(&pipeline, 7);
        if (pipeline.has_failed)
            return;
    }
}

/* The prediction is what is asked for; nothing is left behind (~Pipeline). */
static void memory_as_predicted(struct tv_comm *world)
{
    const int P = tv_comm_size(world), stage = tv_comm_rank(world);
    for (int64_t count : {1, 1000}) {
        for (int m : {1, 3, 8}) {
            for (const char *name : {"gpipe", "1f1b"}) {
                Pipeline pipeline(world, Table::built(name, P, m), count);
                ASSERT_NE(nullptr, pipeline.executor);
                EXPECT_EQ(tv_executor_buffer_bytes(pipeline.table.schedule(), stage, count),
                          pipeline.bytes());
            }
        }
    }
    /* 1f1b, stage 1 of 4, m = 8: 3 slots; x 3 + 2, dy 1 + 2, y 3, dx 4 as stage 0 has slots */
    Table table = Table::built("1f1b", 4, 8);
    EXPECT_EQ(15 * 10 * 4, tv_executor_buffer_bytes(table.schedule(), 1, 10));
    EXPECT_EQ((3 + 4) * 10 * 4, tv_executor_buffer_bytes(table.schedule(), 0, 10));
    EXPECT_EQ((3 + 2) * 10 * 4, tv_executor_buffer_bytes(table.schedule(), 3, 10));
}

static tv_status_t create(struct tv_comm *world, Table table, int64_t count,
                          struct tv_executor **executor)
{
    struct tv_device *device = nullptr;
    struct tv_stream *stream = nullptr;
    EXPECT_EQ(TV_OK, tv_device_open(TV_DEVICE_CPU, 1, &device));
    EXPECT_EQ(TV_OK, tv_stream_create(device, &stream));
    const tv_status_t status = tv_executor_create(world, stream, table.schedule(), count, executor);
    tv_stream_destroy(stream);
    tv_device_close(device);
    return status;
}

static void refusals(struct tv_comm *world)
{
    const int P = tv_comm_size(world);
    struct tv_executor *const untouched = (struct tv_executor *)world, *executor = untouched;
    EXPECT_EQ(TV_INVALID, create(world, Table::built("1f1b", P + 1, 2), SMALL, &executor));
    EXPECT_EQ("schedule 1f1b has " + std::to_string(P + 1) + " stages, the pipe axis " +
                  std::to_string(P) + " ranks",
              std::string(tv_error_message()));
    EXPECT_EQ(TV_INVALID, create(world, Table::built("1f1b", P, 2), 0, &executor));
    EXPECT_STREQ("messages of 0 elements", tv_error_message());
    Table broken = Table::built("1f1b", P, 2);
    broken.stages[0].pop_back();
    EXPECT_EQ(TV_INVALID, create(world, broken, SMALL, &executor));
    EXPECT_STREQ("schedule 1f1b: stage 0: B of micro-batch 1, chunk 0 is missing",
                 tv_error_message());
    EXPECT_EQ(TV_UNSUPPORTED, create(world, zero_bubble(P, P), SMALL, &executor));
    if (P == 1) {
        Table chunks(1, 2, 1);
        set_list(&chunks, 0, "F0 F0.1 B0.1 B0");
        EXPECT_EQ(TV_UNSUPPORTED, create(world, chunks, SMALL, &executor));
    }
    EXPECT_EQ(untouched, executor);
}

/* Messages need not stand beside what they belong to: received long before, sent long after. */
static void messages_early_and_late(struct tv_comm *world)
{
    if (tv_comm_size(world) != 2)
        return;
    Table table(2, 1, 4);
    set_list(&table, 0,
             "F0 F1 F2 SEND_F0>1 SEND_F1>1 SEND_F2>1 F3 SEND_F3>1 "
             "RECV_B0>1 RECV_B1>1 RECV_B2>1 RECV_B3>1 B0 B1 B2 B3");
    set_list(&table, 1,
             "RECV_F0>0 RECV_F1>0 RECV_F2>0 RECV_F3>0 F0 B0 F1 B1 F2 F3 B2 B3 "
             "SEND_B0>0 SEND_B1>0 SEND_B2>0 SEND_B3>0");
    Pipeline pipeline(world, table, SMALL);
    ASSERT_NE(nullptr, pipeline.executor);
    for (int step = 0; step < 3; step++)
        pipeline.expect_step();
}

static void several_chunks(struct tv_comm *world)
{
    const int P = tv_comm_size(world);
    if (P == 1)
        return;
    const struct {
        int v, m, spread;
    } rows[] = {{2, 1, 2}, {2, 2, 1}, {2, 5, 2}, {2, 8, 1}, {3, 3, 2}, {3, 4, 1}};
    for (const auto &row : rows) {
        SCOPED_TRACE("v=" + std::to_string(row.v) + ", m=" + std::to_string(row.m));
        Pipeline pipeline(world, interleaved(P, row.v, row.m, row.spread), SMALL);
        ASSERT_NE(nullptr, pipeline.executor);
        pipeline.expect_step();
        pipeline.stage.has_delays = true;
        pipeline.expect_step();
        if (pipeline.has_failed)
            return;
        const struct tv_stage_functions functions = pipeline.stage.functions();
        EXPECT_EQ(TV_UNSUPPORTED, tv_executor_run_forward(pipeline.executor, 1, &functions));
    }
}

const std::vector<RankCase> &executor_cases()
{
    static const std::vector<RankCase> cases = {
        {"EachSchedule", each_schedule},
        {"FiftySteps", fifty_steps},
        {"InputsStay", inputs_stay},
        {"LargeMessages", large_messages},
        {"EvaluationBetweenSteps", evaluation_between_steps},
        {"MemoryAsPredicted", memory_as_predicted},
        {"Refusals", refusals},
        {"MessagesEarlyAndLate", messages_early_and_late},
        {"SeveralChunks", several_chunks},
    };
    return cases;
}
