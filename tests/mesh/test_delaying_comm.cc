/* The delaying communicator of the tests: messages take latency and bytes / rate, one after the
 * other, and what is done meanwhile does not count. */
#include "base/clock.h"
#include "mesh/delaying_comm.h"
#include "mesh/ranks.h"
#include <chrono>

namespace
{

constexpr double latency = 0.02, rate = 1e6;

void run_delayed(const RankBody &body)
{
    struct delaying_links *links = nullptr;
    ASSERT_OK(delaying_links_create(2, latency, rate, &links));
    run_threads(2, [&](struct tv_comm *inner) {
        struct tv_comm *comm = nullptr;
        ASSERT_OK(delaying_comm_create(inner, links, &comm));
        body(comm);
        tv_comm_destroy(comm);
    });
    delaying_links_destroy(links);
}

TEST(DelayingComm, AMessageTakesLatencyAndItsBytes)
{
    run_delayed([](struct tv_comm *comm) {
        std::vector<float> x(10000, (float)tv_comm_rank(comm)); /* 40 ms */
        struct tv_request *request = nullptr;
        const double started = tv_clock_seconds();
        const tv_status_t status =
            tv_comm_rank(comm) == 0
                ? tv_comm_send(comm, x.data(), 10000, TV_F32, 1, nullptr, &request)
                : tv_comm_recv(comm, x.data(), 10000, TV_F32, 0, nullptr, &request);
        ASSERT_OK(status);
        ASSERT_OK(tv_request_wait(&request));
        EXPECT_EQ(0, x[9999]);
        EXPECT_GE(tv_clock_seconds() - started, tv_comm_rank(comm) == 0 ? 0.06 : 0);
    });
}

TEST(DelayingComm, MessagesOfARankLeaveOneAfterTheOther)
{
    run_delayed([](struct tv_comm *comm) {
        std::vector<float> x(10000, 1), y(20000);
        struct tv_request *requests[2];
        const double started = tv_clock_seconds();
        for (struct tv_request *&request : requests)
            ASSERT_OK(
                tv_comm_all_gather(comm, x.data(), y.data(), 10000, TV_F32, nullptr, &request));
        for (struct tv_request *&request : requests)
            ASSERT_OK(tv_request_wait(&request));
        EXPECT_GE(tv_clock_seconds() - started, 0.1);
    });
}

TEST(DelayingComm, SumsAreThoseOfTheCommBelow)
{
    run_delayed([](struct tv_comm *comm) {
        std::vector<float> x(5000, (float)(tv_comm_rank(comm) + 1)); /* in two phases */
        ASSERT_OK(tv_comm_all_reduce_wait(comm, x.data(), 5000, TV_F32, TV_SUM, nullptr));
        EXPECT_EQ(std::vector<float>(5000, 3), x);
        const struct tv_comm_stats stats = tv_comm_get_stats(comm);
        EXPECT_EQ(20000, stats.sent_bytes);
        EXPECT_GE(stats.wait_seconds, 2 * (latency + 0.01) - 0.005);
    });
}

TEST(DelayingComm, WorkMeanwhileHidesIt)
{
    run_delayed([](struct tv_comm *comm) {
        std::vector<float> x(5000, 1);
        struct tv_request *request = nullptr;
        ASSERT_OK(tv_comm_all_reduce(comm, x.data(), 5000, TV_F32, TV_SUM, nullptr, &request));
        /* progress takes the step between the phases, which nobody waits for yet */
        const double until = tv_clock_seconds() + 0.5;
        while (tv_clock_seconds() < until) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            tv_comm_progress(comm);
        }
        ASSERT_OK(tv_request_wait(&request));
        EXPECT_EQ(std::vector<float>(5000, 2), x);
    });
}

} // namespace
