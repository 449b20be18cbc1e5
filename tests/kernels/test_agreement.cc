// Every operation of the CPU table against the reference, over the shapes of cases_*.cc, with one
// thread and with two; twice, which must give the same bits.
#include "kernels/harness.h"
#include <set>

namespace
{
class Agreement : public ::testing::TestWithParam<Case>
{
};
} // namespace

void expect_agreement(const Case &c, tv_dtype_t dtype)
{
    Device one(1), two(2);
    Call want = run_case(c, tv_kernels_ref(dtype), one.stream);
    for (tv_stream *stream : {one.stream, two.stream}) {
        SCOPED_TRACE(stream == one.stream ? "one thread" : "two threads");
        Call got = run_case(c, tv_kernels_cpu(dtype), stream);
        expect_close(got, want, c.tolerance);
        expect_same_bits(run_case(c, tv_kernels_cpu(dtype), stream), got);
    }
}

TEST_P(Agreement, OfCpuWithReference)
{
    expect_agreement(GetParam(), TV_F32);
}

TEST_P(Agreement, OfCpuWithReferenceInBf16)
{
    expect_agreement(GetParam(), TV_BF16);
}

// The reference of bf16 is the reference of fp32 on the same numbers, with its results rounded.
TEST_P(Agreement, OfBf16WithRoundedFp32)
{
    Device one(1);
    Call want = run_case(GetParam(), tv_kernels_ref(TV_F32), one.stream, true);
    Call got = run_case(GetParam(), tv_kernels_ref(TV_BF16), one.stream);
    for (Tensor &tensor : want.tensors) {
        if (tensor.is_stored)
            tensor.round();
    }
    expect_same_bits(got, want);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Agreement, ::testing::ValuesIn(all_cases()),
                         [](const ::testing::TestParamInfo<Case> &each) {
                             return each.param.op + "_" + each.param.shape;
                         });

TEST(Norm, OfASumHasTheBitsOfTheSumAndItsNorm)
{
    Device two(2);
    for (tv_dtype_t dtype : {TV_F32, TV_BF16})
        for (const tv_kernels *kernels : {tv_kernels_ref(dtype), tv_kernels_cpu(dtype)})
            for (int has_mean : {0, 1})
                expect_same_bits(run_case(norm_of_sum(has_mean, false, 776), kernels, two.stream),
                                 run_case(norm_of_sum(has_mean, true, 776), kernels, two.stream));
}

TEST(Tables, AreCompleteAndEveryOperationHasACase)
{
    std::set<std::string> ops;
    for (const Case &c : all_cases())
        ops.insert(c.op);
    size_t count = 0;
#define CHECK_OP(op, args)                                                                         \
    for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {                                                   \
        EXPECT_NE(tv_kernels_ref(dtype)->op, nullptr) << #op;                                      \
        EXPECT_NE(tv_kernels_cpu(dtype)->op, nullptr) << #op;                                      \
    }                                                                                              \
    EXPECT_EQ(ops.count(#op), 1u) << #op;                                                          \
    count++;
    TV_KERNEL_LIST(CHECK_OP)
#undef CHECK_OP
    EXPECT_EQ(ops.size(), count);
    for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {
        EXPECT_STREQ(tv_kernels_ref(dtype)->name, "ref");
        EXPECT_STREQ(tv_kernels_cpu(dtype)->name, "cpu");
        EXPECT_EQ(tv_kernels_ref(dtype)->dtype, dtype);
        EXPECT_EQ(tv_kernels_cpu(dtype)->dtype, dtype);
    }
}

TEST(Tables, OpenGivesTheCpuTableForACpu)
{
    tv_device *device = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    const tv_kernels *kernels = nullptr;
    for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {
        EXPECT_EQ(tv_kernels_open(device, dtype, &kernels), TV_OK);
        EXPECT_EQ(kernels, tv_kernels_cpu(dtype));
    }
    EXPECT_EQ(tv_kernels_open(device, TV_I32, &kernels), TV_UNSUPPORTED);
    tv_device_close(device);
}
