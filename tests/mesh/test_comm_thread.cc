/* tests/mesh/test_comm_thread.cc -- the contract over threads and the group of one, and what an abort does. */
#include "mesh/links.h"
#include "mesh/nodes.h"
#include "mesh/ranks.h"
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>

class ThreadContract : public testing::TestWithParam<std::tuple<int, RankCase>>
{
};

TEST_P(ThreadContract, Holds)
{
    run_threads(std::get<0>(GetParam()), std::get<1>(GetParam()).run);
}

INSTANTIATE_TEST_SUITE_P(Ranks, ThreadContract,
                         testing::Combine(testing::Values(1, 2, 3, 4, 8),
                                          testing::ValuesIn(all_cases())),
                         [](const auto &test) {
                             return std::string(std::get<1>(test.param).name) + "_" +
                                    std::to_string(std::get<0>(test.param));
                         });

class SelfContract : public testing::TestWithParam<RankCase>
{
};

TEST_P(SelfContract, Holds)
{
    struct tv_comm *self = nullptr;
    ASSERT_OK(tv_comm_self_create(&self));
    EXPECT_STREQ("self", tv_comm_backend(self));
    run_rank(self, GetParam().run);
    tv_comm_destroy(self);
}

INSTANTIATE_TEST_SUITE_P(Self, SelfContract, testing::ValuesIn(all_cases()),
                         [](const auto &test) { return std::string(test.param.name); });

TEST(CommThread, RefusesNoRanks)
{
    struct tv_comm *comms[1] = {nullptr};
    EXPECT_EQ(TV_INVALID, tv_comm_thread_create(0, comms));
    EXPECT_EQ(TV_INVALID, tv_comm_thread_create(-3, comms));
    EXPECT_EQ(nullptr, comms[0]);
}

/* Memory that one rank lacks is every rank's verdict, before anybody waits for a deadline. */
TEST(CommThread, OneRanksMemoryEndsNodesAndLinksOnAll)
{
    for (const int64_t after : {0, 1, 2})
        run_threads(4, [&](struct tv_comm *world) {
            struct tv_nodes nodes = {};
            struct tv_link_rates rates = {};
            const bool is_short = tv_comm_rank(world) == 2;
            if (is_short)
                fail_allocation(after);
            EXPECT_EQ(TV_NO_MEMORY, tv_nodes_find(world, "a", &nodes));
            ASSERT_OK(tv_nodes_find(world, "a", &nodes));
            if (is_short)
                fail_allocation(after);
            EXPECT_EQ(TV_NO_MEMORY, tv_links_measure(world, &nodes, 0.01, &rates));
            tv_nodes_free(&nodes);
        });
}

/* Peers wait in groups of all kinds, without a deadline; one abort wakes them all. */
TEST(CommThread, AbortWakesEveryGroup)
{
    std::atomic<int> num_waiting = 0;
    run_threads(6, [&](struct tv_comm *world) {
        const int rank = tv_comm_rank(world);
        struct tv_comm *half = nullptr, *pair = nullptr;
        ASSERT_OK(tv_comm_split(world, rank % 2, rank, &half));
        ASSERT_OK(tv_comm_split(half, tv_comm_rank(half) == 2 ? 1 : 0, rank, &pair));
        struct tv_comm *const groups[] = {world, half, tv_comm_size(pair) > 1 ? pair : half};
        struct tv_comm *mine = groups[rank % 3];
        tv_comm_set_timeout(mine, 0);
        EXPECT_EQ(0, tv_comm_is_aborted(world));
        if (rank == 5) {
            while (num_waiting < 5)
                std::this_thread::yield();
            tv_comm_abort(half, 5);
            EXPECT_EQ(0, tv_comm_is_aborted(world)); /* it can say why itself */
            EXPECT_EQ(0, tv_comm_is_aborted(half));
        } else {
            float nothing;
            struct tv_request *request = nullptr;
            const int peer = (tv_comm_rank(mine) + 1) % tv_comm_size(mine);
            ASSERT_OK(tv_comm_recv(mine, &nothing, 1, TV_F32, peer, nullptr, &request));
            num_waiting++;
            EXPECT_EQ(TV_PEER, tv_request_wait(&request));
            EXPECT_NE(std::string::npos,
                      std::string(tv_error_message()).find("another rank has ended the job"));
            EXPECT_EQ(1, tv_comm_is_aborted(world));
            EXPECT_EQ(1, tv_comm_is_aborted(pair));
        }
        tv_comm_destroy(pair);
        tv_comm_destroy(half);
    });
}

enum Collective { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER };

/* buffer: of all ranks' pieces, `count` elements each; an all_reduce takes the first. */
static tv_status_t start_sized(struct tv_comm *world, Collective op, float *buffer, int64_t count,
                               struct tv_request **request_out)
{
    if (op == ALL_REDUCE)
        return tv_comm_all_reduce(world, buffer, count, TV_F32, TV_SUM, nullptr, request_out);
    float *const own = buffer + tv_comm_rank(world) * count;
    if (op == ALL_GATHER)
        return tv_comm_all_gather(world, own, buffer, count, TV_F32, nullptr, request_out);
    return tv_comm_reduce_scatter(world, buffer, own, count, TV_F32, TV_SUM, nullptr, request_out);
}

/* A collective that ranks 1 and 4 never join: the others, once all of them have started, give up and name those two,
 * and the group can go. */
TEST(CommThread, DeadlineNamesAllSilentPeers)
{
    for (const auto &[op, count] : {std::pair(ALL_REDUCE, 100), std::pair(ALL_REDUCE, 100003),
                                    std::pair(ALL_GATHER, 10), std::pair(ALL_GATHER, 20003)}) {
        std::atomic<int> num_started = 0;
        run_threads(5, [&](struct tv_comm *world) {
            const int rank = tv_comm_rank(world);
            tv_comm_set_timeout(world, 0.3);
            tv_comm_set_name(world, "data");
            if (rank == 1 || rank == 4)
                return;
            std::vector<float> buffer(5 * (size_t)count);
            struct tv_request *request = nullptr;
            ASSERT_OK(start_sized(world, op, buffer.data(), count, &request));
            num_started++;
            while (num_started < 3)
                std::this_thread::yield();
            EXPECT_EQ(TV_PEER, tv_request_wait(&request));
            EXPECT_EQ("data axis, rank " + std::to_string(rank) + ": " +
                          (op == ALL_REDUCE ? "all_reduce" : "all_gather") + " of " +
                          std::to_string(count) + " elements: no answer from ranks 1, 4 in 0.3 s",
                      std::string(tv_error_message()));
        });
    }
}

/* Both sides of a message with two lengths are told. */
TEST(CommThread, BothSidesSeeDifferentCounts)
{
    run_threads(2, [](struct tv_comm *world) {
        float buffer[8] = {};
        struct tv_request *request = nullptr;
        if (tv_comm_rank(world) == 0)
            ASSERT_OK(tv_comm_send(world, buffer, 3, TV_F32, 1, nullptr, &request));
        else
            ASSERT_OK(tv_comm_recv(world, buffer, 5, TV_F32, 0, nullptr, &request));
        EXPECT_EQ(TV_PEER, tv_request_wait(&request));
        const std::string message = tv_error_message();
        EXPECT_NE(std::string::npos, message.find("rank 1 expects 20 bytes and rank 0 sends 12"))
            << message;
    });
}

TEST(CommThread, CollectivesOfDifferentCountsFail)
{
    run_threads(3, [](struct tv_comm *world) {
        tv_comm_set_timeout(world, 0.5);
        std::vector<float> buffer(2000, 1.0f);
        const int64_t count = tv_comm_rank(world) == 1 ? 1001 : 1000;
        EXPECT_EQ(TV_PEER, tv_comm_all_reduce_now(world, buffer.data(), count, TV_F32, TV_SUM));
    });
}

/* Rank 1 gives up and frees its buffer as soon as all others may look into it: they either have, or never do, and are
 * told by the abort or by the deadline. What AddressSanitizer and ThreadSanitizer see is the test. */
TEST(CommThread, NobodyLooksIntoMemoryThatWasGivenUp)
{
    enum { COUNT = 40003 };
    static const Collective ops[] = {ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER};
    for (int round = 0; round < 30; round++) {
        std::atomic<int> num_started = 0;
        run_threads(3, [&](struct tv_comm *world) {
            const int rank = tv_comm_rank(world);
            tv_comm_set_timeout(world, 10);
            auto buffer = std::make_unique<std::vector<float>>(3 * COUNT, 1.0f);
            struct tv_request *request = nullptr;
            ASSERT_OK(start_sized(world, ops[round % 3], buffer->data(), COUNT, &request));
            num_started++;
            if (rank != 1) {
                EXPECT_EQ(TV_PEER, tv_request_wait(&request));
                return;
            }
            while (num_started < 3)
                std::this_thread::yield();
            tv_request_cancel(&request);
            buffer.reset();
            tv_comm_abort(world, 1);
        });
    }
}

/* Ranks tell the sizes of what goes through memory to each other before anybody looks. */
TEST(CommThread, LargeCollectivesOfDifferentCountsFail)
{
    for (Collective op : {ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER})
        run_threads(2, [&](struct tv_comm *world) {
            tv_comm_set_timeout(world, 0.5);
            std::vector<float> buffer(40000, 1.0f);
            const int rank = tv_comm_rank(world), factor = op == ALL_REDUCE ? 1 : 2;
            struct tv_request *request = nullptr;
            ASSERT_OK(start_sized(world, op, buffer.data(), 10000 + 5000 * rank, &request));
            EXPECT_EQ(TV_PEER, tv_request_wait(&request));
            const std::string message = tv_error_message(),
                              own = std::to_string(factor * (40000 + 20000 * rank));
            EXPECT_NE(std::string::npos,
                      message.find("rank " + std::to_string(rank) + " expects " + own + " bytes"))
                << message;
            EXPECT_EQ(40000, std::count(buffer.begin(), buffer.end(), 1.0f));
        });
}

/* Also where only the borders between the pieces differ. */
TEST(CommThread, LargeGathersOfDifferentPiecesFail)
{
    run_threads(2, [](struct tv_comm *world) {
        tv_comm_set_timeout(world, 0.5);
        const int rank = tv_comm_rank(world);
        std::vector<float> buffer(20000, 1.0f);
        const int64_t counts[2] = {9000 + 10 * rank, 11000 - 10 * rank};
        struct tv_request *request = nullptr;
        ASSERT_OK(tv_comm_all_gather_v(world, buffer.data() + rank * counts[0], buffer.data(),
                                       counts, TV_F32, nullptr, &request));
        EXPECT_EQ(TV_PEER, tv_request_wait(&request));
        const std::string message = tv_error_message();
        EXPECT_NE(std::string::npos,
                  message.find(rank == 0 ? "rank 0 expects 44000 bytes and rank 1 sends 43960"
                                         : "rank 1 expects 36040 bytes and rank 0 sends 36000"))
            << message;
    });
}

/* When the ranks of a group cannot be asked, the one that failed keeps its own reason. */
TEST(CommThread, AgreementWithoutAnswerKeepsTheLocalFailure)
{
    run_threads(3, [](struct tv_comm *world) {
        int first = 77;
        tv_comm_set_timeout(world, 0.2);
        if (tv_comm_rank(world) == 2)
            return;
        const bool failed = tv_comm_rank(world) == 1;
        const tv_status_t local = failed ? TV_ERR(TV_BAD_FILE, "no such file") : TV_OK;
        EXPECT_EQ(failed ? TV_BAD_FILE : TV_PEER, tv_comm_agree(world, local, &first));
        EXPECT_EQ(-1, first);
        EXPECT_EQ(failed, std::string(tv_error_message()) == "no such file");
    });
}

/* What was cancelled is out of the way: the next message goes to the next receive. */
TEST(CommThread, CancelledReceivesTakeNothing)
{
    run_threads(2, [](struct tv_comm *world) {
        int32_t cancelled = -1, got = -1, letter = 5;
        struct tv_request *request = nullptr;
        if (tv_comm_rank(world) == 1) {
            ASSERT_OK(tv_comm_recv(world, &cancelled, 1, TV_I32, 0, nullptr, &request));
            tv_request_cancel(&request);
            ASSERT_OK(tv_comm_barrier(world));
            ASSERT_OK(tv_comm_recv(world, &got, 1, TV_I32, 0, nullptr, &request));
        } else {
            ASSERT_OK(tv_comm_barrier(world));
            ASSERT_OK(tv_comm_send(world, &letter, 1, TV_I32, 1, nullptr, &request));
        }
        ASSERT_OK(tv_request_wait(&request));
        EXPECT_EQ(-1, cancelled);
        EXPECT_EQ(tv_comm_rank(world) == 1 ? 5 : -1, got);
    });
}

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
