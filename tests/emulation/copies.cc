// copies.cc -- asynchronous copies into shared memory (cp.async). Their place holds the fill from the start on, and the
// bytes from the wait on: on a GPU they may come at any moment between.
#include "emulation/emulation.h"
#include "emulation/include/emulated_mma.h"
#include <deque>

namespace emulation
{
namespace
{
struct Copy {
    void *to;
    const void *from; // nullptr: zeros
    size_t bytes;
};
// Of each thread of the running block: closed groups, oldest first, and at the back the open one.
struct Groups {
    std::deque<std::vector<Copy>> closed;
    std::vector<Copy> open;
};
thread_local std::vector<Groups> threads(1024);

Groups &mine()
{
    return threads[threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)];
}
} // namespace

void start_copy(void *to, const void *from, size_t bytes, bool is_there)
{
    std::memset(to, settings().fill, bytes);
    mine().open.push_back({to, is_there ? from : nullptr, bytes});
}

void commit_copies()
{
    Groups &groups = mine();
    groups.closed.push_back(std::move(groups.open));
    groups.open.clear();
}

void wait_for_copies(int groups_left)
{
    Groups &groups = mine();
    while (groups.closed.size() > static_cast<size_t>(groups_left)) {
        for (const Copy &copy : groups.closed.front()) {
            if (copy.from != nullptr)
                std::memcpy(copy.to, copy.from, copy.bytes);
            else
                std::memset(copy.to, 0, copy.bytes);
        }
        groups.closed.pop_front();
    }
}

void end_copies(unsigned num_threads)
{
    bool is_left = false;
    for (unsigned i = 0; i < num_threads; i++) {
        for (const std::vector<Copy> &group : threads[i].closed)
            is_left |= !group.empty();
        is_left |= !threads[i].open.empty();
        threads[i] = {};
    }
    if (is_left)
        fail("a block ended with an asynchronous copy that nothing waited for");
}
} // namespace emulation
