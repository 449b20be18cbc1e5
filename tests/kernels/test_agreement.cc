// Every operation of the CPU table against the reference, over the shapes of cases_*.cc, with one
// thread and with two; twice, which must give the same bits.
#include "kernels/harness.h"
#include <set>

namespace
{
std::vector<Case> all_cases()
{
    std::vector<Case> cases;
    add_matmul_cases(cases);
    add_elementwise_cases(cases);
    add_norm_cases(cases);
    add_attention_cases(cases);
    add_loss_cases(cases);
    return cases;
}

class Agreement : public ::testing::TestWithParam<Case>
{
};
} // namespace

TEST_P(Agreement, OfCpuWithReference)
{
    Device one(1), two(2);
    Call want = run_case(GetParam(), tv_kernels_ref(), one.stream);
    for (tv_stream *stream : {one.stream, two.stream}) {
        SCOPED_TRACE(stream == one.stream ? "one thread" : "two threads");
        Call got = run_case(GetParam(), tv_kernels_cpu(), stream);
        expect_close(got, want, GetParam().tolerance);
        expect_same_bits(run_case(GetParam(), tv_kernels_cpu(), stream), got);
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Agreement, ::testing::ValuesIn(all_cases()),
                         [](const ::testing::TestParamInfo<Case> &each) {
                             return each.param.op + "_" + each.param.shape;
                         });

TEST(Tables, AreCompleteAndEveryOperationHasACase)
{
    std::set<std::string> ops;
    for (const Case &c : all_cases())
        ops.insert(c.op);
    size_t count = 0;
#define CHECK_OP(op, args)                                                                         \
    EXPECT_NE(tv_kernels_ref()->op, nullptr) << #op;                                               \
    EXPECT_NE(tv_kernels_cpu()->op, nullptr) << #op;                                               \
    EXPECT_EQ(ops.count(#op), 1u) << #op;                                                          \
    count++;
    TV_KERNEL_LIST(CHECK_OP)
#undef CHECK_OP
    EXPECT_EQ(ops.size(), count);
    EXPECT_STREQ(tv_kernels_ref()->name, "ref");
    EXPECT_STREQ(tv_kernels_cpu()->name, "cpu");
}

TEST(Tables, OpenGivesTheCpuTableForACpu)
{
    tv_device *device = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    const tv_kernels *kernels = nullptr;
    EXPECT_EQ(tv_kernels_open(device, &kernels), TV_OK);
    EXPECT_EQ(kernels, tv_kernels_cpu());
    tv_device_close(device);
}
