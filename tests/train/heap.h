// Bytes that the process holds on the heap.
#ifndef TV_TESTS_TRAIN_HEAP_H
#define TV_TESTS_TRAIN_HEAP_H
#include <cstddef>
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
extern "C" size_t __sanitizer_get_current_allocated_bytes(void); // GCC brings it without a header
#else
#include <malloc.h>
#endif

// Threads may ask at once. A sanitizer has an allocator of its own; the C library's is then never set
// up, and mallinfo2 would set it up from each thread that asks, without a lock.
inline size_t heap_in_use()
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return __sanitizer_get_current_allocated_bytes();
#else
    return mallinfo2().uordblks;
#endif
}
#endif
