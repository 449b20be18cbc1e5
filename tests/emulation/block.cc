// block.cc -- runs a grid: block by block, each CUDA thread a fiber that runs until it must wait for others.
#include "emulation/emulation.h"
#include "emulation/fiber.h"
#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <link.h>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation
{
namespace
{
enum class State { ready, in_warp, in_block, polling, done };

struct Thread {
    Fiber fiber;
    uint3 index;
    State state;
    // of the meeting it waits for
    unsigned mask;
    void *mine;
    const void *work;
    const char *what;
    Site site;
    const std::function<bool()> *condition; // while polling
};

// What one thread of the host needs to run blocks; kept, so that stacks are made once.
struct Machine {
    std::vector<std::unique_ptr<Thread>> threads;
    unsigned count = 0; // of this launch's blocks
    Thread *running = nullptr;
    unsigned number = 0;       // of the running one
    unsigned arrived[32] = {}; // lanes of each warp that wait for others of it
    unsigned char *dynamic = nullptr;
    size_t dynamic_bytes = 0;
    std::vector<unsigned> thread_order;
};
thread_local Machine storage;
__thread Machine *machine; // storage, once the thread has run a grid: quicker to find

std::mutex failure_lock;
std::string first_failure;
std::atomic<bool> failed{false};

bool has_failed()
{
    return failed;
}

void wait_as(State state)
{
    machine->running->state = state;
    do
        Fiber::suspend();
    while (machine->running->state == state || has_failed()); // a failed fiber is never woken
}

void wake(unsigned thread)
{
    machine->threads[thread]->state = State::ready;
}

std::string place(const Thread &t)
{
    char text[160];
    snprintf(text, sizeof(text), "block (%u, %u, %u), thread (%u, %u, %u)", blockIdx.x, blockIdx.y,
             blockIdx.z, t.index.x, t.index.y, t.index.z);
    return text;
}

bool is_same_site(const Site &a, const Site &b)
{
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string waits_at(const Thread &t)
{
    if (t.state == State::done)
        return place(t) + " has ended";
    return place(t) + " waits in " + t.what + " at " + t.site.file + ":" +
           std::to_string(t.site.line);
}

// Nobody can go on: says who waits, and for whom.
void fail_stuck()
{
    unsigned first = 0; // who waits
    while (machine->threads[first]->state == State::done)
        first++;
    const Thread *waiting = machine->threads[first].get(), *other = nullptr;
    for (unsigned i = 0; i < machine->count && other == nullptr; i++) {
        const Thread *t = machine->threads[i].get();
        const bool is_awaited = waiting->state != State::in_warp ||
                                (i / 32 == first / 32 && (waiting->mask >> (i % 32) & 1) != 0);
        if (is_awaited && (t->state == State::done || !is_same_site(t->site, waiting->site)))
            other = t;
    }
    fail("%s, which not all threads reach: %s", waits_at(*waiting).c_str(),
         other != nullptr ? waits_at(*other).c_str() : "there are fewer threads");
}

// All threads wait at one barrier: does its work and wakes them.
bool open_barrier()
{
    const Thread &first = *machine->threads[0];
    for (unsigned i = 0; i < machine->count; i++) {
        const Thread &t = *machine->threads[i];
        if (t.state != State::in_block || t.work != first.work || !is_same_site(t.site, first.site))
            return false;
    }
    if (first.work != nullptr) {
        std::vector<void *> all;
        for (unsigned i = 0; i < machine->count; i++)
            all.push_back(machine->threads[i]->mine);
        reinterpret_cast<BlockWork>(const_cast<void *>(first.work))(all.data(), machine->count);
    }
    for (unsigned i = 0; i < machine->count; i++)
        wake(i);
    return true;
}

void resume(unsigned number)
{
    Thread &t = *machine->threads[number];
    machine->running = &t;
    machine->number = number;
    threadIdx = t.index;
    t.fiber.resume();
    if (t.fiber.is_done())
        t.state = State::done;
}

void run_block(const Launch &launch)
{
    const uint3 dim = blockDim;
    std::fill(std::begin(machine->arrived), std::end(machine->arrived), 0u);
    for (unsigned i = 0; i < machine->count; i++) {
        Thread &t = *machine->threads[i];
        t.index = {i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
        t.state = State::ready;
        t.what = "the start";
        t.site = {"", 0};
        t.fiber.prepare(&launch.body);
    }
    for (;;) {
        bool progressed = false, alive = false;
        for (const unsigned i : machine->thread_order) {
            const Thread &t = *machine->threads[i];
            if (t.state == State::polling && (*t.condition)())
                wake(i);
            if (t.state == State::ready) {
                resume(i);
                progressed = true;
            }
            if (has_failed()) {
                end_hopper(machine->count);
                return;
            }
            alive |= machine->threads[i]->state != State::done;
        }
        if (!alive) {
            end_copies(machine->count);
            end_hopper(machine->count);
            return;
        }
        if (!progressed && !open_barrier()) {
            fail_stuck();
            end_hopper(machine->count);
            return;
        }
    }
}

// The calling thread's static __shared__ memory of the library with that anchor.
struct Region {
    const unsigned char *code; // in: the anchor function
    unsigned char *data;
    size_t bytes;
};

int find_region(dl_phdr_info *info, size_t, void *data)
{
    Region *region = static_cast<Region *>(data);
    const auto code = reinterpret_cast<uintptr_t>(region->code);
    size_t tls_bytes = 0;
    bool is_inside = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &part = info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + part.p_vaddr;
        is_inside |= part.p_type == PT_LOAD && code >= start && code < start + part.p_memsz;
        if (part.p_type == PT_TLS)
            tls_bytes = part.p_memsz;
    }
    if (!is_inside)
        return 0;
    region->data = static_cast<unsigned char *>(info->dlpi_tls_data);
    region->bytes = tls_bytes;
    return 1;
}

Region static_shared(const Launch &launch)
{
    launch.shared_anchor(); // so that this thread has its copy
    Region region = {reinterpret_cast<const unsigned char *>(launch.shared_anchor), nullptr, 0};
    dl_iterate_phdr(find_region, &region);
    return region;
}

std::vector<unsigned> order_of(unsigned count)
{
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    const unsigned seed = settings().order;
    if (seed == 1)
        std::reverse(order.begin(), order.end());
    else if (seed > 1)
        std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    return order;
}

unsigned long long block_of(unsigned long long i, unsigned long long count)
{
    if (settings().order == 0)
        return i;
    return settings().order == 1 ? count - 1 - i : (i + settings().order) % count;
}
} // namespace

int lane()
{
    return (int)(machine->number % 32);
}

unsigned thread_number()
{
    return machine->number;
}

void *dynamic_shared()
{
    return machine->dynamic;
}

size_t dynamic_shared_bytes()
{
    return machine->dynamic_bytes;
}

// What the lanes of self's mask brought, where all of them wait for the same.
static bool collect(unsigned first, const Thread &self, void *lanes[32])
{
    for (unsigned i = 0; i < 32; i++) {
        if ((self.mask >> i & 1) == 0)
            continue;
        const Thread &t = *machine->threads[first + i];
        if (t.mask != self.mask || t.work != self.work || !is_same_site(t.site, self.site))
            return false;
        lanes[i] = t.mine;
    }
    return true;
}

void meet_warp(unsigned mask, void *mine, WarpWork work, const char *what, Site site)
{
    Thread &self = *machine->running;
    const unsigned first = machine->number / 32 * 32;
    if ((mask >> (machine->number % 32) & 1) == 0) {
        fail("%s calls %s at %s:%d with a mask that lacks it", place(self).c_str(), what, site.file,
             site.line);
        wait_as(State::in_warp);
    }
    self.mask = mask;
    self.mine = mine;
    self.work = reinterpret_cast<const void *>(work);
    self.what = what;
    self.site = site;
    unsigned &arrived = machine->arrived[first / 32];
    arrived |= 1u << (machine->number - first);
    void *lanes[32] = {};
    if ((arrived & mask) != mask || !collect(first, self, lanes)) {
        wait_as(State::in_warp); // the last one to come wakes it
        return;
    }
    arrived &= ~mask;
    if (work != nullptr)
        work(lanes, mask);
    if (has_failed())
        wait_as(State::in_warp);
    for (unsigned i = 0; i < 32; i++)
        if (mask >> i & 1)
            wake(first + i);
}

void meet_block(void *mine, BlockWork work, const char *what, Site site)
{
    Thread &self = *machine->running;
    self.mine = mine;
    self.work = reinterpret_cast<const void *>(work);
    self.what = what;
    self.site = site;
    wait_as(State::in_block);
}

void wait_until(const std::function<bool()> &condition, const char *what, Site site)
{
    if (condition())
        return;
    Thread &self = *machine->running;
    self.condition = &condition;
    self.what = what;
    self.site = site;
    wait_as(State::polling);
}

void fail(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    const std::lock_guard<std::mutex> hold(failure_lock);
    if (first_failure.empty()) {
        first_failure = text;
        failed = true;
        fprintf(stderr, "emulated CUDA: %s\n", text);
    }
}

std::string failure()
{
    const std::lock_guard<std::mutex> hold(failure_lock);
    return first_failure;
}

void clear_failure()
{
    const std::lock_guard<std::mutex> hold(failure_lock);
    first_failure.clear();
    failed = false;
}

void run_grid(const Launch &launch)
{
    const dim3 grid = launch.config.gridDim, block = launch.config.blockDim;
    machine = &storage;
    machine->count = block.x * block.y * block.z;
    while (machine->threads.size() < machine->count)
        machine->threads.push_back(std::make_unique<Thread>());
    machine->thread_order = order_of(machine->count);
    gridDim = {grid.x, grid.y, grid.z};
    blockDim = {block.x, block.y, block.z};
    const Region shared = static_shared(launch);
    // The library's own thread-local variables are among them.
    const std::vector<unsigned char> outside(shared.data, shared.data + shared.bytes);
    const size_t dynamic_bytes = launch.config.dynamicSmemBytes;
    const std::unique_ptr<unsigned char, decltype(&std::free)> dynamic(
        static_cast<unsigned char *>(
            aligned_alloc(128, std::max<size_t>((dynamic_bytes + 127) / 128 * 128, 128))),
        &std::free);
    machine->dynamic = dynamic.get();
    machine->dynamic_bytes = dynamic_bytes;
    const unsigned long long count = (unsigned long long)grid.x * grid.y * grid.z;
    for (unsigned long long i = 0; i < count && !has_failed(); i++) {
        const unsigned long long b = block_of(i, count);
        blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                    (unsigned)(b / grid.x / grid.y)};
        std::memset(shared.data, settings().fill, shared.bytes);
        std::memset(machine->dynamic, settings().fill, dynamic_bytes);
        run_block(launch);
    }
    machine->dynamic = nullptr;
    std::memcpy(shared.data, outside.data(), shared.bytes);
}
} // namespace emulation
