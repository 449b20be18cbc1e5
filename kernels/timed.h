/* kernels/timed.h -- a table of kernels around another one that counts: calls, seconds, FLOPs and bytes by kernel. No
 * kernel knows of it. */
#ifndef TV_KERNELS_TIMED_H
#define TV_KERNELS_TIMED_H
#include "kernels/work.h"

TV_BEGIN_C
struct tv_kernel_count {
    int64_t calls;
    double seconds;             /* from the call until the stream has done it */
    struct tv_kernel_work work; /* the sum over the calls */
};
struct tv_kernel_times {
    struct tv_kernel_count of[TV_NUM_KERNELS];
    int is_off; /* calls pass: nothing is counted, and nothing waits for the stream */
};

/* The table that adds to `times` what this thread calls of it; `inner` does the work. Each thread has its own, one for
 * each dtype: a later call of this thread for the same dtype replaces both, a thread that never called it for a dtype
 * gets TV_INTERNAL from every entry of that table. Borrows both, until the thread's last call of an entry. The name is
 * that of no backend: "timed". */
const struct tv_kernels *tv_kernels_timed(const struct tv_kernels *inner,
                                          struct tv_kernel_times *times);
TV_END_C
#endif
