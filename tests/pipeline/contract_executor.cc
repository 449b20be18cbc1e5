/* tests/pipeline/contract_executor.cc -- order, values and buffers of each call, on any number
 * of stages. */
#include "pipeline/contract_executor.h"
#include "pipeline/executor_internal.h"
#include <set>

enum { SMALL = 16, LARGE = 2 << 20 }; /* floats: 64 bytes, 8 MiB */

static std::string describe(const Table &table)
{
    return table.name + ", v=" + std::to_string(table.num_chunks) +
           ", m=" + std::to_string(table.num_micro);
}

/* Messages that a stage sends in a step: for each chunk whose neighbour is on another stage. */
static int64_t bytes_sent(Table *table, int stage, int shift)
{
    int64_t num = 0;
    for (int c = 0; c < table->num_chunks; c++) {
        const int peer = tv_schedule_neighbour(table->schedule(), stage, c, shift);
        num += peer >= 0 && peer != stage;
    }
    return num * table->num_micro * SMALL * (int64_t)sizeof(float);
}

static void expect_one_step(struct tv_comm *world, Table table, bool has_delays)
{
    SCOPED_TRACE(describe(table));
    const int stage = tv_comm_rank(world);
    Pipeline pipeline(world, table, SMALL);
    pipeline.stage.has_delays = has_delays;
    pipeline.expect_step();
    if (pipeline.has_failed)
        return;
    EXPECT_EQ(bytes_sent(&table, stage, +1),
              tv_comm_get_stats(pipeline.executor->forward).sent_bytes);
    EXPECT_EQ(bytes_sent(&table, stage, -1),
              tv_comm_get_stats(pipeline.executor->backward).sent_bytes);
}

static void each_schedule(struct tv_comm *world)
{
    const int P = tv_comm_size(world);
    for (int m : std::set<int>{1, 2, std::max(1, P - 1), P, P + 1, 2 * P + 1}) {
        for (const Table &table : tables(P, m)) {
            expect_one_step(world, table, m == P + 1);
            if (testing::Test::HasFailure())
                return;
        }
    }
}

/* Every step uses the same buffers for the same calls, and no new memory. */
static void fifty_steps(struct tv_comm *world)
{
    const int P = tv_comm_size(world);
    for (const Table &table : tables(P, 5)) {
        SCOPED_TRACE(describe(table));
        Pipeline pipeline(world, table, SMALL);
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
                ASSERT_TRUE(a.micro == b.micro && a.slot == b.slot && a.work == b.work &&
                            a.x == b.x && a.y == b.y && a.dy == b.dy && a.dx == b.dx)
                    << "step " << step << ", call " << i;
            }
        }
    }
}

/* The x of a backward is the one of its forward, and no two of those in flight share one. */
static void inputs_stay(struct tv_comm *world)
{
    Pipeline pipeline(world, Table::built("gpipe", tv_comm_size(world), 6), SMALL);
    pipeline.expect_step();
    const std::vector<Call> &calls = pipeline.stage.calls;
    ASSERT_EQ(12u, calls.size());
    for (size_t i = 0; i < 6; i++) {
        EXPECT_EQ(calls[i].args.x, calls[i + 6].args.x);
        for (size_t k = 0; k < i && calls[i].args.x != nullptr; k++)
            EXPECT_NE(calls[k].args.x, calls[i].args.x);
    }
}

/* The y of a position is the x of the next on the same stage, its dx is that one's dy; nothing is
 * copied. */
static void neighbours_hand_over(struct tv_comm *world)
{
    const int P = tv_comm_size(world), m = 3;
    Pipeline pipeline(world, chunkwise(blocks(P, 3, m), true), SMALL);
    pipeline.expect_step();
    if (pipeline.has_failed)
        return;
    auto find = [&](tv_action_kind_t kind, int chunk, int micro) {
        for (const Call &call : pipeline.stage.calls) {
            if (call.kind == kind && call.args.chunk == chunk && call.args.micro == micro)
                return call.args;
        }
        ADD_FAILURE() << "no such call";
        return tv_stage_call{};
    };
    for (int i = 0; i < m; i++) {
        for (int c = 0; c < 2; c++) {
            const void *x = find(TV_ACT_FORWARD, c + 1, i).x;
            EXPECT_EQ(find(TV_ACT_FORWARD, c, i).y, x);
            EXPECT_EQ(find(TV_ACT_BACKWARD_WEIGHT, c + 1, i).x, x);
            const void *dy = find(TV_ACT_BACKWARD_INPUT, c, i).dy;
            EXPECT_EQ(find(TV_ACT_BACKWARD_INPUT, c + 1, i).dx, dy);
            EXPECT_EQ(find(TV_ACT_BACKWARD_WEIGHT, c, i).dy, dy);
        }
    }
}

/* A transport may hand small messages over without asking, large ones not. */
static void large_messages(struct tv_comm *world)
{
    const int P = tv_comm_size(world);
    if (P > 4)
        return; /* memory */
    std::vector<Table> all = {Table::built("gpipe", P, 3), Table::built("1f1b", P, 3),
                              chunkwise(Table(P, 2, 2, TV_PLACE_V), true)};
    for (int m = 2; m <= 5; m++)
        all.push_back(interleaved(P, 2, m, 2));
    for (const Table &table : all) {
        SCOPED_TRACE(describe(table));
        Pipeline pipeline(world, table, LARGE);
        pipeline.expect_step();
        if (pipeline.has_failed)
            return;
    }
}

static void evaluation_between_steps(struct tv_comm *world)
{
    const int P = tv_comm_size(world);
    for (int m : {1, 4}) {
        for (const Table &table : tables(P, m)) {
            SCOPED_TRACE(describe(table));
            Pipeline pipeline(world, table, SMALL);
            pipeline.stage.has_delays = table.name == "1f1b" || table.name == "V";
            for (int num_micro : {2, 0, 1, 3 * P + 1, 4}) {
                pipeline.expect_evaluation(num_micro);
                pipeline.expect_step();
            }
            /* Early stages are far ahead, and yet finished when they return: their executor goes. */
            if (pipeline.stage.has_delays)
                pipeline.stage.late_us = 1000 * tv_comm_rank(world);
            pipeline.expect_evaluation(7);
            if (pipeline.has_failed)
                return;
        }
    }
}

/* The groups are as large as the buffers of a step allow. */
static void evaluation_groups(struct tv_comm *world)
{
    if (tv_comm_size(world) != 1)
        return;
    struct Row {
        Table table;
        int group;
    } rows[] = {
        {interleaved(4, 2, 8, 2), 5}, /* slots of chunk 0 on stage 3 */
        {interleaved(4, 2, 1, 2), 1},
        {chunkwise(Table(2, 2, 3, TV_PLACE_V), false), 4}, /* 2P */
        {chunkwise(blocks(1, 2, 5), false), 2},            /* 2P */
    };
    for (Row &row : rows)
        EXPECT_EQ(row.group, tv_plan_evaluation_group(row.table.schedule())) << describe(row.table);
}

/* The prediction is what is asked for; nothing is left behind (~Pipeline). */
static void memory_as_predicted(struct tv_comm *world)
{
    const int P = tv_comm_size(world), stage = tv_comm_rank(world);
    for (int m : {1, 8}) {
        for (const Table &table : tables(P, m)) {
            SCOPED_TRACE(describe(table));
            Pipeline pipeline(world, table, 100 * m + 1);
            if (pipeline.has_failed)
                return;
            EXPECT_EQ(
                tv_executor_buffer_bytes(pipeline.table.schedule(), stage, 100 * m + 1, TV_F32),
                pipeline.bytes());
        }
    }
}

/* x, dy, y, dx by hand. */
static void buffers_by_hand(struct tv_comm *world)
{
    if (tv_comm_size(world) != 1)
        return;
    struct Row {
        Table table;
        int stage, x, dy, y, dx;
    } rows[] = {
        /* 3 slots; one dy; the stage above has 4 slots */
        {Table::built("1f1b", 4, 8), 1, 3 + 2, 1 + 2, 3, 4},
        {Table::built("1f1b", 4, 8), 0, 0, 1 + 2, 4, 0},
        {Table::built("1f1b", 4, 8), 3, 1 + 2, 0, 0, 2},
        /* I and W in turn but for the last: W of 2 micro-batches wait, with x and dy */
        {zero_bubble(4, 8), 1, 4 + 2, 2 + 2, 4, 4},
        /* all F of chunk 0, then of chunk 1: the turn on stage 1 keeps 3 x beside the received */
        {chunkwise(Table(2, 2, 3, TV_PLACE_V), false), 1, 6 + 2, 4 + 2, 3, 3},
        {chunkwise(Table(2, 2, 3, TV_PLACE_V), false), 0, 3 + 2, 1 + 2, 3, 3},
        /* nothing is sent */
        {chunkwise(blocks(1, 3, 2), false), 0, 4, 3, 0, 0},
        {Table::built("gpipe", 1, 4), 0, 0, 0, 0, 0},
    };
    for (Row &row : rows) {
        const struct tv_schedule *schedule = row.table.schedule();
        SCOPED_TRACE(describe(row.table) + ", stage " + std::to_string(row.stage));
        EXPECT_EQ(row.x, tv_plan_inbox(schedule, row.stage, TV_ACT_RECV_FORWARD));
        EXPECT_EQ(row.dy, tv_plan_inbox(schedule, row.stage, TV_ACT_RECV_BACKWARD));
        EXPECT_EQ((row.x + row.dy + row.y + row.dx) * 10 * 4,
                  tv_executor_buffer_bytes(schedule, row.stage, 10, TV_F32));
        EXPECT_EQ((row.x + row.dy + row.y + row.dx) * 10 * 2,
                  tv_executor_buffer_bytes(schedule, row.stage, 10, TV_BF16));
    }
}

static tv_status_t create(struct tv_comm *world, Table table, int64_t count,
                          struct tv_executor **executor)
{
    struct tv_device *device = nullptr;
    struct tv_stream *stream = nullptr;
    EXPECT_EQ(TV_OK, tv_device_open(TV_DEVICE_CPU, 1, &device));
    EXPECT_EQ(TV_OK, tv_stream_create(device, &stream));
    const tv_status_t status =
        tv_executor_create(world, stream, table.schedule(), count, TV_F32, executor);
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
    EXPECT_EQ(untouched, executor);
}

/* Refused before anything is under way: the executor is as good as before. */
static void needs_functions_for_both_parts(struct tv_comm *world)
{
    Pipeline pipeline(world, zero_bubble(tv_comm_size(world), tv_comm_size(world)), SMALL);
    struct tv_stage_functions functions = pipeline.stage.functions();
    struct tv_executor_report report = {-7, -7, -7, -7, -7, -7};
    functions.backward_weight = nullptr;
    EXPECT_EQ(TV_INVALID, tv_executor_run(pipeline.executor, &functions, &report));
    EXPECT_STREQ("schedule zb-h1 has I and W, the stage functions have not", tv_error_message());
    EXPECT_EQ(-7, report.ended);
    EXPECT_TRUE(pipeline.stage.calls.empty());
    pipeline.expect_step();
    functions.backward_input = nullptr;
    Pipeline whole(world, Table::built("1f1b", tv_comm_size(world), 2), SMALL);
    functions = whole.stage.functions();
    functions.backward_input = functions.backward_weight = nullptr;
    ASSERT_OK(tv_executor_run(whole.executor, &functions, &report));
    EXPECT_EQ(4u, whole.stage.calls.size());
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
    for (int step = 0; step < 3; step++)
        pipeline.expect_step();
}

const std::vector<RankCase> &executor_cases()
{
    static const std::vector<RankCase> cases = {
        {"EachSchedule", each_schedule},
        {"FiftySteps", fifty_steps},
        {"InputsStay", inputs_stay},
        {"NeighboursHandOver", neighbours_hand_over},
        {"LargeMessages", large_messages},
        {"EvaluationBetweenSteps", evaluation_between_steps},
        {"EvaluationGroups", evaluation_groups},
        {"MemoryAsPredicted", memory_as_predicted},
        {"BuffersByHand", buffers_by_hand},
        {"Refusals", refusals},
        {"NeedsFunctionsForBothParts", needs_functions_for_both_parts},
        {"MessagesEarlyAndLate", messages_early_and_late},
    };
    return cases;
}
