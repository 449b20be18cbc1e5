/* base/span.h -- stretches of work on streams, by name: profilers show them (NVTX), and a device that was asked times
 * them itself, by events on its streams. The host waits for neither.
 *
 * On the CPU nothing is named or timed: a stream does each operation at once, and clocks of the host say it all. */
#ifndef TV_BASE_SPAN_H
#define TV_BASE_SPAN_H
#include "base/device.h"

TV_BEGIN_C
enum { TV_SPAN_NAME = 56, TV_STREAM_NAME = 40 };
struct tv_span {
    double start, end; /* tv_clock_seconds(), to some 10 us */
    int32_t stream;    /* its number on the device, from 1 in the order of creation */
    char stream_name[TV_STREAM_NAME], name[TV_SPAN_NAME];
};

/* From now on spans on this device are timed. Waits once for the stream, to lay the device's clock beside the host's;
 * the second time does nothing. Errors: TV_NO_MEMORY, and those of the device. */
TV_MUST_CHECK tv_status_t tv_spans_start(struct tv_stream *stream);
/* Around work that is enqueued between the two calls, of one thread; pairs may nest. A work that fails needs no end. */
TV_MUST_CHECK tv_status_t tv_span_begin(struct tv_stream *stream, const char *name, int *span_out);
TV_MUST_CHECK tv_status_t tv_span_end(struct tv_stream *stream, int span);
/* Those that are done, in the order of their begins, for the caller to free, and none are kept; 0 and NULL where
 * nothing is timed. What is still under way is left out: call it behind tv_stream_synchronize. */
TV_MUST_CHECK tv_status_t tv_spans_take(struct tv_device *device, struct tv_span **spans_out,
                                        int *num_out);
TV_END_C
#endif
