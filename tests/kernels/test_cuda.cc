// Every operation of the CUDA tables against the reference, three times: twice on aligned tensors, with the same bits,
// and on tensors that begin one element later. Built for the emulation (tests/emulation), where the second run has
// another fill of fresh memory and another order of threads and blocks, and for a GPU, where there is one.
#ifdef TV_TESTS_EMULATED
#include "emulation/emulation.h"
#include "emulation/sanitizer.h"
#endif
#include "kernels/staged.h"

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
