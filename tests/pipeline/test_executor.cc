/* tests/pipeline/test_executor.cc -- the executor's contract over threads, and what stages see when
 * one fails. */
#include "pipeline/contract_executor.h"
#include <atomic>

class ThreadExecutor : public testing::TestWithParam<std::tuple<RankCase, int>>
{
};

TEST_P(ThreadExecutor, Holds)
{
    run_threads(std::get<1>(GetParam()), std::get<0>(GetParam()).run);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadExecutor,
                         testing::Combine(testing::ValuesIn(executor_cases()),
                                          testing::Values(1, 2, 3, 4, 8)),
                         [](const auto &test) {
                             return std::string(std::get<0>(test.param).name) +
                                    std::to_string(std::get<1>(test.param));
                         });

/* Memory that one stage lacks is the verdict of all, before anybody waits for a deadline. */
TEST(ThreadExecutorMemory, OneStagesIsEveryStages)
{
    const struct tv_schedule_args args = {"1f1b", 3, 1, 4, 0};
    struct tv_schedule schedule = {};
    ASSERT_OK(tv_schedule_build(&args, &schedule));
    for (const int64_t after : {0, 3, 6})
        run_threads(3, [&](struct tv_comm *pipe) {
            struct tv_device *device = nullptr;
            struct tv_stream *stream = nullptr;
            struct tv_executor *executor = nullptr;
            ASSERT_OK(tv_device_open(TV_DEVICE_CPU, 1, &device));
            ASSERT_OK(tv_stream_create(device, &stream));
            if (tv_comm_rank(pipe) == 1)
                fail_allocation(after);
            EXPECT_EQ(TV_NO_MEMORY,
                      tv_executor_create(pipe, stream, &schedule, 16, TV_F32, &executor));
            EXPECT_EQ(nullptr, executor);
            tv_stream_destroy(stream);
            tv_device_close(device);
        });
    tv_schedule_destroy(&schedule);
}

/* How many calls each stage gets to while `stalled` stands before its call number `call`, and all
 * others do what they can: receives wait for their messages, sends for nothing. */
static std::vector<int> calls_within_reach(const Table &table, size_t stalled, int call)
{
    const size_t P = table.stages.size();
    std::vector<size_t> next(P);
    std::vector<int> num_calls(P), num_sent(P * P * 2);
    auto take = [&](size_t s, const struct tv_action &a) {
        const size_t other = a.peer < 0 ? s : (size_t)a.peer;
        const size_t is_backward = a.kind == TV_ACT_SEND_BACKWARD || a.kind == TV_ACT_RECV_BACKWARD;
        if (tv_action_is_compute(a.kind))
            return !(s == stalled && num_calls[s] == call) && ++num_calls[s] > 0;
        if (tv_action_is_send(a.kind))
            return ++num_sent[(s * P + other) * 2 + is_backward] > 0;
        return --num_sent[(other * P + s) * 2 + is_backward] >= 0 ||
               ++num_sent[(other * P + s) * 2 + is_backward] > 0;
    };
    for (bool did = true; did;) {
        did = false;
        for (size_t s = 0; s < P; s++) {
            for (; next[s] < table.stages[s].size() && take(s, table.stages[s][next[s]]); next[s]++)
                did = true;
        }
    }
    return num_calls;
}

/* Whichever stage stands still, wherever: the others get as far as its messages let them. So no
 * send waits for a buffer whose message the peer has not taken. */
static void expect_sends_never_wait(const Table &table, int every)
{
    const size_t P = table.stages.size();
    std::vector<std::atomic<int64_t>> done(P);
    SCOPED_TRACE(table.name);
    run_threads((int)P, [&](struct tv_comm *pipe) {
        const size_t self = (size_t)tv_comm_rank(pipe);
        Pipeline pipeline(pipe, table, 16);
        const std::vector<int> all = calls_within_reach(table, 0, -1);
        std::vector<int64_t> before(P); /* calls of earlier steps */
        pipeline.stage.after_call = [&] { done[self]++; };
        for (size_t stalled = 0; stalled < P; stalled++) {
            for (int call = 0; call < all[stalled]; call += every) {
                const std::vector<int> reach = calls_within_reach(table, stalled, call);
                auto is_reached = [&] {
                    for (size_t s = 0; s < P; s++) {
                        if (done[s] < before[s] + reach[s])
                            return false;
                    }
                    return true;
                };
                pipeline.stage.before_call = [&] {
                    if (self != stalled || (int)pipeline.stage.calls.size() != call)
                        return;
                    int round = 0;
                    while (!is_reached() && round < 100000)
                        tv_comm_relax(round++);
                    EXPECT_TRUE(is_reached()) << "stage " << stalled << ", call " << call;
                };
                pipeline.expect_step();
                for (size_t s = 0; s < P; s++)
                    before[s] += all[s];
                if (pipeline.has_failed || testing::Test::HasFailure())
                    return;
            }
        }
    });
}

TEST(ThreadExecutorStall, SendsNeverWait)
{
    for (const Table &table : tables(3, 4))
        expect_sends_never_wait(table, 1);
    for (const Table &table : tables(4, 9))
        expect_sends_never_wait(table, 7);
    for (unsigned seed = 10; seed < 40; seed++)
        expect_sends_never_wait(any_order(2 + (int)seed % 3, 1 + (int)seed % 4, 4, seed), 3);
}

/* One stage fails in the forward of micro-batch 2 and ends the job: it returns its own status and
 * sentence, the others end because of it, and all give back what they hold. */
static void expect_failure(const Table &table, int failing)
{
    const int num_stages = (int)table.stages.size();
    std::atomic<int> num_ended{0};
    SCOPED_TRACE(table.name);
    run_threads(num_stages, [&](struct tv_comm *pipe) {
        Pipeline pipeline(pipe, table, 16);
        ASSERT_NE(nullptr, pipeline.executor);
        pipeline.expect_step();
        const bool is_failing = tv_comm_rank(pipe) == failing;
        pipeline.stage.fail_micro = is_failing ? 2 : -1;
        struct tv_executor_report report = {-7, -7, -7, -7, -7, -7};
        const tv_status_t status = pipeline.run(&report);
        if (is_failing) {
            EXPECT_EQ(TV_NUMERIC, status);
            EXPECT_EQ("stage " + std::to_string(failing) + " fails on purpose",
                      std::string(tv_error_message()));
            EXPECT_EQ(2, pipeline.stage.calls.back().args.micro);
            tv_comm_abort(pipe, 4);
        } else {
            EXPECT_EQ(TV_PEER, status);
            EXPECT_EQ(1, tv_comm_is_aborted(pipe));
        }
        EXPECT_EQ(-7, report.ended);
        num_ended++;
    });
    EXPECT_EQ(num_stages, num_ended);
}

TEST(ThreadExecutorFailure, OneStageFails)
{
    for (const Table &table : tables(4, 4)) {
        for (int failing = 0; failing < 4; failing++)
            expect_failure(table, failing);
    }
    expect_failure(Table::built("1f1b", 1, 4), 0);
}

/* `silent` never walks; the other of two stages says what it waits for. */
static void expect_deadline(const Table &table, int silent, const std::string &sentence)
{
    std::atomic<bool> is_over{false};
    run_threads(2, [&](struct tv_comm *pipe) {
        tv_comm_set_timeout(pipe, 0.2);
        Pipeline pipeline(pipe, table, 16);
        struct tv_executor_report report;
        if (tv_comm_rank(pipe) != silent) {
            EXPECT_EQ(TV_PEER, pipeline.run(&report));
            EXPECT_EQ(sentence, tv_error_message());
            is_over = true;
        }
        for (int round = 0; !is_over; round++)
            tv_comm_relax(round);
    });
}

/* A deadline that passes names axis, stage, action, micro-batch, and chunk where there are some. */
TEST(ThreadExecutorFailure, DeadlineSaysWhatWasGoingOn)
{
    expect_deadline(Table::built("1f1b", 2, 2), 0,
                    "pipe forward axis, rank 1: receive of 16 elements: no answer from rank 0 in "
                    "0.2 s (while: stage 1, forward of micro-batch 0)");
    expect_deadline(Table::built("1f1b", 2, 2), 1,
                    "pipe backward axis, rank 0: receive of 16 elements: no answer from rank 1 in "
                    "0.2 s (while: stage 0, backward of micro-batch 0)");
    expect_deadline(Table::built("interleaved", 2, 2), 1,
                    "pipe forward axis, rank 0: receive of 16 elements: no answer from rank 1 in "
                    "0.2 s (while: stage 0, forward of micro-batch 0, chunk 1)");
}

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
