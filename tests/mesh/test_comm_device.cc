/* tests/mesh/test_comm_device.cc -- the contract on device memory, over NCCL's double and through the host; orders of
 * streams and ranks, planted faults, silent peers. Runs on the emulated CUDA runtime. */
#include "emulation/emulation.h"
#include "mesh/device_contract.h"
#include "mesh/values.h"
#include <atomic>

class DeviceContract : public testing::TestWithParam<std::tuple<std::pair<bool, int>, RankCase>>
{
};

TEST_P(DeviceContract, Holds)
{
    const auto [way, rank_case] = GetParam();
    const auto [uses_nccl, size] = way;
    const std::string name = rank_case.name;
    if (name == "steady_state_allocates_nothing")
        GTEST_SKIP() << "the test's own copies allocate";
    if (uses_nccl && (name == "different_counts_are_noticed" || name == "cancelled_operations"))
        GTEST_SKIP() << "NCCL notices in its own words, and nothing follows; tested below";
    run_device_threads(size, uses_nccl, rank_case.run);
    EXPECT_EQ(0u, emulation::device_bytes());
}

static std::string name_of(const testing::TestParamInfo<DeviceContract::ParamType> &test)
{
    const auto &[way, rank_case] = test.param;
    return std::string(way.first ? "nccl_" : "staged_") + rank_case.name;
}

INSTANTIATE_TEST_SUITE_P(Ranks, DeviceContract,
                         testing::Combine(testing::Values(std::pair(true, 3), std::pair(false, 2)),
                                          testing::ValuesIn(all_cases())),
                         name_of);

static struct tv_buffer filled(int64_t count, float value)
{
    struct tv_buffer buffer = {};
    const std::vector<float> values((size_t)count, value);
    EXPECT_EQ(TV_OK, tv_buffer_create(device_place.device, (size_t)count * sizeof(float),
                                      TV_MEM_BUFFERS, &buffer));
    EXPECT_EQ(TV_OK, tv_stream_copy(device_place.stream, buffer.data, values.data(),
                                    (size_t)count * sizeof(float)));
    return buffer;
}

/* Ones copied to x on the caller's stream, summed over two ranks, and copied on, without a wait on the host;
 * lost_wait: the wait for an event that the operation loses, or 0. What rank 0 has in the end. */
static std::vector<float> sums_of_fills(int lost_wait)
{
    std::vector<float> result(8, NAN);
    run_device_threads(2, true, [&](struct tv_comm *world) {
        struct tv_buffer x = filled(8, -5.0f), source = filled(8, 1.0f), copy = filled(8, -7.0f);
        ASSERT_OK(tv_stream_synchronize(device_place.stream));
        struct tv_request *request = nullptr;
        ASSERT_OK(tv_stream_copy(device_place.stream, x.data, source.data, x.bytes));
        emulation::lose_wait(lost_wait);
        ASSERT_OK(
            tv_comm_all_reduce(world, x.data, 8, TV_F32, TV_SUM, device_place.stream, &request));
        ASSERT_OK(tv_request_wait(&request));
        emulation::lose_wait(0);
        ASSERT_OK(tv_stream_copy(device_place.stream, copy.data, x.data, x.bytes));
        std::vector<float> host(8);
        ASSERT_OK(tv_stream_copy(device_place.stream, host.data(), copy.data, x.bytes));
        ASSERT_OK(tv_stream_synchronize(device_place.stream));
        ASSERT_OK(tv_comm_barrier(world));
        if (tv_comm_rank(world) == 0)
            result = host;
        tv_buffer_destroy(&x);
        tv_buffer_destroy(&source);
        tv_buffer_destroy(&copy);
    });
    return result;
}

/* Both waits of an operation: without the first, NCCL may read too early; without the second, its result is used too
 * early. Streams that run at any moment show either. */
TEST(DeviceStreams, EveryWaitHasItsEvent)
{
    for (unsigned schedule = 0; schedule < 12; schedule++) {
        emulation::settings().schedule = schedule;
        EXPECT_EQ(std::vector<float>(8, 2.0f), sums_of_fills(0)) << "schedule " << schedule;
    }
    emulation::settings().schedule = 0;
}

TEST(DeviceStreams, ALostWaitIsFound)
{
    for (int lost : {1, 2}) {
        int num_wrong = 0;
        for (unsigned schedule = 0; schedule < 12; schedule++) {
            emulation::settings().schedule = schedule;
            num_wrong += sums_of_fills(lost) != std::vector<float>(8, 2.0f);
        }
        EXPECT_GT(num_wrong, 0) << "wait " << lost;
    }
    emulation::settings().schedule = 0;
}

/* The order of what is enqueued: event, wait, NCCL, event, wait; on two streams. */
TEST(DeviceStreams, AnOperationIsFramedByEvents)
{
    std::vector<emulation::Entry> record;
    int caller = 0;
    run_device_threads(2, true, [&](struct tv_comm *world) {
        struct tv_buffer x = filled(4, 1.0f);
        struct tv_request *request = nullptr;
        ASSERT_OK(tv_stream_synchronize(device_place.stream));
        ASSERT_OK(tv_comm_barrier(world));
        if (tv_comm_rank(world) == 0)
            emulation::start_record();
        ASSERT_OK(tv_comm_barrier(world));
        if (tv_comm_rank(world) == 0) {
            ASSERT_OK(tv_comm_all_reduce(world, x.data, 4, TV_F32, TV_SUM, device_place.stream,
                                         &request));
            ASSERT_OK(tv_request_wait(&request));
            record = emulation::take_record();
            caller = emulation::stream_number((cudaStream_t)tv_stream_handle(device_place.stream));
        }
        ASSERT_OK(tv_comm_barrier(world));
        if (tv_comm_rank(world) == 1) {
            ASSERT_OK(tv_comm_all_reduce(world, x.data, 4, TV_F32, TV_SUM, device_place.stream,
                                         &request));
            ASSERT_OK(tv_request_wait(&request));
        }
        ASSERT_OK(tv_stream_synchronize(device_place.stream));
        ASSERT_OK(tv_comm_barrier(world));
        tv_buffer_destroy(&x);
    });
    ASSERT_EQ(5u, record.size());
    const char *const what[] = {"record", "wait", "nccl all_reduce", "record", "wait"};
    for (size_t i = 0; i < 5; i++)
        EXPECT_EQ(what[i], record[i].what);
    const int line = record[1].stream;
    EXPECT_NE(caller, line);
    EXPECT_EQ(caller, record[0].stream);
    EXPECT_EQ(record[0].event, record[1].event);
    EXPECT_EQ(line, record[2].stream);
    EXPECT_EQ(line, record[3].stream);
    EXPECT_EQ(caller, record[4].stream);
    EXPECT_EQ(record[3].event, record[4].event);
    EXPECT_NE(record[0].event, record[3].event);
}

/* Two ranks that issue two collectives in different orders are told, on both sides, which ones. */
TEST(DeviceOrder, AnOrderSwapIsFound)
{
    run_device_threads(2, true, [](struct tv_comm *world) {
        struct tv_buffer x = filled(4, 1.0f), y = filled(4, 1.0f);
        struct tv_request *sum = nullptr, *news = nullptr;
        tv_status_t status = TV_OK;
        for (int turn = 0; turn < 2 && status == TV_OK; turn++) {
            status =
                turn == tv_comm_rank(world)
                    ? tv_comm_all_reduce(world, x.data, 4, TV_F32, TV_SUM, device_place.stream,
                                         &sum)
                    : tv_comm_broadcast(world, y.data, 4, TV_F32, 0, device_place.stream, &news);
            if (status == TV_OK)
                status = tv_comm_barrier(world); /* where it waits it looks */
        }
        if (status == TV_OK)
            status = tv_stream_synchronize(device_place.stream);
        EXPECT_NE(TV_OK, status);
        const std::string message = tv_error_message();
        EXPECT_NE(std::string::npos, message.find("issues")) << message;
        EXPECT_NE(std::string::npos, message.find("all_reduce")) << message;
        EXPECT_NE(std::string::npos, message.find("broadcast")) << message;
        tv_request_cancel(&sum);
        tv_request_cancel(&news);
        tv_buffer_destroy(&x);
        tv_buffer_destroy(&y);
    });
}

TEST(DeviceOrder, DifferentCountsAreFound)
{
    run_device_threads(2, true, [](struct tv_comm *world) {
        struct tv_buffer x = filled(8, 1.0f);
        struct tv_request *request = nullptr;
        const int64_t count = 4 + tv_comm_rank(world);
        tv_status_t status =
            tv_comm_all_reduce(world, x.data, count, TV_F32, TV_SUM, device_place.stream, &request);
        if (status == TV_OK)
            status = tv_comm_barrier(world); /* where it waits it looks */
        if (status == TV_OK)
            status = tv_stream_synchronize(device_place.stream);
        EXPECT_NE(TV_OK, status);
        const std::string message = tv_error_message();
        EXPECT_NE(std::string::npos, message.find("count 4")) << message;
        EXPECT_NE(std::string::npos, message.find("count 5")) << message;
        tv_request_cancel(&request);
        tv_buffer_destroy(&x);
    });
}

/* A collective that rank 1 never joins: rank 0 does not wait for it, and is told where it waits for its stream. */
TEST(DeviceDeadline, ASilentPeerEndsASynchronization)
{
    std::atomic<int> num_told = 0;
    run_device_threads(2, true, [&](struct tv_comm *world) {
        struct tv_buffer x = filled(4, 1.0f);
        struct tv_request *request = nullptr;
        tv_comm_set_name(world, "data");
        tv_comm_set_context(world, "step %d", 7);
        if (tv_comm_rank(world) == 0) {
            tv_comm_set_timeout(world, 0.3);
            ASSERT_OK(tv_comm_all_reduce(world, x.data, 4, TV_F32, TV_SUM, device_place.stream,
                                         &request));
            ASSERT_OK(tv_request_wait(&request));
            EXPECT_EQ(TV_PEER, tv_stream_synchronize(device_place.stream));
            const std::string sentence =
                "data axis, rank 0: all_reduce of 4 elements: no answer from "
                "rank 1 in 0.3 s (while: step 7)";
            EXPECT_EQ(sentence, std::string(tv_error_message()));
            EXPECT_EQ(TV_PEER, tv_comm_all_reduce(world, x.data, 4, TV_F32, TV_SUM,
                                                  device_place.stream, &request));
            EXPECT_EQ(sentence, std::string(tv_error_message()));
            EXPECT_EQ(TV_PEER, tv_stream_synchronize(device_place.stream));
        }
        while (tv_comm_rank(world) == 1 && num_told == 0)
            std::this_thread::yield();
        num_told++;
        tv_buffer_destroy(&x);
    });
}

/* A rank that does not come when the communicators are made. */
TEST(DeviceDeadline, ASilentPeerEndsTheMaking)
{
    run_device_threads(2, false, [](struct tv_comm *world) {
        int first_failed;
        char id[128] = "";
        if (tv_comm_rank(world) == 1) { /* comes for the id, and no further */
            ASSERT_OK(tv_comm_agree(world, TV_OK, &first_failed));
            ASSERT_OK(tv_comm_broadcast_now(world, id, sizeof(id), TV_U8, 0));
        } else {
            tv_comm_set_timeout(world, 0.3);
            EXPECT_EQ(TV_PEER, tv_comm_use_nccl(world, device_place.device));
            EXPECT_EQ(
                "world axis, rank 0: making NCCL's communicator: no answer from some rank in 0.3 s",
                std::string(tv_error_message()));
        }
        tv_comm_set_timeout(world, 60);
        ASSERT_OK(tv_comm_barrier(world));
    });
}

/* Receives posted early on both sides do not hold up the sends behind them. */
TEST(DeviceMessages, EarlyReceivesHoldNothingUp)
{
    for (int num_ranks : {2, 3})
        run_device_threads(num_ranks, true, [](struct tv_comm *world) {
            const int size = tv_comm_size(world), rank = tv_comm_rank(world);
            const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
            struct tv_buffer mine = filled(4, (float)rank), a = filled(4, -1), b = filled(4, -1);
            struct tv_request *requests[4] = {};
            ASSERT_OK(tv_comm_recv(world, a.data, 4, TV_F32, previous, device_place.stream,
                                   &requests[0]));
            ASSERT_OK(
                tv_comm_recv(world, b.data, 4, TV_F32, next, device_place.stream, &requests[1]));
            ASSERT_OK(
                tv_comm_send(world, mine.data, 4, TV_F32, next, device_place.stream, &requests[2]));
            ASSERT_OK(tv_comm_send(world, mine.data, 4, TV_F32, previous, device_place.stream,
                                   &requests[3]));
            for (auto &request : requests)
                ASSERT_OK(tv_request_wait(&request));
            float got[2];
            ASSERT_OK(tv_stream_copy(device_place.stream, &got[0], a.data, sizeof(float)));
            ASSERT_OK(tv_stream_copy(device_place.stream, &got[1], b.data, sizeof(float)));
            ASSERT_OK(tv_stream_synchronize(device_place.stream));
            EXPECT_EQ((float)previous, got[0]);
            EXPECT_EQ((float)next, got[1]);
            ASSERT_OK(tv_comm_barrier(world));
            for (struct tv_buffer *buffer : {&mine, &a, &b})
                tv_buffer_destroy(buffer);
        });
}

TEST(DeviceGpus, TwoRanksOnOneAreRefused)
{
    run_device_threads(3, false, [](struct tv_comm *world) {
        ASSERT_OK(tv_nccl_check_gpus(world, device_place.device));
        struct tv_device *shared = nullptr;
        const struct tv_gpu_choice choice = {
            .pci = "", .index = tv_comm_rank(world) / 2, .num_threads = 0, .uses_tf32 = 0};
        ASSERT_OK(tv_device_open_gpu(&choice, &shared));
        EXPECT_EQ(TV_INVALID, tv_nccl_check_gpus(world, shared));
        const std::string message = tv_error_message();
        EXPECT_EQ(0u, message.find("ranks 0 and 1 are both on the GPU 0000:10:00.0 of "))
            << message;
        tv_device_close(shared);
    });
}

TEST(DeviceGpus, TheCpuHasNoNccl)
{
    struct tv_comm *self = nullptr;
    struct tv_device *cpu = nullptr;
    ASSERT_OK(tv_comm_self_create(&self));
    ASSERT_OK(tv_device_open(TV_DEVICE_CPU, 1, &cpu));
    EXPECT_EQ(TV_UNSUPPORTED, tv_comm_use_nccl(self, cpu));
    tv_device_close(cpu);
    tv_comm_destroy(self);
}

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    emulation::settings().gpus = 4;
    return RUN_ALL_TESTS();
}
