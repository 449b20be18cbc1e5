// The executor on ranks that are threads: order of calls, values, buffers, slots, failures (rows B10, B19, B20).
#include "pipeline/executor_case.h"
#include <thread>

namespace
{
template <typename Function> void on_threads(int num, Function function)
{
    std::vector<tv_comm *> comms((size_t)num);
    ASSERT_EQ(tv_comm_thread_create(num, comms.data()), TV_OK);
    std::vector<std::thread> threads;
    for (int r = 0; r < num; r++)
        threads.emplace_back([&, r] {
            tv_comm_set_timeout(comms[(size_t)r], 60);
            function(comms[(size_t)r]);
            if (testing::Test::HasFailure())
                tv_comm_abort(comms[(size_t)r], 1); // nobody waits for a rank that gave up
        });
    for (std::thread &thread : threads)
        thread.join();
    for (tv_comm *comm : comms)
        tv_comm_destroy(comm);
}

void all_sizes(const char *name, int64_t count)
{
    for (int P : {1, 2, 3, 4, 8})
        for (int m : {1, 2, 3, 5, 8}) {
            tv_schedule schedule = {};
            ASSERT_EQ(tv_schedule_build(name, P, m, &schedule), TV_OK);
            on_threads(P, [&](tv_comm *comm) { run_case(comm, schedule, count, 3, m + 2); });
            tv_schedule_destroy(&schedule);
        }
}
} // namespace

TEST(Executor, GpipeGivesEveryMicroBatchItsOwnNumbers)
{
    all_sizes("gpipe", 16);
}

TEST(Executor, OneForwardOneBackwardToo)
{
    all_sizes("1f1b", 16);
}

TEST(Executor, LargeMessages)
{
    tv_schedule schedule = {};
    ASSERT_EQ(tv_schedule_build("1f1b", 4, 5, &schedule), TV_OK);
    on_threads(4, [&](tv_comm *comm) { run_case(comm, schedule, 1 << 20, 1, 1); }); // 4 MiB
    tv_schedule_destroy(&schedule);
}

TEST(Executor, AFailingStageFunctionIsReturnedAndEndsThePeers)
{
    tv_schedule schedule = {};
    ASSERT_EQ(tv_schedule_build("1f1b", 3, 4, &schedule), TV_OK);
    std::vector<tv_comm *> comms(3);
    ASSERT_EQ(tv_comm_thread_create(3, comms.data()), TV_OK);
    std::vector<tv_status_t> statuses(3);
    std::vector<std::thread> threads;
    for (int r = 0; r < 3; r++)
        threads.emplace_back([&, r] {
            tv_device *device = nullptr;
            tv_stream *stream = nullptr;
            tv_executor *executor = nullptr;
            StageLog log;
            log.stage = r;
            log.num_stages = 3;
            log.num_slots = 3;
            log.fail_at = r == 1 ? 2 : -1;
            const tv_stage_functions functions = {&log, case_forward, case_backward};
            tv_executor_report report = {};
            ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
            ASSERT_EQ(tv_stream_create(device, &stream), TV_OK);
            ASSERT_EQ(tv_executor_create(comms[(size_t)r], stream, &schedule, 4, &executor), TV_OK);
            statuses[(size_t)r] = tv_executor_run(executor, &functions, &report);
            if (statuses[(size_t)r] != TV_OK)
                tv_comm_abort(comms[(size_t)r], 1);
            tv_executor_destroy(executor);
            tv_stream_destroy(stream);
            tv_device_close(device);
        });
    for (std::thread &thread : threads)
        thread.join();
    for (tv_comm *comm : comms)
        tv_comm_destroy(comm);
    EXPECT_EQ(statuses[1], TV_INTERNAL);
    EXPECT_EQ(statuses[0], TV_PEER);
    EXPECT_EQ(statuses[2], TV_PEER);
    tv_schedule_destroy(&schedule);
}

TEST(Executor, ASilentStageIsNamedWithWhatWasWaitedFor)
{
    tv_schedule schedule = {};
    ASSERT_EQ(tv_schedule_build("gpipe", 2, 2, &schedule), TV_OK);
    std::vector<tv_comm *> comms(2);
    ASSERT_EQ(tv_comm_thread_create(2, comms.data()), TV_OK);
    std::string message;
    std::vector<std::thread> threads;
    for (int r = 0; r < 2; r++)
        threads.emplace_back([&, r] {
            tv_device *device = nullptr;
            tv_stream *stream = nullptr;
            tv_executor *executor = nullptr;
            StageLog log;
            log.stage = r;
            log.num_stages = 2;
            log.num_slots = 2;
            const tv_stage_functions functions = {&log, case_forward, case_backward};
            tv_executor_report report = {};
            tv_comm_set_timeout(comms[(size_t)r], 0.3);
            ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
            ASSERT_EQ(tv_stream_create(device, &stream), TV_OK);
            ASSERT_EQ(tv_executor_create(comms[(size_t)r], stream, &schedule, 4, &executor), TV_OK);
            if (r == 1) { // stage 0 does nothing at all
                EXPECT_EQ(tv_executor_run(executor, &functions, &report), TV_PEER);
                message = tv_error_message();
            }
            tv_executor_destroy(executor);
            tv_stream_destroy(stream);
            tv_device_close(device);
        });
    for (std::thread &thread : threads)
        thread.join();
    for (tv_comm *comm : comms)
        tv_comm_destroy(comm);
    for (const char *words : {"pipe", "rank 0", "0.3 s", "stage 1, forward of micro-batch 0"})
        EXPECT_NE(message.find(words), std::string::npos) << message;
    tv_schedule_destroy(&schedule);
}

TEST(Executor, RefusesAScheduleOfAnotherSize)
{
    tv_schedule schedule = {};
    ASSERT_EQ(tv_schedule_build("gpipe", 2, 2, &schedule), TV_OK);
    tv_comm *self = nullptr;
    tv_executor *executor = nullptr;
    ASSERT_EQ(tv_comm_self_create(&self), TV_OK);
    EXPECT_EQ(tv_executor_create(self, nullptr, &schedule, 4, &executor), TV_INVALID);
    EXPECT_EQ(executor, nullptr);
    tv_comm_destroy(self);
    tv_schedule_destroy(&schedule);
}
