// streams.cc -- streams and events: queues of operations that run late, and a record of what was enqueued.
#include "emulation/emulation.h"
#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sched.h>
#include <set>
#include <thread>

namespace emulation
{
// One record of an event.
struct Mark {
    cudaStream_t stream;
    std::atomic<bool> done{false};
    std::chrono::steady_clock::time_point when;
};
} // namespace emulation

struct CUstream_st {
    int number, device;
    std::thread::id maker;
    std::recursive_mutex lock;
    std::deque<emulation::Operation> operations;
    bool is_running; // the first of them
};

struct CUevent_st {
    int number;
    std::shared_ptr<emulation::Mark> last; // NULL until it is recorded
};

namespace emulation
{
int current_device(); // device.cc
void finish_device(); // below
void set_last_error(cudaError_t error);
cudaError_t release(void *data); // memory.cc

namespace
{
struct World {
    std::mutex lock;
    std::set<CUstream_st *> streams;
    std::map<int, CUstream_st *> default_streams; // by device
    std::map<const void *, int> dynamic_limits;   // by kernel
    int num_streams = 0, num_events = 0;
    bool is_recording = false;
    std::vector<Entry> record;
};

World &world()
{
    static World *const the = new World;
    return *the;
}

cudaStream_t default_stream()
{
    World &w = world();
    const std::lock_guard<std::mutex> hold(w.lock);
    CUstream_st *&stream = w.default_streams[current_device()];
    if (stream == nullptr) {
        stream = new CUstream_st{0, current_device(), {}, {}, {}, false};
        w.streams.insert(stream);
    }
    return stream;
}

cudaStream_t resolve(cudaStream_t stream)
{
    return stream != nullptr ? stream : default_stream();
}

// Runs the stream's first operation; the lock is held.
bool run_one(cudaStream_t stream)
{
    if (stream->is_running) // an operation that asks for its own stream
        return false;
    stream->is_running = true;
    const bool is_done = stream->operations.front()();
    stream->is_running = false;
    if (is_done)
        stream->operations.pop_front();
    return is_done;
}

bool advance_until(cudaStream_t stream, const Mark *mark)
{
    const std::lock_guard<std::recursive_mutex> hold(stream->lock);
    while (!stream->operations.empty() && (mark == nullptr || !mark->done)) {
        if (!run_one(stream))
            return false;
    }
    return true;
}

// By the schedule's seed: now and then, some operations of a stream of this thread.
void disturb()
{
    static thread_local std::mt19937 random;
    static thread_local unsigned seed = 0;
    if (seed != settings().schedule)
        random.seed(seed = settings().schedule);
    if (seed == 0)
        return;
    if (random() % 4 != 0)
        return;
    World &w = world();
    std::vector<CUstream_st *> mine;
    {
        const std::lock_guard<std::mutex> hold(w.lock);
        for (CUstream_st *stream : w.streams)
            if (stream->maker == std::this_thread::get_id())
                mine.push_back(stream);
    }
    if (mine.empty())
        return;
    std::sort(mine.begin(), mine.end(), [](const CUstream_st *a, const CUstream_st *b) {
        return a->number < b->number; // not by their addresses
    });
    CUstream_st *stream = mine[random() % mine.size()];
    const std::lock_guard<std::recursive_mutex> hold(stream->lock);
    for (unsigned i = random() % 4 + 1; i > 0 && !stream->operations.empty(); i--) {
        if (!run_one(stream))
            return;
    }
}

void add(cudaStream_t stream, const std::string &what, int event, Operation operation)
{
    World &w = world();
    stream = resolve(stream);
    {
        const std::lock_guard<std::mutex> hold(w.lock);
        if (w.is_recording)
            w.record.push_back({stream->number, what, event});
    }
    {
        const std::lock_guard<std::recursive_mutex> hold(stream->lock);
        stream->operations.push_back(std::move(operation));
    }
    disturb();
}

cudaError_t outcome()
{
    return failure().empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

bool is_valid(const Launch &launch)
{
    const dim3 grid = launch.config.gridDim, block = launch.config.blockDim;
    const unsigned long long threads = (unsigned long long)block.x * block.y * block.z;
    World &w = world();
    const std::lock_guard<std::mutex> hold(w.lock);
    const auto limit = w.dynamic_limits.find(launch.kernel);
    const size_t most = limit != w.dynamic_limits.end() ? (size_t)limit->second : 48 * 1024;
    return threads >= 1 && threads <= 1024 && block.z <= 64 && grid.x >= 1 && grid.y >= 1 &&
           grid.z >= 1 && grid.x <= 2147483647u && grid.y <= 65535 && grid.z <= 65535 &&
           launch.config.dynamicSmemBytes <= most;
}

// A stream that cannot get on waits for a peer, which may wait for another stream of this thread: a GPU runs them all.
cudaError_t synchronize(cudaStream_t stream)
{
    while (!advance(stream)) {
        finish_device();
        sched_yield();
    }
    return outcome();
}
} // namespace

void enqueue(cudaStream_t stream, const std::string &what, Operation operation)
{
    add(stream, what, 0, std::move(operation));
}

bool advance(cudaStream_t stream)
{
    const DeviceAccess access;
    return advance_until(resolve(stream), nullptr);
}

int stream_number(cudaStream_t stream)
{
    return resolve(stream)->number;
}

static thread_local int waits_to_loss;

void lose_wait(int nth)
{
    waits_to_loss = nth;
}

void start_record()
{
    World &w = world();
    const std::lock_guard<std::mutex> hold(w.lock);
    w.is_recording = true;
    w.record.clear();
}

std::vector<Entry> take_record()
{
    World &w = world();
    const std::lock_guard<std::mutex> hold(w.lock);
    w.is_recording = false;
    return std::move(w.record);
}

// What freeing memory does on a GPU, except that it does not wait for peers.
void finish_device()
{
    World &w = world();
    std::vector<CUstream_st *> mine;
    {
        const std::lock_guard<std::mutex> hold(w.lock);
        for (CUstream_st *stream : w.streams)
            if (stream->maker == std::this_thread::get_id() || stream->number == 0)
                mine.push_back(stream);
    }
    for (CUstream_st *stream : mine)
        advance(stream);
}

cudaError_t launch(Launch launch)
{
    if (!is_valid(launch)) {
        set_last_error(cudaErrorInvalidConfiguration);
        return cudaErrorInvalidConfiguration;
    }
    const cudaStream_t stream = launch.config.stream;
    enqueue(stream, "kernel", [launch = std::move(launch)] {
        const DeviceAccess access;
        run_grid(launch);
        return true;
    });
    return cudaSuccess;
}

cudaError_t set_function_attribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || value > 232448)
        return cudaErrorInvalidValue;
    World &w = world();
    const std::lock_guard<std::mutex> hold(w.lock);
    w.dynamic_limits[kernel] = value;
    return cudaSuccess;
}
} // namespace emulation

using namespace emulation;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    if (flags !=
        cudaStreamNonBlocking) // the others wait for the default stream, which this double cannot show
        return cudaErrorNotSupported;
    World &w = world();
    const std::lock_guard<std::mutex> hold(w.lock);
    *stream = new CUstream_st{
        ++w.num_streams, current_device(), std::this_thread::get_id(), {}, {}, false};
    w.streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    const cudaError_t error = synchronize(stream);
    World &w = world();
    const std::lock_guard<std::mutex> hold(w.lock);
    w.streams.erase(stream);
    delete stream;
    return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return synchronize(resolve(stream));
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    const bool is_done = advance(stream);
    const cudaError_t error = outcome();
    return error != cudaSuccess ? error : is_done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize()
{
    World &w = world();
    std::vector<CUstream_st *> all;
    {
        const std::lock_guard<std::mutex> hold(w.lock);
        for (CUstream_st *stream : w.streams)
            if (stream->device == current_device())
                all.push_back(stream);
    }
    // In turns: one stream may wait for what a peer does when another gets on.
    for (bool is_done = false; !is_done;) {
        is_done = true;
        for (CUstream_st *stream : all)
            is_done &= advance(stream);
        if (!is_done)
            sched_yield();
    }
    return outcome();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (waits_to_loss > 0 && --waits_to_loss == 0)
        return cudaSuccess;
    if (event->last == nullptr) // as on a GPU: nothing to wait for
        return cudaSuccess;
    add(stream, "wait", event->number, [mark = event->last] {
        if (!mark->done)
            advance_until(mark->stream, mark.get());
        return mark->done.load();
    });
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void *), void *data)
{
    enqueue(stream, "host", [=] {
        function(data);
        return true;
    });
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    World &w = world();
    const std::lock_guard<std::mutex> hold(w.lock);
    *event = new CUevent_st{++w.num_events, nullptr};
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    const auto mark = std::make_shared<Mark>();
    mark->stream = resolve(stream);
    event->last = mark;
    add(stream, "record", event->number, [mark] {
        mark->when = std::chrono::steady_clock::now();
        mark->done = true;
        return true;
    });
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    const DeviceAccess access;
    if (event->last != nullptr && !event->last->done)
        advance_until(event->last->stream, event->last.get());
    const cudaError_t error = outcome();
    if (error != cudaSuccess)
        return error;
    return event->last == nullptr || event->last->done ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaError_t error;
    while ((error = cudaEventQuery(event)) == cudaErrorNotReady) {
        finish_device();
        sched_yield();
    }
    return error;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t first, cudaEvent_t last)
{
    if (first->last == nullptr || last->last == nullptr)
        return cudaErrorInvalidResourceHandle;
    if (!first->last->done || !last->last->done)
        return cudaErrorNotReady;
    *milliseconds =
        std::chrono::duration<float, std::milli>(last->last->when - first->last->when).count();
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream)
{
    const bool takes_now = !is_device_memory(src) && !is_pinned(src);
    const bool waits = !is_device_memory(dst) && !is_pinned(dst);
    std::shared_ptr<std::vector<char>> taken;
    if (takes_now) {
        const char *from = static_cast<const char *>(src);
        taken = std::make_shared<std::vector<char>>(from, from + bytes);
    }
    enqueue(stream, "copy", [=] {
        const DeviceAccess access;
        if (bytes > 0)
            std::memcpy(dst, taken != nullptr ? taken->data() : src, bytes);
        return true;
    });
    return waits ? cudaStreamSynchronize(stream) : cudaSuccess;
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    const cudaError_t error = cudaMemcpyAsync(dst, src, bytes, kind, nullptr);
    return error != cudaSuccess ? error : cudaStreamSynchronize(nullptr);
}

cudaError_t cudaMemsetAsync(void *data, int value, size_t bytes, cudaStream_t stream)
{
    enqueue(stream, "set", [=] {
        const DeviceAccess access;
        if (bytes > 0)
            std::memset(data, value, bytes);
        return true;
    });
    return cudaSuccess;
}

// As on a GPU, this one returns before it is done, and streams that do not block do not wait for it.
cudaError_t cudaMemset(void *data, int value, size_t bytes)
{
    return cudaMemsetAsync(data, value, bytes, nullptr);
}

cudaError_t cudaMallocAsync(void **data, size_t bytes, cudaStream_t)
{
    return cudaMalloc(data, bytes);
}

cudaError_t cudaFreeAsync(void *data, cudaStream_t stream)
{
    enqueue(stream, "free", [=] {
        release(data);
        return true;
    });
    return cudaSuccess;
}
