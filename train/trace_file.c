/* train/trace_file.c -- one line per event, between the head and the end of a JSON object. */
#include "train/trace_file.h"
#include "train/files.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tv_trace {
    FILE *file;
    int num_events;
    int has_failed;
    char path[]; /* for messages */
};

tv_status_t tv_trace_open(const char *path, struct tv_trace **trace_out)
{
    TV_TRY(tv_folder_make_parent(path));
    const size_t length = strlen(path);
    struct tv_trace *trace = calloc(1, sizeof(*trace) + length + 1);
    if (trace == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", path, sizeof(*trace));
    memcpy(trace->path, path, length + 1);
    trace->file = fopen(path, "we");
    if (trace->file == NULL) {
        free(trace);
        return TV_ERR(TV_INVALID, "%s cannot be written: %s", path, strerror(errno));
    }
    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", trace->file);
    *trace_out = trace;
    return TV_OK;
}

/* Takes the event over; NULL: it could not be made. */
static void write_event(struct tv_trace *trace, json_t *event)
{
    enum { DIGITS = 15 }; /* nanoseconds within a year of microseconds */
    fputs(trace->num_events++ > 0 ? ",\n" : "\n", trace->file);
    if (event == NULL ||
        json_dumpf(event, trace->file, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS)) != 0)
        trace->has_failed = 1;
    json_decref(event);
}

static void write_name(struct tv_trace *trace, const char *what, int pid, int tid, const char *name)
{
    write_event(trace, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "name", what, "ph", "M", "pid",
                                 pid, "tid", tid, "args", "name", name));
}

void tv_trace_name_process(struct tv_trace *trace, int pid, const char *name)
{
    write_name(trace, "process_name", pid, 0, name);
}

void tv_trace_name_thread(struct tv_trace *trace, int pid, int tid, const char *name)
{
    write_name(trace, "thread_name", pid, tid, name);
}

void tv_trace_add(struct tv_trace *trace, const struct tv_trace_event *event)
{
    const double micro = 1e6;
    json_t *args = event->args != NULL ? event->args : json_object();
    write_event(trace, json_pack("{s:s, s:s, s:s, s:i, s:i, s:o, s:o, s:o}", "name", event->name,
                                 "cat", event->category, "ph", "X", "pid", event->pid, "tid",
                                 event->tid, "ts", json_real(event->start * micro), "dur",
                                 json_real(event->duration * micro), "args", args));
}

tv_status_t tv_trace_close(struct tv_trace *trace)
{
    if (trace == NULL)
        return TV_OK;
    tv_status_t status = TV_OK;
    fputs("\n]}\n", trace->file);
    const int has_failed = trace->has_failed || ferror(trace->file);
    if (fclose(trace->file) != 0 || has_failed)
        status = TV_ERR(TV_IO, "%s: writing failed", trace->path);
    free(trace);
    return status;
}
