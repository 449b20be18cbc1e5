// gpu.h -- a GPU of the emulation with a stream, for tests of what runs on it.
#ifndef TV_TESTS_EMULATION_GPU_H
#define TV_TESTS_EMULATION_GPU_H
#include "base/device.h"
#include "emulation/emulation.h"
#include <gtest/gtest.h>
#include <vector>

inline constexpr size_t mib = 1 << 20;

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

// Looks at a device, and has had enough at the last look.
struct Watcher {
    int looks = 0, last = 0; // last: 0: never
    bool is_over = false;
    static tv_status_t look(void *context, double)
    {
        Watcher *here = static_cast<Watcher *>(context);
        here->is_over = ++here->looks == here->last;
        return here->is_over ? TV_ERR(TV_PEER, "look %d", here->looks) : TV_OK;
    }
};
#endif
