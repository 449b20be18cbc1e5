// Tensors of more than 2^31 elements on a GPU. A large tensor is a small one many times over, so that the result must
// be the small result many times over, to the bit: looked at in its first copies, across element 2^31, and in its last.
#include "kernels/staged.h"

namespace
{
constexpr int64_t cols = 1024, small_rows = 1024, copies = 2049; // 2^31 + 2^20 elements
constexpr int64_t small_count = small_rows * cols;

class Large : public ::testing::Test
{
  protected:
    void SetUp() override
    {
        tv_device *device = nullptr;
        const bool has_one = tv_device_open(TV_DEVICE_CUDA, 1, &device) == TV_OK;
        tv_device_close(device);
        if (!has_one)
            GTEST_SKIP() << tv_error_message();
        staged = std::make_unique<Staged>();
    }
    void TearDown() override
    {
        for (tv_buffer &buffer : buffers)
            tv_buffer_destroy(&buffer);
    }
    const tv_kernels *kernels() const
    {
        return staged->inner(TV_BF16);
    }

    // Room of `bytes`; NULL: the GPU has less.
    char *room(size_t bytes)
    {
        tv_buffer buffer = {};
        const tv_status_t status = tv_buffer_create(staged->device, bytes, TV_MEM_BUFFERS, &buffer);
        EXPECT_TRUE(status == TV_OK || status == TV_NO_MEMORY) << tv_error_message();
        buffers.push_back(buffer);
        return static_cast<char *>(buffer.data);
    }

    // bf16 numbers between -2 and 2, `times` times over.
    void *numbers(int64_t times, uint32_t seed)
    {
        std::vector<uint16_t> values((size_t)small_count);
        for (uint16_t &value : values) {
            seed = seed * 1664525 + 1013904223;
            value = tv_bf16_from_f32((float)(seed >> 8) / (float)(1 << 22) - 2);
        }
        const size_t bytes = values.size() * sizeof(uint16_t);
        char *data = room((size_t)times * bytes);
        for (int64_t i = 0; data != nullptr && i < times; i++)
            EXPECT_EQ(tv_stream_copy(staged->stream, data + (size_t)i * bytes,
                                     i == 0 ? (const char *)values.data() : data, bytes),
                      TV_OK);
        EXPECT_EQ(tv_stream_synchronize(staged->stream), TV_OK);
        return data;
    }

    std::vector<unsigned char> copy_of(const char *from, size_t bytes)
    {
        std::vector<unsigned char> values(bytes);
        EXPECT_EQ(tv_stream_copy(staged->stream, values.data(), from, bytes), TV_OK);
        EXPECT_EQ(tv_stream_synchronize(staged->stream), TV_OK);
        return values;
    }

    // call(times, out) works on `times` copies of the small input and writes as many of `bytes` each.
    template <typename Call> void expect_copies(size_t bytes, Call call)
    {
        char *one = room(bytes), *all = room((size_t)copies * bytes);
        if (one == nullptr || all == nullptr)
            GTEST_SKIP() << "needs more memory than this GPU has";
        ASSERT_EQ(call(1, one), TV_OK) << tv_error_message();
        ASSERT_EQ(call(copies, all), TV_OK) << tv_error_message();
        const std::vector<unsigned char> want = copy_of(one, bytes);
        for (int64_t at : {(int64_t)0, (int64_t)1, copies / 2, copies - 3, copies - 2, copies - 1})
            EXPECT_TRUE(copy_of(all + (size_t)at * bytes, bytes) == want) << "copy " << at;
    }

    std::unique_ptr<Staged> staged;
    std::vector<tv_buffer> buffers;
};

constexpr size_t stored = small_count * sizeof(uint16_t);
} // namespace

TEST_F(Large, Add)
{
    const void *a = numbers(copies, 1), *b = numbers(copies, 2);
    if (a == nullptr || b == nullptr)
        GTEST_SKIP() << "needs more memory than this GPU has";
    expect_copies(stored, [&](int64_t times, void *out) {
        const tv_add_args args = {times * small_count, a, b, out};
        return kernels()->add(staged->stream, &args);
    });
}

TEST_F(Large, GeluThereAndBack)
{
    const void *x = numbers(copies, 3), *dy = numbers(copies, 4);
    if (x == nullptr || dy == nullptr)
        GTEST_SKIP() << "needs more memory than this GPU has";
    expect_copies(stored, [&](int64_t times, void *out) {
        const tv_gelu_args args = {times * small_count, x, out};
        return kernels()->gelu_forward(staged->stream, &args);
    });
    expect_copies(stored, [&](int64_t times, void *out) {
        const tv_gelu_backward_args args = {times * small_count, x, dy, out, nullptr, 0, 0};
        return kernels()->gelu_backward(staged->stream, &args);
    });
}

TEST_F(Large, LayerNorm)
{
    const void *x = numbers(copies, 5), *weight = numbers(1, 6);
    float *mean = reinterpret_cast<float *>(room(copies * small_rows * sizeof(float)));
    float *rstd = reinterpret_cast<float *>(room(copies * small_rows * sizeof(float)));
    if (x == nullptr || rstd == nullptr)
        GTEST_SKIP() << "needs more memory than this GPU has";
    expect_copies(stored, [&](int64_t times, void *out) {
        const tv_norm_args args = {
            times * small_rows, cols, 1e-5, x, weight, weight, out, mean, rstd, nullptr, nullptr};
        return kernels()->layernorm_forward(staged->stream, &args);
    });
}

TEST_F(Large, TableOfAnEmbedding)
{
    const void *table = numbers(copies, 7);
    if (table == nullptr)
        GTEST_SKIP() << "needs more memory than this GPU has";
    std::vector<int32_t> ids((size_t)(copies * small_rows));
    for (size_t i = 0; i < ids.size(); i++)
        ids[i] = (int32_t)i;
    char *there = room(ids.size() * sizeof(int32_t));
    ASSERT_EQ(tv_stream_copy(staged->stream, there, ids.data(), ids.size() * sizeof(int32_t)),
              TV_OK);
    expect_copies(stored, [&](int64_t times, void *out) {
        const tv_embedding_args args = {times * small_rows,
                                        cols,
                                        0,
                                        copies * small_rows,
                                        reinterpret_cast<int32_t *>(there),
                                        table,
                                        0,
                                        out};
        return kernels()->embedding_forward(staged->stream, &args);
    });
}

TEST_F(Large, Rotary)
{
    const void *x = numbers(copies, 8);
    if (x == nullptr)
        GTEST_SKIP() << "needs more memory than this GPU has";
    expect_copies(stored, [&](int64_t times, void *out) {
        const tv_status_t copied = tv_stream_copy(staged->stream, out, x, (size_t)times * stored);
        const tv_rotary_args args = {
            times * small_rows, cols, small_rows, 16, 64, 0, 10000.0, out, nullptr};
        return copied != TV_OK ? copied : kernels()->rotary(staged->stream, &args);
    });
}

TEST_F(Large, ToBf16)
{
    const void *x = numbers(2 * copies, 9); // any bits are floats
    if (x == nullptr)
        GTEST_SKIP() << "needs more memory than this GPU has";
    expect_copies(stored, [&](int64_t times, void *out) {
        const tv_to_bf16_args args = {times * small_count, static_cast<const float *>(x), out};
        return kernels()->to_bf16(staged->stream, &args);
    });
}

// More than 2^31 results, of a product with few terms. The small one is the first part of another large one, since the
// order of a sum may depend on the number of rows.
TEST_F(Large, Product)
{
    const void *a = numbers(copies, 10), *b = numbers(1, 11);
    char *other = room((size_t)copies * stored);
    if (a == nullptr || b == nullptr || other == nullptr)
        GTEST_SKIP() << "needs more memory than this GPU has";
    expect_copies(stored, [&](int64_t times, char *out) {
        const tv_matmul_args args = {
            copies * small_rows, cols, 64, a, cols, 0, b, cols, 0, nullptr, 0, nullptr, cols};
        tv_matmul_args product = args;
        product.c = times == 1 ? other : out;
        const tv_status_t status = kernels()->matmul(staged->stream, &product);
        return status != TV_OK || times > 1 ? status
                                            : tv_stream_copy(staged->stream, out, other, stored);
    });
}
