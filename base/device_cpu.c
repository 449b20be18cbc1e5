/* base/device_cpu.c -- host memory; a stream runs each operation at once, so an event is always
 * complete. */
#include "base/device_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

/* What `state` is where large buffers ask for huge pages; else NULL. */
static char asks_for_huge_pages;

static tv_status_t cpu_close(void *state)
{
    (void)state;
    return TV_OK;
}

static tv_status_t cpu_alloc(void *state, size_t bytes, void **data_out)
{
    const size_t alignment =
        state != &asks_for_huge_pages || bytes < HUGE_PAGE ? ALIGNMENT : HUGE_PAGE;
    if (bytes > SIZE_MAX - alignment)
        return TV_NO_MEMORY;
    void *data = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (data == NULL)
        return TV_NO_MEMORY;
    if (alignment ==
        HUGE_PAGE) /* whole ones only: what is behind `bytes` is never touched. A hint. */
        (void)madvise(data, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    memset(data, 0, bytes);
    *data_out = data;
    return TV_OK;
}

static void cpu_release(void *state, void *data)
{
    (void)state;
    free(data);
}

static tv_status_t cpu_create(void *state, void **handle_out)
{
    (void)state;
    *handle_out = NULL;
    return TV_OK;
}

static void cpu_destroy(void *state, void *handle)
{
    (void)state;
    (void)handle;
}

static tv_status_t cpu_synchronize(void *state, void *stream)
{
    (void)state;
    (void)stream;
    return TV_OK;
}

static tv_status_t cpu_copy(void *state, void *stream, void *dst, const void *src, size_t bytes)
{
    (void)state;
    (void)stream;
    if (bytes > 0)
        memcpy(dst, src, bytes);
    return TV_OK;
}

static tv_status_t cpu_zero(void *state, void *stream, void *dst, size_t bytes)
{
    (void)state;
    (void)stream;
    if (bytes > 0)
        memset(dst, 0, bytes);
    return TV_OK;
}

static tv_status_t cpu_event_record(void *state, void *event, void *stream)
{
    (void)state;
    (void)event;
    (void)stream;
    return TV_OK;
}

static tv_status_t cpu_wait_event(void *state, void *stream, void *event)
{
    (void)state;
    (void)stream;
    (void)event;
    return TV_OK;
}

static tv_status_t cpu_event_is_done(void *state, void *event, int *done_out)
{
    (void)state;
    (void)event;
    *done_out = 1;
    return TV_OK;
}

static const char *cpu_reason(void *state)
{
    (void)state;
    return "no reason"; /* nothing but alloc fails */
}

void tv_device_cpu_prefer_huge_pages(struct tv_device_driver *driver)
{
    driver->state = &asks_for_huge_pages;
}

tv_status_t tv_device_cpu_driver(struct tv_device_driver *driver_out)
{
    static const struct tv_device_ops ops = {
        .close = cpu_close,
        .alloc = cpu_alloc,
        .release = cpu_release,
        .stream_create = cpu_create,
        .stream_destroy = cpu_destroy,
        .stream_synchronize = cpu_synchronize,
        .stream_copy = cpu_copy,
        .stream_zero = cpu_zero,
        .event_create = cpu_create,
        .event_destroy = cpu_destroy,
        .event_record = cpu_event_record,
        .stream_wait_event = cpu_wait_event,
        .event_is_done = cpu_event_is_done,
        .reason = cpu_reason,
    };
    *driver_out = (struct tv_device_driver){.abi = TV_DEVICE_ABI, .ops = &ops};
    snprintf(driver_out->name, sizeof(driver_out->name), "CPU");
    return TV_OK;
}
