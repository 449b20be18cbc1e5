/* tests/mesh/counted_allocation.cc -- counts the allocations of the code linked into this program; the linker is told
 * to --wrap these functions. */
#include "mesh/ranks.h"
#include <cstdlib>

static thread_local int64_t count = 0, left_to_fail = -1;

int64_t num_allocations()
{
    return count;
}

void fail_allocation(int64_t after)
{
    left_to_fail = after;
}

static bool fails()
{
    count++;
    return left_to_fail >= 0 && left_to_fail-- == 0;
}

extern "C" {
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t num, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t num, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    return fails() ? nullptr : __real_malloc(bytes);
}

void *__wrap_calloc(size_t num, size_t bytes)
{
    return fails() ? nullptr : __real_calloc(num, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return fails() ? nullptr : __real_aligned_alloc(alignment, bytes);
}
}
