/* kernels/timed.c -- entries get no context of their own, so it is the thread's: a rank is a thread, and calls all of
 * its kernels from there. */
#include "kernels/timed.h"
#include "base/clock.h"

enum { OF_F32, OF_BF16, NUM_TABLES };
static _Thread_local struct {
    const struct tv_kernels *inner;
    struct tv_kernel_times *times;
} here[NUM_TABLES];

static void count_call(int table, tv_kernel_t kernel, const void *args, double seconds)
{
    struct tv_kernel_count *count = &here[table].times->of[kernel];
    const struct tv_kernel_work work = tv_kernel_work_of(kernel, args, here[table].inner->dtype);
    count->calls++;
    count->seconds += seconds;
    count->work.flops += work.flops;
    count->work.bytes += work.bytes;
}

#define TIMED(op, type)                                                                            \
    static tv_status_t op##_timed(int table, struct tv_stream *stream, const struct type *args)    \
    {                                                                                              \
        const struct tv_kernels *inner = here[table].inner;                                        \
        if (inner == NULL)                                                                         \
            return TV_ERR(TV_INTERNAL, "%s: this thread times no kernels", #op);                   \
        if (here[table].times->is_off)                                                             \
            return inner->op(stream, args);                                                        \
        const double started = tv_clock_seconds();                                                 \
        TV_TRY(inner->op(stream, args));                                                           \
        TV_TRY(tv_stream_synchronize(stream));                                                     \
        count_call(table, TV_KERNEL_##op, args, tv_clock_seconds() - started);                     \
        return TV_OK;                                                                              \
    }                                                                                              \
    static tv_status_t op##_f32(struct tv_stream *stream, const struct type *args)                 \
    {                                                                                              \
        return op##_timed(OF_F32, stream, args);                                                   \
    }                                                                                              \
    static tv_status_t op##_bf16(struct tv_stream *stream, const struct type *args)                \
    {                                                                                              \
        return op##_timed(OF_BF16, stream, args);                                                  \
    }
TV_KERNEL_LIST(TIMED)

#define F32_ENTRY(op, type)  .op = op##_f32,
#define BF16_ENTRY(op, type) .op = op##_bf16,

const struct tv_kernels *tv_kernels_timed(const struct tv_kernels *inner,
                                          struct tv_kernel_times *times)
{
    static const struct tv_kernels tables[NUM_TABLES] = {
        {.name = "timed", .dtype = TV_F32, TV_KERNEL_LIST(F32_ENTRY)},
        {.name = "timed", .dtype = TV_BF16, TV_KERNEL_LIST(BF16_ENTRY)}};
    const int table = inner->dtype == TV_BF16 ? OF_BF16 : OF_F32;
    here[table].inner = inner;
    here[table].times = times;
    return &tables[table];
}
