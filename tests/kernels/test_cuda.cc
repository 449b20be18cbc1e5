// Every operation of the CUDA tables against the reference, three times: twice on aligned tensors, with the same bits,
// and on tensors that begin one element later. Built for the emulation (tests/emulation), where the second run has
// another fill of fresh memory and another order of threads and blocks, and for a GPU, where there is one.
#ifdef TV_TESTS_EMULATED
#include "emulation/emulation.h"
#include "emulation/sanitizer.h"
#endif
#include "kernels/staged.h"
#include <cmath>
#include <limits>

namespace
{
#ifdef TV_TESTS_EMULATED
bool has_device()
{
    return true;
}

// For a device of its own, whose memory holds nothing of an earlier run.
void emulate(unsigned char fill, unsigned order, int capability = 90)
{
    EXPECT_EQ(emulation::device_bytes(), 0u);
    emulation::settings().fill = fill;
    emulation::settings().order = order;
    emulation::settings().capability = capability;
}
#else
bool has_device()
{
    tv_device *device = nullptr;
    const bool has_one = tv_device_open(TV_DEVICE_CUDA, 1, &device) == TV_OK;
    tv_device_close(device);
    return has_one;
}

void emulate(unsigned char, unsigned, int = 90)
{
}
#endif

class Cuda : public ::testing::TestWithParam<Case>
{
  protected:
    void SetUp() override
    {
        static const bool is_there = has_device();
        if (!is_there)
            GTEST_SKIP() << tv_error_message();
    }
    static Call run(tv_dtype_t dtype, unsigned char fill, unsigned order, bool is_aligned,
                    int capability = 90)
    {
        emulate(fill, order, capability);
        Staged staged;
        return staged.run(GetParam(), dtype, is_aligned);
    }
    static void expect_agreement(tv_dtype_t dtype)
    {
        Device one(1);
        Call want = run_case(GetParam(), tv_kernels_ref(dtype), one.stream);
        Call got = run(dtype, 0xff, 0, true);
        expect_close(got, want, GetParam().tolerance, GetParam().inside);
#if !defined(TV_EMULATION_ASAN) // it looks for other things, and takes its time
        {
            SCOPED_TRACE("another fill and order of threads");
            expect_same_bits(run(dtype, 0x3d, 1, true), got);
        }
#endif
#ifdef TV_TESTS_EMULATED
        if (GetParam().op.rfind("attention_", 0) == 0 && dtype == TV_BF16) {
            SCOPED_TRACE("on compute capability 8.0");
            Call older = run(dtype, 0xff, 2, true, 80);
            expect_close(older, want, GetParam().tolerance, GetParam().inside);
        }
#endif
        SCOPED_TRACE("not aligned");
        Call moved = run(dtype, 0xff, 7, false);
        expect_close(moved, want, GetParam().tolerance, GetParam().inside);
    }
};
} // namespace

TEST_P(Cuda, AgreesWithTheReference)
{
    expect_agreement(TV_F32);
}

TEST_P(Cuda, AgreesWithTheReferenceInBf16)
{
    expect_agreement(TV_BF16);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Cuda, ::testing::ValuesIn(all_cases()),
                         [](const ::testing::TestParamInfo<Case> &each) {
                             return each.param.op + "_" + each.param.shape;
                         });

// Rows for a warp, for a block, and longer.
TEST(CudaNorm, OfASumHasTheBitsOfTheSumAndItsNorm)
{
    if (!has_device())
        GTEST_SKIP() << tv_error_message();
    Staged staged;
    for (tv_dtype_t dtype : {TV_F32, TV_BF16})
        for (int64_t cols : {72, 776, 2056})
            for (bool is_aligned : {true, false})
                expect_same_bits(staged.run(norm_of_sum(1, false, cols), dtype, is_aligned),
                                 staged.run(norm_of_sum(1, true, cols), dtype, is_aligned));
}

// Which of its bits a NaN has is left open.
Call with_one_nan(Call call)
{
    const auto replace = [](auto &numbers) {
        for (auto &x : numbers)
            x = std::isnan(x) ? std::numeric_limits<float>::quiet_NaN() : x;
    };
    for (Tensor &tensor : call.tensors)
        replace(tensor.memory);
    for (std::vector<double> &numbers : call.doubles)
        replace(numbers);
    return call;
}

// Rows shorter than a pack and with ends of one; more rows than blocks, whose copies go on to the next row, of a warp
// and of many; more than a block's shared memory holds, of fp32 and of both types.
TEST(CudaCrossEntropy, InOneGoHasTheBitsOfItsSteps)
{
    if (!has_device())
        GTEST_SKIP() << tv_error_message();
    Staged staged;
    const std::vector<std::vector<int64_t>> shapes = {
        {5, 3, 0, 5},    {9, 7, 9, 0},      {150, 65, 7, 0},  {150, 65, 0, 7},  {10, 5001, 12, 3},
        {9, 4096, 0, 0}, {9, 16001, 63, 0}, {1, 60000, 8, 0}, {1, 120000, 0, 0}};
    for (const std::vector<int64_t> &sizes : shapes)
        for (tv_dtype_t dtype : {TV_F32, TV_BF16})
            for (bool is_smooth : {false, true})
                for (bool is_aligned : {true, false}) {
                    if (!is_aligned && sizes[0] * sizes[1] > 10000)
                        continue;
                    const auto run_it = [&](bool is_in_steps) {
                        return with_one_nan(staged.run(
                            whole_cross_entropy(is_in_steps, is_smooth, sizes), dtype, is_aligned));
                    };
                    SCOPED_TRACE(shape_name(sizes) + (dtype == TV_BF16 ? ", bf16" : ", fp32"));
                    expect_same_bits(run_it(false), run_it(true));
                }
}

// In place, more than goes through the workspace at once.
TEST(CudaConversion, InPlaceByParts)
{
    if (!has_device())
        GTEST_SKIP() << tv_error_message();
    const int64_t count = (2 << 20) + 9;
    const Staged staged;
    tv_buffer buffer;
    ASSERT_EQ(tv_buffer_create(staged.device, (size_t)count * 4, TV_MEM_BUFFERS, &buffer), TV_OK);
    std::vector<float> x((size_t)count), back((size_t)count);
    for (size_t i = 0; i < x.size(); i++)
        x[i] = (float)(i % 251) * (float)(1 + i / 65536);
    ASSERT_EQ(tv_stream_copy(staged.stream, buffer.data, x.data(), buffer.bytes), TV_OK);
    const tv_to_bf16_args to = {count, static_cast<float *>(buffer.data), buffer.data};
    ASSERT_EQ(staged.inner(TV_F32)->to_bf16(staged.stream, &to), TV_OK);
    const tv_from_bf16_args from = {count, buffer.data, static_cast<float *>(buffer.data)};
    ASSERT_EQ(staged.inner(TV_F32)->from_bf16(staged.stream, &from), TV_OK);
    ASSERT_EQ(tv_stream_copy(staged.stream, back.data(), buffer.data, buffer.bytes), TV_OK);
    ASSERT_EQ(tv_stream_synchronize(staged.stream), TV_OK);
    for (size_t i = 0; i < x.size(); i++)
        ASSERT_EQ(back[i], tv_bf16_to_f32(tv_bf16_from_f32(x[i]))) << i;
    tv_buffer_destroy(&buffer);
}

TEST(CudaTables, AreCompleteAndTheDevicesOwn)
{
    if (!has_device())
        GTEST_SKIP() << tv_error_message();
    const Staged staged;
    for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {
        const tv_kernels *kernels = staged.inner(dtype);
        EXPECT_STREQ(kernels->name, "cuda");
        EXPECT_EQ(kernels->dtype, dtype);
        EXPECT_EQ(kernels, tv_device_kernels(staged.device, dtype));
#define CHECK_OP(op, args) EXPECT_NE(kernels->op, nullptr) << #op;
        TV_KERNEL_LIST(CHECK_OP)
#undef CHECK_OP
    }
    const tv_kernels *kernels = nullptr;
    EXPECT_EQ(tv_kernels_open(staged.device, TV_I32, &kernels), TV_UNSUPPORTED);
}
