/* base/device.c -- opens a device, counts its memory by kind, passes streams and events on to its
 * driver. */
#include "base/device.h"
#include "base/device_internal.h"
#include "base/log.h"
#include <stdio.h>
#include <stdlib.h>

struct tv_device {
    tv_device_kind_t kind;
    int num_threads;
    struct tv_device_driver driver;
    size_t bytes[TV_NUM_MEM_KINDS], kind_peaks[TV_NUM_MEM_KINDS];
    size_t total_bytes, peak_bytes;
    int64_t num_buffers;
};

struct tv_stream {
    struct tv_device *device;
    void *handle;
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

tv_status_t tv_device_open(tv_device_kind_t kind, int num_threads, struct tv_device **device_out)
{
    if (num_threads < 1)
        return TV_ERR(TV_INVALID, "a device needs at least 1 thread, not %d", num_threads);
    struct tv_device *device = calloc(1, sizeof(*device));
    if (device == NULL)
        return TV_ERR(TV_NO_MEMORY, "device: %zu bytes", sizeof(*device));
    device->kind = kind;
    device->num_threads = num_threads;
    const tv_status_t status = kind == TV_DEVICE_CUDA ? tv_device_cuda_load(&device->driver)
                                                      : tv_device_cpu_driver(&device->driver);
    if (status != TV_OK) {
        free(device);
        return status;
    }
    *device_out = device;
    return TV_OK;
}

void tv_device_close(struct tv_device *device)
{
    if (device == NULL)
        return;
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

static tv_status_t out_of_memory(const struct tv_device *device, size_t bytes, tv_mem_kind_t kind)
{
    char breakdown[256] = "";
    size_t used = 0;
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++) {
        const int wrote =
            snprintf(breakdown + used, sizeof(breakdown) - used, "%s%s %zu", k == 0 ? "" : ", ",
                     tv_mem_kind_name((tv_mem_kind_t)k), device->bytes[k]);
        used += wrote < 0 ? 0 : (size_t)wrote;
        if (used >= sizeof(breakdown))
            break;
    }
    return TV_ERR(TV_NO_MEMORY, "no room for %zu bytes of %s on %s; in use, in bytes: %s", bytes,
                  tv_mem_kind_name(kind), device->driver.name, breakdown);
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
        TV_TRY(status);
        device->num_buffers++;
    }
    device->bytes[kind] += bytes;
    if (device->bytes[kind] > device->kind_peaks[kind])
        device->kind_peaks[kind] = device->bytes[kind];
    device->total_bytes += bytes;
    if (device->total_bytes > device->peak_bytes)
        device->peak_bytes = device->total_bytes;
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
    device->bytes[buffer->kind] -= buffer->bytes;
    device->total_bytes -= buffer->bytes;
    *buffer = (struct tv_buffer){0};
}

tv_status_t tv_stream_create(struct tv_device *device, struct tv_stream **stream_out)
{
    struct tv_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return TV_ERR(TV_NO_MEMORY, "stream: %zu bytes", sizeof(*stream));
    stream->device = device;
    const tv_status_t status =
        device->driver.ops->stream_create(device->driver.state, &stream->handle);
    if (status != TV_OK) {
        free(stream);
        return status;
    }
    *stream_out = stream;
    return TV_OK;
}

void tv_stream_destroy(struct tv_stream *stream)
{
    if (stream == NULL)
        return;
    stream->device->driver.ops->stream_destroy(stream->device->driver.state, stream->handle);
    free(stream);
}

struct tv_device *tv_stream_device(const struct tv_stream *stream)
{
    return stream->device;
}

tv_status_t tv_stream_synchronize(struct tv_stream *stream)
{
    return stream->device->driver.ops->stream_synchronize(stream->device->driver.state,
                                                          stream->handle);
}

tv_status_t tv_stream_copy(struct tv_stream *stream, void *dst, const void *src, size_t bytes)
{
    return stream->device->driver.ops->stream_copy(stream->device->driver.state, stream->handle,
                                                   dst, src, bytes);
}

tv_status_t tv_stream_zero(struct tv_stream *stream, void *dst, size_t bytes)
{
    return stream->device->driver.ops->stream_zero(stream->device->driver.state, stream->handle,
                                                   dst, bytes);
}

tv_status_t tv_event_create(struct tv_device *device, struct tv_event **event_out)
{
    struct tv_event *event = calloc(1, sizeof(*event));
    if (event == NULL)
        return TV_ERR(TV_NO_MEMORY, "event: %zu bytes", sizeof(*event));
    event->device = device;
    const tv_status_t status =
        device->driver.ops->event_create(device->driver.state, &event->handle);
    if (status != TV_OK) {
        free(event);
        return status;
    }
    *event_out = event;
    return TV_OK;
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
    return event->device->driver.ops->event_record(event->device->driver.state, event->handle,
                                                   stream->handle);
}

tv_status_t tv_stream_wait_event(struct tv_stream *stream, struct tv_event *event)
{
    return event->device->driver.ops->stream_wait_event(event->device->driver.state, stream->handle,
                                                        event->handle);
}

tv_status_t tv_event_is_done(struct tv_event *event, int *done_out)
{
    return event->device->driver.ops->event_is_done(event->device->driver.state, event->handle,
                                                    done_out);
}
