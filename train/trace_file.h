/* train/trace_file.h -- timelines in Chrome's trace format, which Perfetto (ui.perfetto.dev) and
 * chrome://tracing open.
 *
 * Processes hold threads, threads hold events; an event is a name from a start for a duration.
 * Events of one thread may nest but not overlap otherwise. Each is written as it comes: nothing is
 * kept. */
#ifndef TV_TRAIN_TRACE_FILE_H
#define TV_TRAIN_TRACE_FILE_H
#include "base/status.h"

TV_BEGIN_C
struct json_t;   /* jansson.h */
struct tv_trace; /* opaque */

struct tv_trace_event {
    const char *name, *category; /* UTF-8 */
    int pid, tid;
    double start, duration; /* seconds, finite; from any origin */
    struct json_t *args;    /* an object shown with the event, or NULL; taken over */
};

/* Makes the folder where missing. Errors: TV_INVALID with path and reason, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_trace_open(const char *path, struct tv_trace **trace_out);
void tv_trace_name_process(struct tv_trace *trace, int pid, const char *name);
void tv_trace_name_thread(struct tv_trace *trace, int pid, int tid, const char *name);
void tv_trace_add(struct tv_trace *trace, const struct tv_trace_event *event);
/* Ends the file and frees the trace; NULL is a no-op. Errors of all that was added are told here:
 * TV_IO. */
TV_MUST_CHECK tv_status_t tv_trace_close(struct tv_trace *trace);
TV_END_C
#endif
