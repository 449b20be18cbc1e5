/* base/device.c -- opens a device, counts its memory by kind, passes streams and events on to its
 * driver. */
#include "base/device.h"
#include "base/clock.h"
#include "base/device_internal.h"
#include "base/log.h"
#include "base/span.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct tv_device {
    tv_device_kind_t kind;
    int num_threads;
    struct tv_device_driver driver;
    size_t bytes[TV_NUM_MEM_KINDS], kind_peaks[TV_NUM_MEM_KINDS];
    size_t total_bytes, peak_bytes;
    int64_t num_buffers;
    int num_streams; /* made so far */
    struct tv_spans *spans;
    tv_status_t (*look)(void *context, double waited_seconds);
    void *look_context;
};

struct tv_stream {
    struct tv_device *device;
    void *handle;
    void *reached;          /* an event for watched waits, made by the first */
    size_t workspace_bytes; /* counted as buffers */
    int number;
    char name[TV_STREAM_NAME];
};

struct tv_event {
    struct tv_device *device;
    void *handle;
};

const char *tv_mem_kind_name(tv_mem_kind_t kind)
{
    static const char *const names[TV_NUM_MEM_KINDS] = {"parameters", "gradients", "optimizer",
                                                        "activations", "buffers"};
    return (unsigned)kind < TV_NUM_MEM_KINDS ? names[kind] : "unknown";
}

/* choice NULL: the CPU */
static tv_status_t open_driver(const struct tv_gpu_choice *choice, int num_threads,
                               struct tv_device **device_out)
{
    struct tv_device *device = calloc(1, sizeof(*device));
    if (device == NULL)
        return TV_ERR(TV_NO_MEMORY, "device: %zu bytes", sizeof(*device));
    device->kind = choice != NULL ? TV_DEVICE_CUDA : TV_DEVICE_CPU;
    device->num_threads = num_threads;
    const tv_status_t status = choice != NULL ? tv_device_cuda_load(choice, &device->driver)
                                              : tv_device_cpu_driver(&device->driver);
    if (status != TV_OK) {
        free(device);
        return status;
    }
    *device_out = device;
    return TV_OK;
}

tv_status_t tv_device_open(tv_device_kind_t kind, int num_threads, struct tv_device **device_out)
{
    const struct tv_gpu_choice first = {.index = 0};
    if (num_threads < 1)
        return TV_ERR(TV_INVALID, "a device needs at least 1 thread, not %d", num_threads);
    return open_driver(kind == TV_DEVICE_CUDA ? &first : NULL, num_threads, device_out);
}

tv_status_t tv_device_open_gpu(const struct tv_gpu_choice *choice, struct tv_device **device_out)
{
    return open_driver(choice, choice->num_threads > 0 ? choice->num_threads : 1, device_out);
}

void tv_device_prefer_huge_pages(struct tv_device *device)
{
    if (device->kind == TV_DEVICE_CPU)
        tv_device_cpu_prefer_huge_pages(&device->driver);
}

const char *tv_device_pci(const struct tv_device *device)
{
    return device->driver.pci;
}

void tv_device_close(struct tv_device *device)
{
    if (device == NULL)
        return;
    tv_spans_free(device->spans);
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++) {
        if (device->bytes[k] != 0)
            tv_log(TV_LOG_WARN, "device %s closed with %zu bytes of %s still in use",
                   device->driver.name, device->bytes[k], tv_mem_kind_name((tv_mem_kind_t)k));
    }
    if (device->driver.ops->close(device->driver.state) != TV_OK)
        tv_log(TV_LOG_WARN, "device %s did not close cleanly", device->driver.name);
    free(device);
}

tv_device_kind_t tv_device_kind(const struct tv_device *device)
{
    return device->kind;
}

int tv_device_num_threads(const struct tv_device *device)
{
    return device->num_threads;
}

const char *tv_device_name(const struct tv_device *device)
{
    return device->driver.name;
}

const void *tv_device_kernels(const struct tv_device *device, tv_dtype_t dtype)
{
    return dtype == TV_F32 || dtype == TV_BF16 ? device->driver.kernels[dtype == TV_BF16] : NULL;
}

static void *stream_state(const struct tv_stream *stream)
{
    return stream->device->driver.state;
}

const struct tv_device_host tv_device_lent = {.stream_handle = tv_stream_handle,
                                              .stream_state = stream_state,
                                              .stream_reserve = tv_stream_reserve,
                                              .stream_synchronize = tv_stream_synchronize,
                                              .stream_copy = tv_stream_copy,
                                              .error_set = tv_error_set};

size_t tv_device_bytes(const struct tv_device *device, tv_mem_kind_t kind)
{
    return device->bytes[kind];
}

size_t tv_device_peak_bytes(const struct tv_device *device)
{
    return device->peak_bytes;
}

int64_t tv_device_num_buffers(const struct tv_device *device)
{
    return device->num_buffers;
}

size_t tv_device_kind_peak_bytes(const struct tv_device *device, tv_mem_kind_t kind)
{
    return device->kind_peaks[kind];
}

void tv_device_bytes_text(const struct tv_device *device, char *text, size_t text_bytes)
{
    size_t used = 0;
    for (int k = 0; k < TV_NUM_MEM_KINDS && used < text_bytes; k++) {
        const int wrote = snprintf(text + used, text_bytes - used, "%s%s %zu", k == 0 ? "" : ", ",
                                   tv_mem_kind_name((tv_mem_kind_t)k), device->bytes[k]);
        used += wrote < 0 ? 0 : (size_t)wrote;
    }
}

/* The sentence of an operation that failed. */
static tv_status_t said(const struct tv_device *device, tv_status_t status, const char *what)
{
    if (status == TV_OK)
        return TV_OK;
    return TV_ERR(status, "%s on %s: %s", what, device->driver.name,
                  device->driver.ops->reason(device->driver.state));
}

static tv_status_t out_of_memory(const struct tv_device *device, size_t bytes, tv_mem_kind_t kind)
{
    char breakdown[256] = "";
    tv_device_bytes_text(device, breakdown, sizeof(breakdown));
    return TV_ERR(TV_NO_MEMORY, "no room for %zu bytes of %s on %s; in use, in bytes: %s", bytes,
                  tv_mem_kind_name(kind), device->driver.name, breakdown);
}

static void count_more(struct tv_device *device, size_t bytes, tv_mem_kind_t kind)
{
    device->bytes[kind] += bytes;
    if (device->bytes[kind] > device->kind_peaks[kind])
        device->kind_peaks[kind] = device->bytes[kind];
    device->total_bytes += bytes;
    if (device->total_bytes > device->peak_bytes)
        device->peak_bytes = device->total_bytes;
}

static void count_less(struct tv_device *device, size_t bytes, tv_mem_kind_t kind)
{
    device->bytes[kind] -= bytes;
    device->total_bytes -= bytes;
}

tv_status_t tv_buffer_create(struct tv_device *device, size_t bytes, tv_mem_kind_t kind,
                             struct tv_buffer *buffer_out)
{
    struct tv_buffer buffer = {.bytes = bytes, .kind = kind, .device = device};
    if (bytes > 0) {
        const tv_status_t status =
            device->driver.ops->alloc(device->driver.state, bytes, &buffer.data);
        if (status == TV_NO_MEMORY)
            return out_of_memory(device, bytes, kind);
        TV_TRY(said(device, status, "new memory"));
        device->num_buffers++;
    }
    count_more(device, bytes, kind);
    *buffer_out = buffer;
    return TV_OK;
}

void tv_buffer_destroy(struct tv_buffer *buffer)
{
    if (buffer == NULL || buffer->device == NULL)
        return;
    struct tv_device *device = buffer->device;
    if (buffer->data != NULL)
        device->driver.ops->release(device->driver.state, buffer->data);
    count_less(device, buffer->bytes, buffer->kind);
    *buffer = (struct tv_buffer){0};
}

tv_status_t tv_stream_create(struct tv_device *device, struct tv_stream **stream_out)
{
    struct tv_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return TV_ERR(TV_NO_MEMORY, "stream: %zu bytes", sizeof(*stream));
    stream->device = device;
    const tv_status_t status =
        said(device, device->driver.ops->stream_create(device->driver.state, &stream->handle),
             "a new stream");
    if (status != TV_OK) {
        free(stream);
        return status;
    }
    stream->number = ++device->num_streams;
    *stream_out = stream;
    return TV_OK;
}

void tv_stream_destroy(struct tv_stream *stream)
{
    if (stream == NULL)
        return;
    const struct tv_device_driver *driver = &stream->device->driver;
    if (stream->reached != NULL)
        driver->ops->event_destroy(driver->state, stream->reached);
    driver->ops->stream_destroy(driver->state, stream->handle);
    count_less(stream->device, stream->workspace_bytes, TV_MEM_BUFFERS);
    free(stream);
}

struct tv_device *tv_stream_device(const struct tv_stream *stream)
{
    return stream->device;
}

void tv_stream_set_name(struct tv_stream *stream, const char *name)
{
    snprintf(stream->name, sizeof(stream->name), "%s", name);
}

const char *tv_stream_name(const struct tv_stream *stream)
{
    return stream->name;
}

int tv_stream_number(const struct tv_stream *stream)
{
    return stream->number;
}

/* A driver frees the old workspace before it makes the larger one. */
tv_status_t tv_stream_reserve(struct tv_stream *stream, size_t bytes)
{
    struct tv_device *device = stream->device;
    const struct tv_device_driver *driver = &device->driver;
    if (driver->ops->stream_reserve == NULL || bytes <= stream->workspace_bytes)
        return TV_OK;
    if (stream->workspace_bytes > 0)
        TV_TRY(tv_stream_synchronize(stream));
    count_less(device, stream->workspace_bytes, TV_MEM_BUFFERS);
    stream->workspace_bytes = 0;
    const tv_status_t status = driver->ops->stream_reserve(driver->state, stream->handle, bytes);
    if (status == TV_NO_MEMORY)
        return out_of_memory(device, bytes, TV_MEM_BUFFERS);
    TV_TRY(said(device, status, "a workspace"));
    stream->workspace_bytes = bytes;
    count_more(device, bytes, TV_MEM_BUFFERS);
    return TV_OK;
}

void tv_stream_set_aside(struct tv_stream *stream)
{
    const struct tv_device_driver *driver = &stream->device->driver;
    if (driver->ops->stream_set_aside != NULL)
        driver->ops->stream_set_aside(driver->state, stream->handle);
}

void *tv_stream_handle(const struct tv_stream *stream)
{
    return stream->handle;
}

void tv_device_watch(struct tv_device *device,
                     tv_status_t (*look)(void *context, double waited_seconds), void *context)
{
    device->look = look;
    device->look_context = context;
}

const void *tv_device_nccl(const struct tv_device *device)
{
    return device->driver.nccl;
}

/* Until everything on the stream is done, or whoever watches has had enough. */
static tv_status_t wait_watched(struct tv_stream *stream)
{
    static const struct timespec pause = {0, 20 * 1000};
    const struct tv_device *device = stream->device;
    const struct tv_device_ops *ops = device->driver.ops;
    void *state = device->driver.state;
    const double started = tv_clock_seconds();
    if (stream->reached == NULL)
        TV_TRY(ops->event_create(state, &stream->reached));
    TV_TRY(ops->event_record(state, stream->reached, stream->handle));
    for (int rounds = 0, done = 0;; rounds++) {
        enum { ROUNDS_BEFORE_SLEEP = 200 };
        TV_TRY(ops->event_is_done(state, stream->reached, &done));
        TV_TRY(device->look(device->look_context, done ? 0 : tv_clock_seconds() - started));
        if (done)
            return TV_OK;
        if (rounds < ROUNDS_BEFORE_SLEEP)
            sched_yield();
        else
            nanosleep(&pause, NULL);
    }
}

tv_status_t tv_stream_synchronize(struct tv_stream *stream)
{
    const struct tv_device *device = stream->device;
    if (device->look != NULL)
        TV_TRY(wait_watched(stream));
    return said(device,
                device->driver.ops->stream_synchronize(device->driver.state, stream->handle),
                "waiting for a stream");
}

tv_status_t tv_stream_copy(struct tv_stream *stream, void *dst, const void *src, size_t bytes)
{
    const struct tv_device *device = stream->device;
    const struct tv_device_ops *ops = device->driver.ops;
    if (device->look != NULL && ops->copy_waits != NULL &&
        ops->copy_waits(device->driver.state, dst, src))
        TV_TRY(wait_watched(stream));
    return said(device, ops->stream_copy(device->driver.state, stream->handle, dst, src, bytes),
                "a copy");
}

tv_status_t tv_stream_zero(struct tv_stream *stream, void *dst, size_t bytes)
{
    const struct tv_device *device = stream->device;
    return said(device,
                device->driver.ops->stream_zero(device->driver.state, stream->handle, dst, bytes),
                "clearing memory");
}

static tv_status_t create_event(struct tv_device *device,
                                tv_status_t (*create)(void *state, void **event_out),
                                struct tv_event **event_out)
{
    struct tv_event *event = calloc(1, sizeof(*event));
    if (event == NULL)
        return TV_ERR(TV_NO_MEMORY, "event: %zu bytes", sizeof(*event));
    event->device = device;
    const tv_status_t status =
        said(device, create(device->driver.state, &event->handle), "a new event");
    if (status != TV_OK) {
        free(event);
        return status;
    }
    *event_out = event;
    return TV_OK;
}

tv_status_t tv_event_create(struct tv_device *device, struct tv_event **event_out)
{
    return create_event(device, device->driver.ops->event_create, event_out);
}

tv_status_t tv_event_create_timed(struct tv_device *device, struct tv_event **event_out)
{
    if (device->driver.ops->event_create_timed == NULL)
        return TV_ERR(TV_UNSUPPORTED, "%s times no events", device->driver.name);
    return create_event(device, device->driver.ops->event_create_timed, event_out);
}

tv_status_t tv_event_seconds_since(struct tv_event *event, struct tv_event *earlier,
                                   double *seconds_out)
{
    const struct tv_device *device = event->device;
    if (device->driver.ops->event_seconds_since == NULL)
        return TV_ERR(TV_UNSUPPORTED, "%s times no events", device->driver.name);
    return said(device,
                device->driver.ops->event_seconds_since(device->driver.state, event->handle,
                                                        earlier->handle, seconds_out),
                "the time of an event");
}

struct tv_spans **tv_device_spans(struct tv_device *device)
{
    return &device->spans;
}

void tv_device_range_push(const struct tv_device *device, const char *name)
{
    if (device->driver.ops->range_push != NULL)
        device->driver.ops->range_push(name);
}

void tv_device_range_pop(const struct tv_device *device)
{
    if (device->driver.ops->range_pop != NULL)
        device->driver.ops->range_pop();
}

void tv_event_destroy(struct tv_event *event)
{
    if (event == NULL)
        return;
    event->device->driver.ops->event_destroy(event->device->driver.state, event->handle);
    free(event);
}

tv_status_t tv_event_record(struct tv_event *event, struct tv_stream *stream)
{
    const struct tv_device *device = event->device;
    return said(
        device,
        device->driver.ops->event_record(device->driver.state, event->handle, stream->handle),
        "an event");
}

tv_status_t tv_stream_wait_event(struct tv_stream *stream, struct tv_event *event)
{
    const struct tv_device *device = event->device;
    return said(
        device,
        device->driver.ops->stream_wait_event(device->driver.state, stream->handle, event->handle),
        "waiting for an event");
}

tv_status_t tv_event_is_done(struct tv_event *event, int *done_out)
{
    const struct tv_device *device = event->device;
    return said(device,
                device->driver.ops->event_is_done(device->driver.state, event->handle, done_out),
                "asking for an event");
}
