/* base/device_internal.h -- the table that a device implements; device.c checks, counts and
 * dispatches.
 *
 * libtrivet_cuda.so exports `tv_device_cuda_driver`, a function that fills the table and opens the
 * GPU, and `tv_device_cuda_count`; base/device_cuda_loader.c finds them with dlopen. TV_DEVICE_ABI
 * changes with this file. */
#ifndef TV_BASE_DEVICE_INTERNAL_H
#define TV_BASE_DEVICE_INTERNAL_H
#include "base/device.h"

TV_BEGIN_C
enum { TV_DEVICE_ABI = 6, TV_DEVICE_MAX_NAME = 128 };

/* `state` is the driver's own. Streams and events are the driver's own objects behind void
 * pointers. */
struct tv_device_ops {
    tv_status_t (*close)(void *state);
    /* 64-byte aligned, zero-filled; TV_NO_MEMORY without a sentence: device.c writes it with the
     * breakdown. */
    tv_status_t (*alloc)(void *state, size_t bytes, void **data_out);
    void (*release)(void *state, void *data);
    tv_status_t (*stream_create)(void *state, void **stream_out);
    void (*stream_destroy)(void *state, void *stream);
    tv_status_t (*stream_synchronize)(void *state, void *stream);
    tv_status_t (*stream_copy)(void *state, void *stream, void *dst, const void *src, size_t bytes);
    tv_status_t (*stream_zero)(void *state, void *stream, void *dst, size_t bytes);
    tv_status_t (*event_create)(void *state, void **event_out);
    void (*event_destroy)(void *state, void *event);
    tv_status_t (*event_record)(void *state, void *event, void *stream);
    tv_status_t (*stream_wait_event)(void *state, void *stream, void *event);
    tv_status_t (*event_is_done)(void *state, void *event, int *done_out);
    /* Why this thread's last operation failed, in the driver's words. */
    const char *(*reason)(void *state);
    /* Would stream_copy wait for what is on the stream before? NULL: no, or at once. */
    int (*copy_waits)(void *state, const void *dst, const void *src);
    /* tv_stream_set_aside; NULL: nothing to do. */
    void (*stream_set_aside)(void *state, void *stream);
    /* A workspace of at least `bytes`, see tv_stream_reserve; NULL: there is none. Errors as of alloc. */
    tv_status_t (*stream_reserve)(void *state, void *stream, size_t bytes);
    /* Events that keep their time, and the seconds between two of them; NULL: there are none. */
    tv_status_t (*event_create_timed)(void *state, void **event_out);
    tv_status_t (*event_seconds_since)(void *state, void *event, void *earlier,
                                       double *seconds_out);
    /* A range of this thread for profilers, and the end of the last one; NULL: there are none. */
    void (*range_push)(const char *name);
    void (*range_pop)(void);
};

/* What a driver hands over when it opens. */
struct tv_device_driver {
    int abi; /* TV_DEVICE_ABI */
    const struct tv_device_ops *ops;
    void *state;
    const void
        *kernels[2]; /* struct tv_kernels, for TV_F32 and TV_BF16; NULL: they are libtrivet's */
    char name[TV_DEVICE_MAX_NAME]; /* "CPU", "NVIDIA H100 80GB HBM3" */
    char pci[TV_GPU_PCI];          /* "" of a CPU */
    const void *nccl;              /* struct tv_nccl_table of mesh/nccl_internal.h, or NULL */
};

/* What libtrivet lends to a driver in a library of its own, which cannot call it by name. */
struct tv_device_host {
    void *(*stream_handle)(const struct tv_stream *stream); /* the driver's own stream */
    void *(*stream_state)(const struct tv_stream *stream);  /* the state of its device */
    /* tv_stream_reserve, for a kernel that needs more than there is. */
    tv_status_t (*stream_reserve)(struct tv_stream *stream, size_t bytes);
    /* tv_stream_synchronize and tv_stream_copy, for a kernel whose host part waits. */
    tv_status_t (*stream_synchronize)(struct tv_stream *stream);
    tv_status_t (*stream_copy)(struct tv_stream *stream, void *dst, const void *src, size_t bytes);
    void (*error_set)(const char *file, int line, const char *format, ...) TV_PRINTF(3, 4);
};
extern const struct tv_device_host tv_device_lent;

/* For base/span.c: NULL where nothing is timed; owned by the device. */
struct tv_spans;
struct tv_spans **tv_device_spans(struct tv_device *device);
void tv_spans_free(struct tv_spans *spans);
void tv_device_range_push(const struct tv_device *device, const char *name);
void tv_device_range_pop(const struct tv_device *device);

TV_MUST_CHECK tv_status_t tv_device_cpu_driver(struct tv_device_driver *driver_out);
void tv_device_cpu_prefer_huge_pages(struct tv_device_driver *driver);
TV_MUST_CHECK tv_status_t tv_device_cuda_load(const struct tv_gpu_choice *choice,
                                              struct tv_device_driver *driver_out);

/* The symbol in libtrivet_cuda.so. It must not use trivet's functions but those of `host`: failures
 * to open come back as a sentence. */
typedef tv_status_t (*tv_device_cuda_driver_fn)(const struct tv_device_host *host,
                                                const struct tv_gpu_choice *choice,
                                                struct tv_device_driver *driver_out,
                                                char *message_out, size_t message_bytes);
/* `tv_device_cuda_count`: the visible GPUs, at least one. */
typedef tv_status_t (*tv_device_cuda_count_fn)(int *count_out, char *message_out,
                                               size_t message_bytes);
/* Another, there where the library is built with NCCL. */
typedef const void *(*tv_nccl_cuda_table_fn)(void);
TV_END_C
#endif
