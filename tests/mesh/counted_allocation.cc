/* tests/mesh/counted_allocation.cc -- counts the allocations of the code linked into this program; the linker is told
 * to --wrap these functions. */
#include "mesh/ranks.h"
#include <cstdlib>

static thread_local int64_t count = 0;

int64_t num_allocations()
{
    return count;
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
    count++;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t num, size_t bytes)
{
    count++;
    return __real_calloc(num, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    count++;
    return __real_aligned_alloc(alignment, bytes);
}
}
