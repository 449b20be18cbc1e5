// The CUDA device over the emulated runtime: which GPU, memory used again and taken back, copies through pinned
// memory, sentences, waits.
#include "base/clock.h"
#include "base/span.h"
#include "emulation/gpu.h"
#include "kernels/kernels.h"
#include <cmath>
#include <cstring>

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

// Attention's kernels depend on the GPU, which is asked when it is opened, not at each launch.
TEST(CudaDevice, IsAskedWhatItIsOnce)
{
    Gpu gpu;
    enum { Q, K, V, O, num_tensors };
    tv_buffer on[num_tensors], lse = gpu.buffer(64 * sizeof(float));
    for (tv_buffer &tensor : on)
        tensor = gpu.buffer(64 * 64 * 2);
    const tv_kernels *kernels = nullptr;
    ASSERT_EQ(tv_kernels_open(gpu.device, TV_BF16, &kernels), TV_OK) << tv_error_message();
    tv_attention_args args = {};
    args.batch = args.num_heads = args.num_kv_heads = 1;
    args.seq_length = args.head_dim = 64;
    args.ld_q = args.ld_k = args.ld_v = args.ld_o = 64;
    args.q = on[Q].data;
    args.k = on[K].data;
    args.v = on[V].data;
    args.o = on[O].data;
    args.lse = static_cast<float *>(lse.data);
    const int before = emulation::num_questions();
    for (int i = 0; i < 2; i++)
        ASSERT_EQ(kernels->attention_forward(gpu.stream, &args), TV_OK) << tv_error_message();
    EXPECT_EQ(emulation::num_questions(), before);
    EXPECT_NEAR(gpu.get<float>(lse, 64)[63], std::log(64.0f), 1e-5f); // of zeros
    for (tv_buffer &tensor : on)
        tv_buffer_destroy(&tensor);
    tv_buffer_destroy(&lse);
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

// The one kernel that hands numbers to the host.
TEST(CudaWaits, OfSquareSumsAreUnderTheDeadline)
{
    Gpu gpu;
    const float x[3] = {1, 2, 3};
    double sum = 0;
    tv_buffer data = gpu.buffer(sizeof(x));
    gpu.put(data, std::vector<float>(x, x + 3));
    const tv_square_sum_array of = {3, static_cast<float *>(data.data)};
    tv_square_sum_args args = {};
    args.num = 1;
    args.of = &of;
    args.sums_out = &sum;
    const tv_kernels *kernels = nullptr;
    ASSERT_EQ(tv_kernels_open(gpu.device, TV_F32, &kernels), TV_OK);
    Watcher watcher;
    watcher.last = 1;
    tv_device_watch(gpu.device, Watcher::look, &watcher);
    EXPECT_EQ(kernels->square_sum(gpu.stream, &args), TV_PEER);
    EXPECT_EQ(kernels->square_sum(gpu.stream, &args), TV_OK) << tv_error_message();
    EXPECT_EQ(sum, 14);
    tv_device_watch(gpu.device, nullptr, nullptr);
    tv_buffer_destroy(&data);
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

// Growth waits for what works in the old one.
TEST(CudaWorkspace, GrowsUnderTheDeadline)
{
    Gpu gpu;
    Watcher watcher;
    watcher.last = 1;
    ASSERT_EQ(tv_stream_reserve(gpu.stream, 1000), TV_OK);
    tv_device_watch(gpu.device, Watcher::look, &watcher);
    EXPECT_EQ(tv_stream_reserve(gpu.stream, 2000), TV_PEER);
    EXPECT_EQ(tv_device_bytes(gpu.device, TV_MEM_BUFFERS), 1000u); // it is still there
    EXPECT_EQ(tv_stream_reserve(gpu.stream, 2000), TV_OK);
    tv_device_watch(gpu.device, nullptr, nullptr);
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
