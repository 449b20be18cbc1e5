// Buffers are zero, aligned and counted by kind; the CUDA device is refused with a reason where there is none.
#include "base/device.h"
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <string>

/* Does the mapping that holds `data` ask for huge pages ("hg" of its VmFlags in smaps)? */
static bool asks_for_huge_pages(const void *data)
{
    std::ifstream smaps("/proc/self/smaps");
    bool is_here = false;
    for (std::string line; std::getline(smaps, line);) {
        unsigned long long first = 0, end = 0;
        if (std::sscanf(line.c_str(), "%llx-%llx ", &first, &end) == 2)
            is_here = first <= (uintptr_t)data && (uintptr_t)data < end;
        else if (is_here && line.rfind("VmFlags:", 0) == 0)
            return line.find(" hg") != std::string::npos;
    }
    return false;
}

TEST(Device, LargeBuffersAskForHugePagesWherePreferred)
{
    enum { HUGE_PAGE = 2 << 20 };
    tv_device *device = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    tv_buffer small = {}, large = {}, before = {};
    ASSERT_EQ(tv_buffer_create(device, 3 * HUGE_PAGE, TV_MEM_PARAMS, &before), TV_OK);
    EXPECT_EQ(asks_for_huge_pages((char *)before.data + HUGE_PAGE), false);
    tv_device_prefer_huge_pages(device);
    ASSERT_EQ(tv_buffer_create(device, HUGE_PAGE - 1, TV_MEM_PARAMS, &small), TV_OK);
    ASSERT_EQ(tv_buffer_create(device, 3 * HUGE_PAGE + 5, TV_MEM_PARAMS, &large), TV_OK);
    EXPECT_EQ((uintptr_t)large.data % HUGE_PAGE, 0u);
    for (size_t i = 0; i < large.bytes; i++)
        ASSERT_EQ(((char *)large.data)[i], 0);
    const bool has_them = std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled").good();
    EXPECT_EQ(asks_for_huge_pages((char *)large.data + HUGE_PAGE), has_them);
    EXPECT_EQ(asks_for_huge_pages((char *)large.data + 3 * HUGE_PAGE), false); /* not a whole one */
    EXPECT_EQ(asks_for_huge_pages(small.data), false);
    for (tv_buffer *buffer : {&small, &large, &before})
        tv_buffer_destroy(buffer);
    tv_device_close(device);
}

TEST(Device, CountsBuffersByKindAndKeepsThePeak)
{
    tv_device *device = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    tv_buffer a = {}, b = {};
    ASSERT_EQ(tv_buffer_create(device, 1000, TV_MEM_PARAMS, &a), TV_OK);
    ASSERT_EQ(tv_buffer_create(device, 24, TV_MEM_GRADS, &b), TV_OK);
    EXPECT_EQ((uintptr_t)a.data % 64, 0u);
    for (size_t i = 0; i < a.bytes; i++)
        ASSERT_EQ(((char *)a.data)[i], 0);
    EXPECT_EQ(tv_device_bytes(device, TV_MEM_PARAMS), 1000u);
    tv_buffer_destroy(&a);
    tv_buffer_destroy(&a);
    EXPECT_EQ(tv_device_bytes(device, TV_MEM_PARAMS), 0u);
    EXPECT_EQ(tv_device_bytes(device, TV_MEM_GRADS), 24u);
    EXPECT_EQ(tv_device_peak_bytes(device), 1024u);
    EXPECT_EQ(tv_device_kind_peak_bytes(device, TV_MEM_PARAMS), 1000u);
    EXPECT_EQ(tv_device_kind_peak_bytes(device, TV_MEM_GRADS), 24u);
    tv_buffer_destroy(&b);
    tv_device_close(device);
}

TEST(Device, TooMuchMemoryIsRefusedWithTheBreakdown)
{
    tv_device *device = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    tv_buffer a = {}, b = {};
    ASSERT_EQ(tv_buffer_create(device, 96, TV_MEM_OPTIMIZER, &a), TV_OK);
    EXPECT_EQ(tv_buffer_create(device, SIZE_MAX - 8, TV_MEM_ACTIVATIONS, &b), TV_NO_MEMORY);
    EXPECT_NE(std::strstr(tv_error_message(), "optimizer 96"), nullptr);
    EXPECT_NE(std::strstr(tv_error_message(), "activations"), nullptr);
    EXPECT_EQ(b.data, nullptr);
    tv_buffer_destroy(&a);
    tv_device_close(device);
}

TEST(Device, StreamsAndEventsOnTheCpuAreImmediate)
{
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;
    tv_event *event = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 2, &device), TV_OK);
    EXPECT_EQ(tv_device_num_threads(device), 2);
    ASSERT_EQ(tv_stream_create(device, &stream), TV_OK);
    ASSERT_EQ(tv_event_create(device, &event), TV_OK);
    int from = 42, to = 0, done = 0;
    EXPECT_EQ(tv_stream_copy(stream, &to, &from, sizeof(to)), TV_OK);
    EXPECT_EQ(tv_event_record(event, stream), TV_OK);
    EXPECT_EQ(tv_stream_wait_event(stream, event), TV_OK);
    EXPECT_EQ(tv_event_is_done(event, &done), TV_OK);
    EXPECT_EQ(done, 1);
    EXPECT_EQ(to, 42);
    EXPECT_EQ(tv_stream_zero(stream, &to, sizeof(to)), TV_OK);
    EXPECT_EQ(tv_stream_synchronize(stream), TV_OK);
    EXPECT_EQ(to, 0);
    tv_event_destroy(event);
    tv_stream_destroy(stream);
    tv_device_close(device);
}

TEST(Device, RefusesNoThreads)
{
    tv_device *device = nullptr;
    EXPECT_EQ(tv_device_open(TV_DEVICE_CPU, 0, &device), TV_INVALID);
    EXPECT_EQ(device, nullptr);
}

// Of a CPU there is none to name.
TEST(Device, ACpuHasNoPciAddress)
{
    tv_device *device = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    EXPECT_STREQ(tv_device_pci(device), "");
    tv_device_close(device);
}

TEST(Device, AGpuThatIsNotThereIsRefusedWithAReason)
{
    tv_device *device = nullptr;
    tv_gpu_choice choice = {};
    std::strcpy(choice.pci, "0000:7f:1f.7");
    EXPECT_EQ(tv_device_open_gpu(&choice, &device), TV_UNSUPPORTED);
    EXPECT_NE(std::strstr(tv_error_message(), "CUDA"), nullptr) << tv_error_message();
    EXPECT_EQ(device, nullptr);
}
