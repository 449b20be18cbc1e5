/* kernels/timed.c -- entries get no context of their own, so it is the thread's: a rank is a thread, and calls all of
 * its kernels from there. */
#include "kernels/timed.h"
#include "base/clock.h"

static _Thread_local struct {
    const struct tv_kernels *inner;
    struct tv_kernel_times *times;
} here;

static void count_call(tv_kernel_t kernel, const void *args, double seconds)
{
    struct tv_kernel_count *count = &here.times->of[kernel];
    const struct tv_kernel_work work = tv_kernel_work_of(kernel, args, here.inner->dtype);
    count->calls++;
    count->seconds += seconds;
    count->work.flops += work.flops;
    count->work.bytes += work.bytes;
}

#define TIMED(op, type)                                                                            \
    static tv_status_t op##_timed(struct tv_stream *stream, const struct type *args)               \
    {                                                                                              \
        if (here.inner == NULL)                                                                    \
            return TV_ERR(TV_INTERNAL, "%s: this thread times no kernels", #op);                   \
        const double started = tv_clock_seconds();                                                 \
        TV_TRY(here.inner->op(stream, args));                                                      \
        TV_TRY(tv_stream_synchronize(stream));                                                     \
        count_call(TV_KERNEL_##op, args, tv_clock_seconds() - started);                            \
        return TV_OK;                                                                              \
    }
TV_KERNEL_LIST(TIMED)

#define ENTRY(op, type) .op = op##_timed,

const struct tv_kernels *tv_kernels_timed(const struct tv_kernels *inner,
                                          struct tv_kernel_times *times)
{
    static const struct tv_kernels f32 = {.name = "timed", .dtype = TV_F32, TV_KERNEL_LIST(ENTRY)};
    static const struct tv_kernels bf16 = {
        .name = "timed", .dtype = TV_BF16, TV_KERNEL_LIST(ENTRY)};
    here.inner = inner;
    here.times = times;
    return inner->dtype == TV_BF16 ? &bf16 : &f32;
}
