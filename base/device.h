/* base/device.h -- where tensors live and kernels run: memory, streams, events.
 *
 * One table of operations per device (device_cpu.c; device_cuda.cu in libtrivet_cuda.so, opened
 * with dlopen when asked for, so that a process without a GPU never loads CUDA). A rank opens one
 * device. On the CPU a stream runs each operation before the call returns and an event is always
 * complete; callers must not rely on it.
 *
 * Every buffer is counted by kind, so a rank can report the memory it asked for and its peak. A
 * device belongs to one rank's thread; its functions are not safe to call from several threads at
 * once. */
#ifndef TV_BASE_DEVICE_H
#define TV_BASE_DEVICE_H
#include "base/dtype.h"
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

TV_BEGIN_C
typedef enum { TV_DEVICE_CPU, TV_DEVICE_CUDA } tv_device_kind_t;

/* What a buffer is for; memory is reported by these. */
typedef enum {
    TV_MEM_PARAMS,
    TV_MEM_GRADS,
    TV_MEM_OPTIMIZER,
    TV_MEM_ACTIVATIONS, /* held from a forward to its backward */
    TV_MEM_BUFFERS,     /* everything else: messages, workspace */
    TV_NUM_MEM_KINDS
} tv_mem_kind_t;
const char *tv_mem_kind_name(tv_mem_kind_t kind); /* "parameters", "gradients", ... */

struct tv_device; /* opaque; defined in device_internal.h */
struct tv_stream;
struct tv_event;

/* num_threads: OpenMP threads of a CPU device's kernels, and of what the host prepares for a GPU (>= 1).
 * Errors: TV_UNSUPPORTED (no CUDA library, no GPU), TV_INVALID, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_device_open(tv_device_kind_t kind, int num_threads,
                                         struct tv_device **device_out);
/* Which GPU, and how it multiplies. */
enum { TV_GPU_PCI = 32 };
struct tv_gpu_choice {
    char pci[TV_GPU_PCI]; /* address, as "0000:3b:00.0"; "": by number */
    int index;            /* among those that are visible, counted round */
    int num_threads;      /* of the host, as above; 0: one */
    int uses_tf32;        /* products of fp32 matrices may round their factors to 10 bits */
};
TV_MUST_CHECK tv_status_t tv_device_open_gpu(const struct tv_gpu_choice *choice,
                                             struct tv_device **device_out);
/* GPUs that are visible to this process; opens libtrivet_cuda.so. Errors: TV_UNSUPPORTED (no library, no GPU, no
 * driver), with the reason. */
TV_MUST_CHECK tv_status_t tv_gpu_count(int *count_out);
/* Is there an NVIDIA driver on this machine? Opens nothing. */
int tv_gpu_has_driver(void);
/* From now on new buffers of 2 MiB and more of a CPU ask for huge pages, where other processes read them (a page of
 * theirs costs 0.6 us, whatever its size); the first touch may cost more. No-op for a GPU. */
void tv_device_prefer_huge_pages(struct tv_device *device);
/* Address of the GPU; "" of a CPU. */
const char *tv_device_pci(const struct tv_device *device);
void tv_device_close(
    struct tv_device *device); /* NULL is a no-op; warns about buffers still open */
tv_device_kind_t tv_device_kind(const struct tv_device *device);
int tv_device_num_threads(const struct tv_device *device);
const char *tv_device_name(const struct tv_device *device);
/* The device's own table of kernels (struct tv_kernels), or NULL: tv_kernels_open asks. */
const void *tv_device_kernels(const struct tv_device *device, tv_dtype_t dtype);
size_t tv_device_bytes(const struct tv_device *device, tv_mem_kind_t kind); /* open now */
size_t tv_device_peak_bytes(const struct tv_device *device);   /* largest sum over kinds so far */
int64_t tv_device_num_buffers(const struct tv_device *device); /* made so far, of any size but 0 */
size_t tv_device_kind_peak_bytes(const struct tv_device *device,
                                 tv_mem_kind_t kind); /* most of this kind so far */
/* "parameters 4096, gradients 4096, ...": bytes open now, by kind; for messages. text [text_bytes] */
void tv_device_bytes_text(const struct tv_device *device, char *text, size_t text_bytes);

/* Call `look` again and again while tv_stream_synchronize, or tv_stream_copy to memory of the host,
 * waits, with the seconds it has waited so far; its failure ends the wait. That is how messages
 * between GPUs, for which the host does not wait, keep their deadline. NULL: nobody looks. */
void tv_device_watch(struct tv_device *device,
                     tv_status_t (*look)(void *context, double waited_seconds), void *context);
/* The table of mesh/nccl_internal.h, or NULL where the device's library is built without NCCL. */
const void *tv_device_nccl(const struct tv_device *device);

/* A piece of device memory, 64-byte aligned and zero-filled when created. Plain handle: copy
 * freely, destroy once. */
struct tv_buffer {
    void *data; /* NULL when bytes is 0 or after destroy */
    size_t bytes;
    tv_mem_kind_t kind;
    struct tv_device *device;
};
/* Errors: TV_NO_MEMORY, with what is already open by kind. */
TV_MUST_CHECK tv_status_t tv_buffer_create(struct tv_device *device, size_t bytes,
                                           tv_mem_kind_t kind, struct tv_buffer *buffer_out);
void tv_buffer_destroy(struct tv_buffer *buffer); /* NULL, zeroed or destroyed: no-op */

TV_MUST_CHECK tv_status_t tv_stream_create(struct tv_device *device, struct tv_stream **stream_out);
void tv_stream_destroy(struct tv_stream *stream);
/* What its spans are shown under (base/span.h), "" at first; its number on the device, from 1. */
void tv_stream_set_name(struct tv_stream *stream, const char *name);
const char *tv_stream_name(const struct tv_stream *stream);
int tv_stream_number(const struct tv_stream *stream);
/* A stream for what may wait for peers: tv_buffer_destroy, which waits for all work that may use the
 * buffer, does not wait for this stream. Its users see to it that other streams wait for it first. */
void tv_stream_set_aside(struct tv_stream *stream);
/* Room for what kernels on this stream work in, made before the first that needs it: on a GPU, where a product may want
 * TV_GPU_WORKSPACE_BYTES and a kernel that wants more makes it grow; on the CPU there is none. Counted as buffers, as
 * growth is, until the stream goes. Errors: TV_NO_MEMORY, with what is open by kind. */
enum { TV_GPU_WORKSPACE_BYTES = 32 << 20 };
TV_MUST_CHECK tv_status_t tv_stream_reserve(struct tv_stream *stream, size_t bytes);
struct tv_device *tv_stream_device(const struct tv_stream *stream);
/* The driver's own stream, for those who enqueue there themselves: a cudaStream_t under CUDA. */
void *tv_stream_handle(const struct tv_stream *stream);
/* Block until everything enqueued on the stream is done. Errors: also those of tv_device_watch. */
TV_MUST_CHECK tv_status_t tv_stream_synchronize(struct tv_stream *stream);
/* Enqueue: bytes from src to dst, host or device in either place; regions must not overlap. */
TV_MUST_CHECK tv_status_t tv_stream_copy(struct tv_stream *stream, void *dst, const void *src,
                                         size_t bytes);
TV_MUST_CHECK tv_status_t tv_stream_zero(struct tv_stream *stream, void *dst, size_t bytes);

TV_MUST_CHECK tv_status_t tv_event_create(struct tv_device *device, struct tv_event **event_out);
/* One that keeps the time at which it is reached. */
TV_MUST_CHECK tv_status_t tv_event_create_timed(struct tv_device *device,
                                                struct tv_event **event_out);
/* Seconds on the device from `earlier` to `event`, both timed and done. Errors: TV_UNSUPPORTED (the CPU). */
TV_MUST_CHECK tv_status_t tv_event_seconds_since(struct tv_event *event, struct tv_event *earlier,
                                                 double *seconds_out);
void tv_event_destroy(struct tv_event *event);
TV_MUST_CHECK tv_status_t tv_event_record(struct tv_event *event, struct tv_stream *stream);
/* Enqueue on `stream`: wait until `event`'s last record is reached. */
TV_MUST_CHECK tv_status_t tv_stream_wait_event(struct tv_stream *stream, struct tv_event *event);
TV_MUST_CHECK tv_status_t tv_event_is_done(struct tv_event *event, int *done_out);
TV_END_C
#endif
