// memory.cc -- device memory: one reserved piece of the address space that stays PROT_NONE except while an operation
// runs, so that the host touching it faults at once. Allocations lie apart; gaps and freed pieces are poisoned for
// AddressSanitizer, and without it a gap that was written is found when its neighbour is freed.
#include "emulation/emulation.h"
#include "emulation/sanitizer.h"
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#if defined(TV_EMULATION_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace emulation
{
int current_device(); // device.cc
void finish_device(); // streams.cc
cudaError_t release(void *data);

namespace
{
constexpr size_t arena_bytes = (size_t)1 << 36, alignment = 512;
constexpr unsigned char gap_byte = 0xa5;

struct Allocation {
    size_t bytes, room; // room: rounded up, with the gap behind
    int device;
};

struct Arena {
    std::mutex lock;
    std::atomic<unsigned char *> base{nullptr};
    size_t high = 0;                       // everything in use lies below
    std::map<size_t, Allocation> used;     // by offset
    std::map<size_t, size_t> holes;        // offset, bytes
    std::map<const void *, size_t> pinned; // host memory
    std::map<int, size_t> device_bytes;
    int accesses = 0;
};

Arena &arena()
{
    static Arena *const the = new Arena; // operations may outlive static objects
    return *the;
}

// Without AddressSanitizer's own handler: says what happened before the process dies of it.
void on_fault(int signal, siginfo_t *info, void *)
{
    const char text[] = "emulated CUDA: the host touched device memory\n";
    if (is_device_memory(info->si_addr) && write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(128 + signal);
    std::signal(signal, SIG_DFL);
}

void watch_faults()
{
    struct sigaction now = {};
    if (sigaction(SIGSEGV, nullptr, &now) != 0 || now.sa_handler != SIG_DFL)
        return;
    struct sigaction ours = {};
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &ours, nullptr);
}

void protect(Arena &a, int protection)
{
    if (a.high > 0 && mprotect(a.base, a.high, protection) != 0) {
        std::perror("emulation: mprotect");
        std::abort();
    }
}

void poison([[maybe_unused]] const unsigned char *data, [[maybe_unused]] size_t bytes)
{
#if defined(TV_EMULATION_ASAN)
    __asan_poison_memory_region(data, bytes);
#endif
}

void unpoison([[maybe_unused]] const unsigned char *data, [[maybe_unused]] size_t bytes)
{
#if defined(TV_EMULATION_ASAN)
    __asan_unpoison_memory_region(data, bytes);
#endif
}

// A place for `room` bytes: the first hole that has it, or the end.
size_t find_place(Arena &a, size_t room)
{
    for (auto hole = a.holes.begin(); hole != a.holes.end(); ++hole) {
        const auto [offset, bytes] = *hole;
        if (bytes < room)
            continue;
        a.holes.erase(hole);
        if (bytes > room)
            a.holes[offset + room] = bytes - room;
        return offset;
    }
    const size_t offset = a.high;
    const size_t page = (size_t)getpagesize();
    a.high = (a.high + room + page - 1) / page * page;
    if (a.high > offset + room)
        a.holes[offset + room] = a.high - offset - room;
    if (a.accesses > 0)
        protect(a, PROT_READ | PROT_WRITE);
    return offset;
}

void add_hole(Arena &a, size_t offset, size_t bytes)
{
    auto next = a.holes.lower_bound(offset);
    if (next != a.holes.end() && next->first == offset + bytes) {
        bytes += next->second;
        next = a.holes.erase(next);
    }
    if (next != a.holes.begin() && std::prev(next)->first + std::prev(next)->second == offset)
        std::prev(next)->second += bytes;
    else
        a.holes[offset] = bytes;
}

// Gives back the pages of a hole at the end: every access opens and closes all below `high`.
void shrink(Arena &a)
{
    if (a.holes.empty() || a.holes.rbegin()->first + a.holes.rbegin()->second != a.high)
        return;
    const size_t page = (size_t)getpagesize(), start = a.holes.rbegin()->first;
    const size_t high = (start + page - 1) / page * page;
    if (high == a.high)
        return;
    a.holes.erase(start);
    if (high > start)
        a.holes[start] = high - start;
    unpoison(a.base + high, a.high - high);
    madvise(a.base + high, a.high - high, MADV_DONTNEED);
    mprotect(a.base + high, a.high - high, PROT_NONE);
    a.high = high;
}

bool open_arena(Arena &a)
{
    if (a.base != nullptr)
        return true;
    void *pages =
        mmap(nullptr, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return false;
    a.base = static_cast<unsigned char *>(pages);
    watch_faults();
    return true;
}

void check_gap([[maybe_unused]] const unsigned char *data, [[maybe_unused]] const Allocation &block)
{
#if !defined(TV_EMULATION_ASAN)
    for (size_t i = block.bytes; i < block.room; i++) {
        if (data[i] != gap_byte) {
            fail("device memory of %zu bytes was written %zu bytes behind its end", block.bytes,
                 i - block.bytes);
            return;
        }
    }
#endif
}
} // namespace

DeviceAccess::DeviceAccess()
{
    Arena &a = arena();
    const std::lock_guard<std::mutex> hold(a.lock);
    if (a.accesses++ == 0)
        protect(a, PROT_READ | PROT_WRITE);
}

DeviceAccess::~DeviceAccess()
{
    Arena &a = arena();
    const std::lock_guard<std::mutex> hold(a.lock);
    if (--a.accesses == 0)
        protect(a, PROT_NONE);
}

bool is_device_memory(const void *data)
{
    const Arena &a = arena();
    const unsigned char *at = static_cast<const unsigned char *>(data);
    return a.base != nullptr && at >= a.base && at < a.base + arena_bytes;
}

bool is_pinned(const void *data)
{
    Arena &a = arena();
    const std::lock_guard<std::mutex> hold(a.lock);
    auto next = a.pinned.upper_bound(data);
    if (next == a.pinned.begin())
        return false;
    --next;
    return static_cast<const char *>(data) < static_cast<const char *>(next->first) + next->second;
}

size_t device_bytes()
{
    Arena &a = arena();
    const std::lock_guard<std::mutex> hold(a.lock);
    size_t sum = 0;
    for (const auto &[device, bytes] : a.device_bytes)
        sum += bytes;
    return sum;
}
} // namespace emulation

using namespace emulation;

cudaError_t cudaMalloc(void **data, size_t bytes)
{
    Arena &a = arena();
    unsigned char *start;
    Allocation block = {bytes, (bytes + 2 * alignment - 1) / alignment * alignment,
                        current_device()};
    {
        const std::lock_guard<std::mutex> hold(a.lock);
        if (!open_arena(a) || bytes > settings().memory - a.device_bytes[block.device])
            return cudaErrorMemoryAllocation;
        const size_t offset = find_place(a, block.room);
        start = a.base + offset;
        a.used[offset] = block;
        a.device_bytes[block.device] += bytes;
    }
    const DeviceAccess access;
    unpoison(start, block.room);
    std::memset(start, settings().fill, bytes);
    std::memset(start + bytes, gap_byte, block.room - bytes);
    poison(start + bytes, block.room - bytes);
    *data = start;
    return cudaSuccess;
}

cudaError_t cudaFree(void *data)
{
    if (data == nullptr)
        return cudaSuccess;
    finish_device();
    return release(data);
}

cudaError_t emulation::release(void *data)
{
    Arena &a = arena();
    const DeviceAccess access;
    const std::lock_guard<std::mutex> hold(a.lock);
    unsigned char *start = static_cast<unsigned char *>(data);
    const auto at = a.base != nullptr ? a.used.find((size_t)(start - a.base)) : a.used.end();
    if (at == a.used.end())
        return cudaErrorInvalidValue;
    const Allocation block = at->second;
    check_gap(start, block);
    a.used.erase(at);
    a.device_bytes[block.device] -= block.bytes;
    unpoison(start, block.room);
    std::memset(start, settings().fill, block.room);
    poison(start, block.room);
    add_hole(a, (size_t)(start - a.base), block.room);
    shrink(a);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **data, size_t bytes, unsigned)
{
    Arena &a = arena();
    *data = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (*data == nullptr)
        return cudaErrorMemoryAllocation;
    std::memset(*data, settings().fill, bytes);
    const std::lock_guard<std::mutex> hold(a.lock);
    a.pinned[*data] = bytes;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **data, size_t bytes)
{
    return cudaHostAlloc(data, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *data)
{
    finish_device();
    Arena &a = arena();
    const std::lock_guard<std::mutex> hold(a.lock);
    if (data != nullptr && a.pinned.erase(data) == 0)
        return cudaErrorInvalidValue;
    free(data);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    Arena &a = arena();
    const std::lock_guard<std::mutex> hold(a.lock);
    *total_bytes = settings().memory;
    *free_bytes = settings().memory - a.device_bytes[current_device()];
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *data)
{
    void *const at = const_cast<void *>(data);
    *attributes = {cudaMemoryTypeUnregistered, -1, nullptr, at};
    if (is_device_memory(data))
        *attributes = {cudaMemoryTypeDevice, current_device(), at, nullptr};
    else if (is_pinned(data))
        *attributes = {cudaMemoryTypeHost, current_device(), at, at};
    return cudaSuccess;
}
