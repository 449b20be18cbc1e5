// The CUDA device over the emulated runtime: which GPU, memory used again and taken back, copies through pinned
// memory, sentences; and products: one search per plan, tf32 by choice alone.
#include "base/clock.h"
#include "base/device.h"
#include "base/span.h"
#include "emulation.h"
#include "kernels/kernels.h"
#include <cstring>
#include <cublasLt.h>
#include <gtest/gtest.h>

namespace
{
constexpr size_t mib = 1 << 20;

struct Gpu {
    explicit Gpu(const tv_gpu_choice &choice = {})
    {
        EXPECT_EQ(tv_device_open_gpu(&choice, &device), TV_OK) << tv_error_message();
        EXPECT_EQ(tv_stream_create(device, &stream), TV_OK) << tv_error_message();
    }
    ~Gpu()
    {
        tv_stream_destroy(stream);
        tv_device_close(device);
    }
    Gpu(const Gpu &) = delete;
    Gpu &operator=(const Gpu &) = delete;
    tv_buffer buffer(size_t bytes)
    {
        tv_buffer made = {};
        EXPECT_EQ(tv_buffer_create(device, bytes, TV_MEM_BUFFERS, &made), TV_OK)
            << tv_error_message();
        return made;
    }
    template <typename T> void put(const tv_buffer &to, const std::vector<T> &from)
    {
        EXPECT_EQ(tv_stream_copy(stream, to.data, from.data(), from.size() * sizeof(T)), TV_OK);
    }
    template <typename T> std::vector<T> get(const tv_buffer &from, size_t count)
    {
        std::vector<T> to(count);
        EXPECT_EQ(tv_stream_copy(stream, to.data(), from.data, count * sizeof(T)), TV_OK);
        EXPECT_EQ(tv_stream_synchronize(stream), TV_OK) << tv_error_message();
        return to;
    }
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;
};

struct Settings { // as they were, afterwards
    emulation::Settings before = emulation::settings();
    ~Settings()
    {
        emulation::settings() = before;
    }
};
} // namespace

TEST(CudaDevice, IsTheOneWithTheAddressOrTheNumberCountedRound)
{
    const Settings kept;
    emulation::settings().gpus = 2;
    int count = 0;
    ASSERT_EQ(tv_gpu_count(&count), TV_OK);
    EXPECT_EQ(count, 2);
    tv_gpu_choice second = {};
    second.index = 3;
    Gpu by_number(second);
    tv_gpu_choice addressed = {};
    std::strcpy(addressed.pci, tv_device_pci(by_number.device));
    Gpu first, by_address(addressed);
    EXPECT_STRNE(tv_device_pci(first.device), "");
    EXPECT_STRNE(tv_device_pci(first.device), tv_device_pci(by_number.device));
    EXPECT_STREQ(tv_device_pci(by_address.device), tv_device_pci(by_number.device));
}

TEST(CudaDevice, AnAddressThatIsNotThereIsRefused)
{
    tv_gpu_choice choice = {};
    tv_device *device = nullptr;
    std::strcpy(choice.pci, "0000:7f:1f.7");
    EXPECT_EQ(tv_device_open_gpu(&choice, &device), TV_UNSUPPORTED);
    EXPECT_NE(std::strstr(tv_error_message(), "0000:7f:1f.7"), nullptr) << tv_error_message();
}

TEST(CudaDevice, MemoryIsClearedAlsoWhenItIsUsedAgain)
{
    Gpu gpu;
    tv_buffer first = gpu.buffer(4000);
    void *const place = first.data;
    gpu.put(first, std::vector<char>(4000, 7));
    tv_buffer_destroy(&first);
    const size_t taken = emulation::device_bytes();
    tv_buffer again = gpu.buffer(3900);
    EXPECT_EQ(again.data, place);
    EXPECT_EQ(emulation::device_bytes(), taken);
    EXPECT_EQ(gpu.get<char>(again, 3900), std::vector<char>(3900, 0));
    tv_buffer_destroy(&again);
}

// A block for a request that would leave most of it unused stays.
TEST(CudaDevice, MemoryThatIsMuchTooLargeIsNotHandedOut)
{
    Gpu gpu;
    tv_buffer large = gpu.buffer(16 * mib);
    void *const place = large.data;
    tv_buffer_destroy(&large);
    tv_buffer small = gpu.buffer(4 * mib);
    EXPECT_NE(small.data, place);
    tv_buffer_destroy(&small);
}

TEST(CudaDevice, WhatIsKeptGoesBackBeforeMemoryIsRefused)
{
    const Settings kept;
    Gpu gpu;
    emulation::settings().memory = emulation::device_bytes() + 24 * mib;
    tv_buffer first = gpu.buffer(16 * mib);
    tv_buffer_destroy(&first);
    tv_buffer second = gpu.buffer(24 * mib), third = {};
    EXPECT_EQ(tv_buffer_create(gpu.device, 2 * mib, TV_MEM_GRADS, &third), TV_NO_MEMORY);
    const std::string sentence = tv_error_message();
    EXPECT_NE(sentence.find("no room for 2097152 bytes of gradients"), std::string::npos)
        << sentence;
    EXPECT_NE(sentence.find("buffers 25165824"), std::string::npos) << sentence;
    tv_buffer_destroy(&second);
}

// More than both halves of the pinned memory, and not a multiple of one.
TEST(CudaDevice, LargeCopiesOfPageableMemoryArriveWhole)
{
    Gpu gpu;
    const size_t count = (19 * mib + 13) / sizeof(uint32_t);
    std::vector<uint32_t> numbers(count);
    for (size_t i = 0; i < count; i++)
        numbers[i] = (uint32_t)(i * 2654435761u);
    tv_buffer a = gpu.buffer(count * sizeof(uint32_t)), b = gpu.buffer(count * sizeof(uint32_t));
    gpu.put(a, numbers);
    const std::vector<uint32_t> want = numbers;
    std::fill(numbers.begin(), numbers.end(), 0u); // it has been read
    ASSERT_EQ(tv_stream_copy(gpu.stream, b.data, a.data, count * sizeof(uint32_t)), TV_OK);
    EXPECT_TRUE(gpu.get<uint32_t>(b, count) == want);
    tv_buffer_destroy(&a);
    tv_buffer_destroy(&b);
}

// What one stream has yet to copy from the pinned memory is not overwritten by what another copies to it.
TEST(CudaDevice, TwoStreamsPassThroughThePinnedMemory)
{
    Gpu gpu;
    tv_stream *other = nullptr;
    ASSERT_EQ(tv_stream_create(gpu.device, &other), TV_OK);
    tv_buffer a = gpu.buffer(64), b = gpu.buffer(64);
    const std::vector<char> threes(64, 3);
    ASSERT_EQ(tv_stream_copy(other, a.data, threes.data(), 64), TV_OK);
    EXPECT_EQ(gpu.get<char>(b, 64), std::vector<char>(64, 0));
    EXPECT_EQ(gpu.get<char>(b, 64), std::vector<char>(64, 0));
    ASSERT_EQ(tv_stream_synchronize(other), TV_OK);
    EXPECT_EQ(gpu.get<char>(a, 64), threes);
    tv_buffer_destroy(&a);
    tv_buffer_destroy(&b);
    tv_stream_destroy(other);
}

TEST(CudaDevice, AnEventJoinsTwoStreams)
{
    Gpu gpu;
    tv_stream *other = nullptr;
    tv_event *event = nullptr;
    int is_done = 0;
    ASSERT_EQ(tv_stream_create(gpu.device, &other), TV_OK);
    ASSERT_EQ(tv_event_create(gpu.device, &event), TV_OK);
    tv_buffer a = gpu.buffer(64), b = gpu.buffer(64);
    gpu.put(a, std::vector<char>(64, 3));
    ASSERT_EQ(tv_event_record(event, gpu.stream), TV_OK);
    ASSERT_EQ(tv_stream_wait_event(other, event), TV_OK);
    ASSERT_EQ(tv_stream_copy(other, b.data, a.data, 64), TV_OK);
    ASSERT_EQ(tv_stream_synchronize(other), TV_OK);
    EXPECT_EQ(gpu.get<char>(b, 64), std::vector<char>(64, 3));
    ASSERT_EQ(tv_event_is_done(event, &is_done), TV_OK);
    EXPECT_EQ(is_done, 1);
    tv_buffer_destroy(&a);
    tv_buffer_destroy(&b);
    tv_event_destroy(event);
    tv_stream_destroy(other);
}

namespace
{
struct Product { // c[2, 2] = a[2, 3] b[3, 2]
    Gpu &gpu;
    tv_buffer a, b, c;
    explicit Product(Gpu &gpu_)
        : gpu(gpu_), a(gpu.buffer(256)), b(gpu.buffer(256)), c(gpu.buffer(256))
    {
        gpu.put(a, std::vector<float>{1.0f + 0x1p-12f, 2, 3, 4, 5, 6, 7});
        gpu.put(b, std::vector<float>{1, 0, 0, 1, 0, 0, 1});
    }
    ~Product()
    {
        tv_buffer_destroy(&a);
        tv_buffer_destroy(&b);
        tv_buffer_destroy(&c);
    }
    std::vector<float> run(int64_t first = 0) // element of a
    {
        const tv_kernels *kernels = nullptr;
        tv_matmul_args args = {};
        args.m = args.n = args.ld_b = args.ld_c = 2;
        args.k = args.ld_a = 3;
        args.a = static_cast<float *>(a.data) + first;
        args.b = b.data;
        args.c = c.data;
        EXPECT_EQ(tv_kernels_open(gpu.device, TV_F32, &kernels), TV_OK) << tv_error_message();
        EXPECT_EQ(kernels->matmul(gpu.stream, &args), TV_OK) << tv_error_message();
        return gpu.get<float>(c, 4);
    }
};
} // namespace

TEST(CudaProducts, AreLookedForOncePerPlan)
{
    Gpu gpu;
    Product product(gpu);
    const int64_t before = emulation::num_searches();
    const std::vector<float> want = {1.0f + 0x1p-12f, 2, 4, 5};
    EXPECT_EQ(product.run(), want);
    const size_t taken = emulation::device_bytes();
    for (int i = 0; i < 3; i++)
        EXPECT_EQ(product.run(), want);
    EXPECT_EQ(emulation::num_searches() - before, 1);
    EXPECT_EQ(emulation::device_bytes(), taken); // the workspace too
    EXPECT_EQ(product.run(1), (std::vector<float>{2, 3, 5, 6}));
    EXPECT_EQ(emulation::num_searches() - before, 2); // less aligned
}

// 2 x 180^3 FLOPs are enough to be measured in the emulation. Of three algorithms that can be used the quickest gives
// other numbers; what c held is added once, however often they are tried.
TEST(CudaProducts, OfLargeSizesTakeTheFastestAlgorithmWithTheSameBits)
{
    Gpu gpu;
    constexpr int64_t n = 180;
    std::vector<float> a((size_t)(n * n)), b(a), c(a), want(a);
    for (int64_t i = 0; i < n * n; i++) {
        a[(size_t)i] = (float)(i % 7 - 3);
        b[(size_t)i] = (float)(i % 11 - 5);
        c[(size_t)i] = (float)(i % 5);
    }
    const tv_kernels *kernels = nullptr;
    ASSERT_EQ(tv_kernels_open(gpu.device, TV_F32, &kernels), TV_OK) << tv_error_message();
    tv_buffer on[3];
    for (int i = 0; i < 3; i++) {
        on[i] = gpu.buffer((size_t)(n * n) * sizeof(float));
        gpu.put(on[i], i == 0 ? a : i == 1 ? b : c);
    }
    tv_matmul_args args = {};
    args.m = args.n = args.k = args.ld_a = args.ld_b = args.ld_c = n;
    args.a = on[0].data;
    args.b = on[1].data;
    args.c = on[2].data;
    for (int accumulate : {1, 0})
        for (int64_t cols : {n, n - 1}) { // plans of their own
            args.n = cols;
            args.accumulate = accumulate;
            want = gpu.get<float>(on[2], n * n);
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < cols; j++) {
                    float sum = accumulate ? want[(size_t)(i * n + j)] : 0;
                    for (int64_t k = 0; k < n; k++)
                        sum += a[(size_t)(i * n + k)] * b[(size_t)(k * n + j)];
                    want[(size_t)(i * n + j)] = sum;
                }
            const int64_t before = emulation::num_products();
            ASSERT_EQ(kernels->matmul(gpu.stream, &args), TV_OK) << tv_error_message();
            EXPECT_EQ(gpu.get<float>(on[2], n * n), want) << accumulate << " " << cols;
            // a plan: one launch of each of three and four more of two, where accumulate is 1 first
            EXPECT_EQ(emulation::num_products() - before, accumulate ? 3 + 2 * 4 + 1 : 1);
        }
    for (tv_buffer &buffer : on)
        tv_buffer_destroy(&buffer);
}

// Spans of two streams: profilers see them always, times are taken from the moment somebody asks, on the host's clock.
TEST(CudaSpans, AreNamedAndTimedInTheOrderOfTheStreams)
{
    Gpu gpu;
    tv_stream *other = nullptr;
    tv_event *event = nullptr;
    tv_span *spans = nullptr;
    int first, second, inner, num = -1;
    ASSERT_EQ(tv_stream_create(gpu.device, &other), TV_OK);
    ASSERT_EQ(tv_event_create(gpu.device, &event), TV_OK);
    tv_stream_set_name(other, "behind");
    const tv_buffer memory = gpu.buffer(64);
    (void)emulation::take_ranges();
    ASSERT_EQ(tv_span_begin(gpu.stream, "not timed", &first), TV_OK);
    ASSERT_EQ(tv_span_end(gpu.stream, first), TV_OK);
    ASSERT_EQ(tv_spans_take(gpu.device, &spans, &num), TV_OK);
    EXPECT_EQ(num, 0);
    EXPECT_EQ(spans, nullptr);

    const double started = tv_clock_seconds();
    ASSERT_EQ(tv_spans_start(gpu.stream), TV_OK);
    ASSERT_EQ(tv_span_begin(gpu.stream, "first", &first), TV_OK);
    ASSERT_EQ(tv_span_begin(gpu.stream, "inner", &inner), TV_OK);
    ASSERT_EQ(tv_stream_zero(gpu.stream, memory.data, 64), TV_OK);
    ASSERT_EQ(tv_span_end(gpu.stream, inner), TV_OK);
    ASSERT_EQ(tv_span_end(gpu.stream, first), TV_OK);
    ASSERT_EQ(tv_event_record(event, gpu.stream), TV_OK);
    ASSERT_EQ(tv_stream_wait_event(other, event), TV_OK);
    ASSERT_EQ(tv_span_begin(other, "second", &second), TV_OK);
    ASSERT_EQ(tv_stream_zero(other, memory.data, 64), TV_OK);
    ASSERT_EQ(tv_span_end(other, second), TV_OK);
    int under_way;
    ASSERT_EQ(tv_stream_synchronize(other), TV_OK);
    const double ended = tv_clock_seconds();
    ASSERT_EQ(tv_span_begin(gpu.stream, "no end", &under_way), TV_OK);
    ASSERT_EQ(tv_spans_take(gpu.device, &spans, &num), TV_OK);
    ASSERT_EQ(num, 3);
    EXPECT_STREQ(spans[0].name, "first");
    EXPECT_STREQ(spans[1].name, "inner");
    EXPECT_STREQ(spans[2].name, "second");
    EXPECT_STREQ(spans[2].stream_name, "behind");
    EXPECT_EQ(spans[0].stream, spans[1].stream);
    EXPECT_EQ(spans[2].stream, tv_stream_number(other));
    const double slack = 1e-5; // the device's clock has 32 bits of milliseconds
    const double times[] = {started,      spans[0].start, spans[1].start, spans[1].end,
                            spans[0].end, spans[2].start, spans[2].end,   ended};
    for (int i = 1; i < 8; i++)
        EXPECT_LE(times[i - 1], times[i] + slack) << i;
    free(spans);
    EXPECT_EQ(emulation::take_ranges(), (std::vector<std::string>{"not timed", "", "first", "inner",
                                                                  "", "", "second", "", "no end"}));
    ASSERT_EQ(tv_spans_take(gpu.device, &spans, &num), TV_OK);
    EXPECT_EQ(num, 0);
    tv_event_destroy(event);
    tv_stream_destroy(other);
    tv_buffer gone = memory;
    tv_buffer_destroy(&gone);
}

TEST(CudaWorkspace, IsCountedAsBuffersUntilItsStreamGoes)
{
    Gpu gpu;
    tv_stream *stream = nullptr;
    const size_t before = tv_device_bytes(gpu.device, TV_MEM_BUFFERS);
    ASSERT_EQ(tv_stream_create(gpu.device, &stream), TV_OK);
    ASSERT_EQ(tv_stream_reserve(stream, 1000), TV_OK);
    EXPECT_EQ(tv_device_bytes(gpu.device, TV_MEM_BUFFERS), before + 1000);
    ASSERT_EQ(tv_stream_reserve(stream, 500), TV_OK); // there is as much
    EXPECT_EQ(tv_device_bytes(gpu.device, TV_MEM_BUFFERS), before + 1000);
    ASSERT_EQ(tv_stream_reserve(stream, 3000), TV_OK);
    EXPECT_EQ(tv_device_bytes(gpu.device, TV_MEM_BUFFERS), before + 3000);
    EXPECT_EQ(tv_device_kind_peak_bytes(gpu.device, TV_MEM_BUFFERS), before + 3000);
    EXPECT_EQ(tv_stream_reserve(stream, size_t{1} << 60), TV_NO_MEMORY);
    EXPECT_NE(std::string(tv_error_message()).find("bytes of buffers on"), std::string::npos);
    EXPECT_EQ(tv_device_bytes(gpu.device, TV_MEM_BUFFERS), before);
    ASSERT_EQ(tv_stream_reserve(stream, 10), TV_OK);
    tv_stream_destroy(stream);
    EXPECT_EQ(tv_device_bytes(gpu.device, TV_MEM_BUFFERS), before);
}

// A kernel's own need goes the same way: a conversion in place copies its numbers there first.
TEST(CudaWorkspace, GrowsWithWhatAKernelNeedsAndIsCounted)
{
    Gpu gpu;
    const float x[4] = {1, 2, 3, 4};
    tv_buffer data;
    ASSERT_EQ(tv_buffer_create(gpu.device, sizeof(x), TV_MEM_PARAMS, &data), TV_OK);
    ASSERT_EQ(tv_stream_copy(gpu.stream, data.data, x, sizeof(x)), TV_OK);
    const tv_to_bf16_args args = {4, static_cast<float *>(data.data), data.data};
    const tv_kernels *kernels = nullptr;
    ASSERT_EQ(tv_kernels_open(gpu.device, TV_F32, &kernels), TV_OK);
    const size_t before = tv_device_bytes(gpu.device, TV_MEM_BUFFERS);
    ASSERT_EQ(kernels->to_bf16(gpu.stream, &args), TV_OK);
    ASSERT_EQ(tv_stream_synchronize(gpu.stream), TV_OK);
    EXPECT_EQ(tv_device_bytes(gpu.device, TV_MEM_BUFFERS), before + sizeof(x));
    tv_buffer_destroy(&data);
}

TEST(CudaProducts, RoundFactorsToTf32ByChoiceAlone)
{
    tv_gpu_choice choice = {};
    choice.uses_tf32 = 1;
    Gpu gpu, rounding(choice);
    Product exact(gpu), rounded(rounding);
    EXPECT_EQ(exact.run()[0], 1.0f + 0x1p-12f);
    EXPECT_EQ(rounded.run()[0], 1.0f);
}
