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

/* One stage fails in the forward of micro-batch 2 and ends the job: it returns its own status and
 * sentence, the others end because of it, and all give back what they hold. */
static void expect_failure(int num_stages, int failing, const char *name)
{
    std::atomic<int> num_ended{0};
    run_threads(num_stages, [&](struct tv_comm *pipe) {
        Pipeline pipeline(pipe, Table::built(name, num_stages, 4), 16);
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
    for (const char *name : {"gpipe", "1f1b"}) {
        for (int failing = 0; failing < 4; failing++)
            expect_failure(4, failing, name);
    }
    expect_failure(1, 0, "1f1b");
}

/* A deadline that passes names axis, stage, action and micro-batch. */
TEST(ThreadExecutorFailure, DeadlineSaysWhatWasGoingOn)
{
    std::atomic<int> is_over{0};
    run_threads(2, [&](struct tv_comm *pipe) {
        tv_comm_set_timeout(pipe, 0.2);
        Pipeline pipeline(pipe, Table::built("1f1b", 2, 2), 16);
        ASSERT_NE(nullptr, pipeline.executor);
        struct tv_executor_report report;
        if (tv_comm_rank(pipe) == 1) {
            EXPECT_EQ(TV_PEER, pipeline.run(&report));
            EXPECT_STREQ("pipe forward axis, rank 1: receive of 16 elements: no answer from rank 0 "
                         "in 0.2 s (while: stage 1, forward of micro-batch 0)",
                         tv_error_message());
            is_over = 1;
        }
        for (int round = 0; !is_over; round++)
            tv_comm_relax(round);
    });
    run_threads(2, [&](struct tv_comm *pipe) {
        tv_comm_set_timeout(pipe, 0.2);
        Pipeline pipeline(pipe, Table::built("1f1b", 2, 2), 16);
        ASSERT_NE(nullptr, pipeline.executor);
        struct tv_executor_report report;
        if (tv_comm_rank(pipe) == 0) {
            EXPECT_EQ(TV_PEER, pipeline.run(&report));
            EXPECT_STREQ(
                "pipe backward axis, rank 0: receive of 16 elements: no answer from rank 1 "
                "in 0.2 s (while: stage 0, backward of micro-batch 0)",
                tv_error_message());
            is_over = 2;
        }
        for (int round = 0; is_over < 2; round++)
            tv_comm_relax(round);
    });
}

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
