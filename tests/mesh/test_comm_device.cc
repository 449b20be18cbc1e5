/* tests/mesh/test_comm_device.cc -- the contract on device memory, over NCCL's double and through the host; orders of
 * streams and ranks, planted faults, silent peers. Runs on the emulated CUDA runtime. */
#include "emulation/emulation.h"
#include "mesh/device_contract.h"
#include "mesh/values.h"
#include <atomic>
#include <chrono>

class DeviceContract : public testing::TestWithParam<std::tuple<bool, int, RankCase>>
{
};

TEST_P(DeviceContract, Holds)
{
    const auto [uses_nccl, size, rank_case] = GetParam();
    const std::string name = rank_case.name;
    if (name == "steady_state_allocates_nothing")
        GTEST_SKIP() << "the test's own copies allocate";
    if (uses_nccl && (name == "different_counts_are_noticed" || name == "cancelled_operations"))
        GTEST_SKIP() << "NCCL notices in its own words, and nothing follows; tested below";
    run_device_threads(size, uses_nccl, rank_case.run);
    EXPECT_EQ(0u, emulation::device_bytes());
}

INSTANTIATE_TEST_SUITE_P(Ranks, DeviceContract,
                         testing::Combine(testing::Bool(), testing::Values(1, 2, 3, 4),
                                          testing::ValuesIn(all_cases())),
                         [](const auto &test) {
                             return std::string(std::get<0>(test.param) ? "nccl_" : "staged_") +
                                    std::get<2>(test.param).name + "_" +
                                    std::to_string(std::get<1>(test.param));
                         });

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    emulation::settings().gpus = 4;
    return RUN_ALL_TESTS();
}
