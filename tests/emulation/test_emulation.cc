// The emulation finds what it is there to find: planted faults in kernels, in the host's use of device memory, and in
// the order of streams.
#include "emulation/emulation.h"
#include "emulation/probe.h"
#include "emulation/sanitizer.h"
#include <cmath>
#include <gtest/gtest.h>

namespace
{
using Floats = std::vector<float>;

class Emulation : public ::testing::Test
{
  protected:
    void SetUp() override
    {
        saved = emulation::settings();
        ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
        ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
        x = device_floats();
        y = device_floats();
        for (int i = 0; i < 64; i++)
            numbers.push_back((float)(i + 1));
        EXPECT_EQ(cudaMemcpyAsync(x, numbers.data(), bytes, cudaMemcpyDefault, stream),
                  cudaSuccess);
    }
    void TearDown() override
    {
        emulation::clear_failure();
        cudaFree(x);
        cudaFree(y);
        cudaStreamDestroy(stream);
        cudaStreamDestroy(other);
        EXPECT_EQ(emulation::device_bytes(), 0u);
        emulation::settings() = saved;
    }
    static float *device_floats()
    {
        void *data = nullptr;
        EXPECT_EQ(cudaMalloc(&data, bytes), cudaSuccess);
        return static_cast<float *>(data);
    }
    Floats read(const float *from)
    {
        Floats to(64);
        EXPECT_EQ(cudaMemcpyAsync(to.data(), from, bytes, cudaMemcpyDefault, stream), cudaSuccess);
        return to;
    }
    // What the next synchronization says is wrong; "" where nothing is.
    std::string verdict()
    {
        const cudaError_t error = cudaStreamSynchronize(stream);
        return error == cudaSuccess ? "" : cudaGetErrorString(error);
    }
    void expect_failure(const std::string &part)
    {
        const std::string sentence = verdict();
        EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
        EXPECT_NE(sentence.find("probe.cu"), std::string::npos) << sentence;
    }

    static constexpr size_t bytes = 64 * sizeof(float);
    emulation::Settings saved;
    cudaStream_t stream = nullptr, other = nullptr;
    float *x = nullptr, *y = nullptr;
    Floats numbers;
};
} // namespace

TEST_F(Emulation, BarriersAndSharedMemory)
{
    const Floats backwards(numbers.rbegin(), numbers.rend());
    for (unsigned order : {0u, 1u, 2u, 3u}) {
        emulation::settings().order = order;
        EXPECT_EQ(probe_reverse(stream, x, y), cudaSuccess);
        EXPECT_EQ(read(y), backwards) << order;
    }
}

TEST_F(Emulation, ShufflesInEveryOrder)
{
    for (unsigned order : {0u, 1u, 2u, 3u}) {
        emulation::settings().order = order;
        EXPECT_EQ(probe_warp_sums(stream, x, y), cudaSuccess);
        const Floats sums = read(y);
        EXPECT_EQ(sums[0], 528) << order;
        EXPECT_EQ(sums[31], 528) << order;
        EXPECT_EQ(sums[32], 1552) << order;
        EXPECT_EQ(sums[63], 1552) << order;
    }
}

TEST_F(Emulation, TheLibrarysOwnVariablesOutliveALaunch)
{
    const int before = probe_launches();
    EXPECT_EQ(probe_reverse(stream, x, y), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(probe_launches(), before + 1);
}

TEST_F(Emulation, TensorCoresMultiplyFragments)
{
    for (const bool is_lower : {false, true})
        for (const bool is_transposed : {false, true}) {
            EXPECT_EQ(probe_product(stream, y, is_lower, is_transposed), cudaSuccess);
            const Floats c = read(y);
            for (int i = 0; i < 64; i++) {
                float sum = 0;
                for (int k = 0; k < 16; k++)
                    sum += probe_a(i / 8 + 8 * is_lower, k) * probe_b(k, i % 8);
                EXPECT_EQ(c[(size_t)i], sum) << i << " " << is_lower << is_transposed;
            }
        }
}

TEST_F(Emulation, AsynchronousCopiesComeWithTheWait)
{
    EXPECT_EQ(probe_copy_async(stream, x, y, true), cudaSuccess);
    Floats want = numbers;
    std::fill(want.begin() + 12, want.begin() + 16, 0.0f);
    EXPECT_EQ(read(y), want);
    EXPECT_EQ(verdict(), "");
    EXPECT_EQ(probe_copy_async(stream, x, y, false), cudaSuccess);
    EXPECT_NE(verdict().find("copy that nothing waited for"), std::string::npos);
    emulation::clear_failure();
    for (const float value : read(y))
        EXPECT_TRUE(std::isnan(value)) << value;
}

TEST_F(Emulation, AMissingBarrierShows)
{
    EXPECT_EQ(probe_reverse_without_barrier(stream, x, y), cudaSuccess);
    const Floats ascending = read(y);
    emulation::settings().order = 1;
    EXPECT_EQ(probe_reverse_without_barrier(stream, x, y), cudaSuccess);
    const Floats descending = read(y);
    EXPECT_TRUE(std::isnan(ascending[0]) && !std::isnan(ascending[63]));
    EXPECT_TRUE(std::isnan(descending[63]) && !std::isnan(descending[0]));
}

TEST_F(Emulation, ABarrierThatSomeDoNotReachFails)
{
    EXPECT_EQ(probe_half_barrier(stream), cudaSuccess);
    expect_failure("not all threads reach");
}

TEST_F(Emulation, WarpsAtDifferentBarriersFail)
{
    EXPECT_EQ(probe_two_barriers(stream), cudaSuccess);
    expect_failure("not all threads reach");
}

TEST_F(Emulation, AShuffleThatALaneDoesNotCallFails)
{
    EXPECT_EQ(probe_missing_lane(stream), cudaSuccess);
    expect_failure("thread (5, 0, 0) has ended");
}

TEST_F(Emulation, AShuffleFromOutsideTheMaskFails)
{
    EXPECT_EQ(probe_absent_source(stream, x, y), cudaSuccess);
    EXPECT_NE(verdict().find("shuffles from lane 20"), std::string::npos);
}

TEST_F(Emulation, AfterAFailureNothingRunsUntilItIsCleared)
{
    EXPECT_EQ(probe_half_barrier(stream), cudaSuccess);
    EXPECT_NE(verdict(), "");
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
    emulation::clear_failure();
    EXPECT_EQ(probe_copy(stream, x, y, 64), cudaSuccess);
    EXPECT_EQ(read(y), numbers);
}

TEST_F(Emulation, ReadsOfUnwrittenMemoryShowTheFill)
{
    const Floats fresh = read(y);
    EXPECT_TRUE(std::isnan(fresh[0]) && std::isnan(fresh[63]));
    EXPECT_EQ(probe_unwritten_shared(stream, y), cudaSuccess);
    EXPECT_TRUE(std::isnan(read(y)[7]));
    emulation::settings().fill = 0;
    EXPECT_EQ(probe_unwritten_shared(stream, y), cudaSuccess);
    EXPECT_EQ(read(y)[7], 0);
    EXPECT_EQ(read(y)[6], 1);
}

TEST_F(Emulation, TheHostMayNotTouchDeviceMemory)
{
    EXPECT_EQ(verdict(), "");
    EXPECT_DEATH(numbers[0] = *static_cast<volatile float *>(x),
                 "the host touched device memory|SEGV");
    const emulation::DeviceAccess access;
    EXPECT_EQ(*static_cast<volatile float *>(x), 1);
}

TEST_F(Emulation, WritingBehindDeviceMemoryIsFound)
{
#if defined(TV_EMULATION_ASAN)
    const emulation::DeviceAccess access;
    EXPECT_DEATH(static_cast<volatile float *>(x)[64] = 1, "use-after-poison");
#else
    {
        const emulation::DeviceAccess access;
        static_cast<volatile float *>(x)[64] = 1;
    }
    cudaFree(x);
    x = nullptr;
    EXPECT_NE(verdict().find("written 0 bytes behind its end"), std::string::npos);
#endif
}

TEST_F(Emulation, StreamsRunLate)
{
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    int is_called = 0;
    const auto call = [](void *data) { ++*static_cast<int *>(data); };
    EXPECT_EQ(cudaLaunchHostFunc(stream, call, &is_called), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(other), cudaSuccess);
    EXPECT_EQ(is_called, 0);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(is_called, 1);
}

TEST_F(Emulation, ASeedMakesStreamsRunBetweenCallsInTheSameWayEachTime)
{
    std::vector<std::vector<int>> runs;
    for (unsigned seed : {0u, 5u, 5u, 6u}) {
        EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
        emulation::settings().schedule = 0; // begins anew
        EXPECT_EQ(cudaLaunchHostFunc(
                      stream, [](void *) {}, nullptr),
                  cudaSuccess);
        EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
        emulation::settings().schedule = seed;
        int num_done = 0;
        runs.emplace_back();
        for (int i = 0; i < 40; i++) {
            const auto call = [](void *data) { ++*static_cast<int *>(data); };
            EXPECT_EQ(cudaLaunchHostFunc(stream, call, &num_done), cudaSuccess);
            runs.back().push_back(num_done);
        }
        EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
        EXPECT_EQ(num_done, 40);
    }
    EXPECT_EQ(runs[0], std::vector<int>(40, 0));
    EXPECT_GT(runs[1].back(), 0);
    EXPECT_EQ(runs[1], runs[2]);
    EXPECT_NE(runs[1], runs[3]);
}

TEST_F(Emulation, AMissingEventShowsAndAnEventOrders)
{
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    float *z = device_floats();
    EXPECT_EQ(probe_copy(stream, x, y, 64), cudaSuccess);
    EXPECT_EQ(probe_copy(other, y, z, 64), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(other), cudaSuccess);
    EXPECT_TRUE(std::isnan(read(z)[0]));

    emulation::start_record();
    cudaEvent_t event = nullptr;
    EXPECT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(y, 0, bytes, stream), cudaSuccess);
    EXPECT_EQ(probe_copy(stream, x, y, 64), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(other, event), cudaSuccess);
    EXPECT_EQ(probe_copy(other, y, z, 64), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(other), cudaSuccess);
    EXPECT_EQ(read(z), numbers);
    std::string what;
    for (const emulation::Entry &entry : emulation::take_record())
        what += entry.what + (entry.stream == emulation::stream_number(other) ? "' " : " ");
    EXPECT_EQ(what, "set kernel record wait' kernel' copy ");
    cudaEventDestroy(event);
    cudaFree(z);
}

TEST_F(Emulation, CopiesFromPageableMemoryTakeTheBytesAtTheCall)
{
    void *pinned = nullptr;
    EXPECT_EQ(cudaMallocHost(&pinned, bytes), cudaSuccess);
    std::memset(pinned, 0, bytes);
    Floats ones(64, 1);
    EXPECT_EQ(cudaMemcpyAsync(x, ones.data(), bytes, cudaMemcpyDefault, stream), cudaSuccess);
    EXPECT_EQ(cudaMemcpyAsync(y, pinned, bytes, cudaMemcpyDefault, stream), cudaSuccess);
    ones[0] = 2;
    static_cast<float *>(pinned)[0] = 2; // too early: the copy has not run
    EXPECT_EQ(read(x)[0], 1);
    EXPECT_EQ(read(y)[0], 2);
    EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(Emulation, ADoublesOperationMayHaveToWait)
{
    int tries = 0;
    emulation::enqueue(stream, "collective", [&tries] { return ++tries == 3; });
    EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
    EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
    EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
}

TEST_F(Emulation, LaunchesThatNoGpuWouldTake)
{
    EXPECT_EQ(probe_dynamic(stream, y, 48 * 1024), cudaSuccess);
    EXPECT_EQ(read(y)[9], 3);
    EXPECT_EQ(probe_dynamic(stream, y, 48 * 1024 + 4), cudaErrorInvalidConfiguration);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
    EXPECT_EQ(probe_allow_dynamic(64 * 1024), cudaSuccess);
    EXPECT_EQ(probe_dynamic(stream, y, 64 * 1024), cudaSuccess);
    EXPECT_EQ(read(y)[63], 3);
}

TEST_F(Emulation, MemoryIsLimited)
{
    emulation::settings().memory = 3 * bytes;
    void *data = nullptr;
    EXPECT_EQ(cudaMalloc(&data, bytes + 1), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaMalloc(&data, bytes), cudaSuccess);
    EXPECT_EQ(cudaFree(data), cudaSuccess);
    EXPECT_EQ(cudaFree(data), cudaErrorInvalidValue);
}
