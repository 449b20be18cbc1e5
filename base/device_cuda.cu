/* base/device_cuda.cu -- the device table over the CUDA runtime; built into libtrivet_cuda.so, never into libtrivet.
 *
 * One GPU per process: the first visible one. Nothing of trivet is called from here, so failures go back as a sentence
 * (opening) or as a status that device.c completes. */
#include "base/device_cuda.h"
#include "base/device_internal.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>

namespace
{
// Room for operations on one stream.
struct workspace {
    void *stream, *data;
    size_t bytes;
    workspace *next;
};

struct cuda_state {
    int device;
    workspace *workspaces;
};

const tv_device_host *host; // libtrivet, since the first device was opened

tv_status_t to_status(cudaError_t error)
{
    if (error == cudaSuccess)
        return TV_OK;
    return error == cudaErrorMemoryAllocation ? TV_NO_MEMORY : TV_INTERNAL;
}

tv_status_t cuda_close(void *state)
{
    free(state);
    return TV_OK;
}

tv_status_t cuda_alloc(void *, size_t bytes, void **data_out)
{
    void *data = nullptr;
    cudaError_t error = cudaMalloc(&data, bytes);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(data, 0, bytes, nullptr);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(nullptr); // trivet's streams do not wait for the default one
    if (error != cudaSuccess) {
        cudaFree(data);
        return to_status(error);
    }
    *data_out = data;
    return TV_OK;
}

void cuda_release(void *, void *data)
{
    cudaFree(data);
}

tv_status_t cuda_stream_create(void *, void **stream_out)
{
    cudaStream_t stream;
    const cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error == cudaSuccess)
        *stream_out = stream;
    return to_status(error);
}

void cuda_stream_destroy(void *state, void *stream)
{
    cudaStreamDestroy(static_cast<cudaStream_t>(stream));
    workspace **link = &static_cast<cuda_state *>(state)->workspaces;
    for (workspace *each = *link; each != nullptr; each = *link) {
        if (each->stream != stream) {
            link = &each->next;
            continue;
        }
        *link = each->next;
        cudaFree(each->data);
        free(each);
    }
}

workspace *workspace_of(cuda_state *state, void *stream)
{
    workspace *each = state->workspaces;
    while (each != nullptr && each->stream != stream)
        each = each->next;
    if (each != nullptr)
        return each;
    each = static_cast<workspace *>(calloc(1, sizeof(*each)));
    if (each == nullptr)
        return nullptr;
    each->stream = stream;
    each->next = state->workspaces;
    state->workspaces = each;
    return each;
}

tv_status_t cuda_stream_synchronize(void *, void *stream)
{
    return to_status(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

tv_status_t cuda_stream_copy(void *, void *stream, void *dst, const void *src, size_t bytes)
{
    return to_status(
        cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, static_cast<cudaStream_t>(stream)));
}

tv_status_t cuda_stream_zero(void *, void *stream, void *dst, size_t bytes)
{
    return to_status(cudaMemsetAsync(dst, 0, bytes, static_cast<cudaStream_t>(stream)));
}

tv_status_t cuda_event_create(void *, void **event_out)
{
    cudaEvent_t event;
    const cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (error == cudaSuccess)
        *event_out = event;
    return to_status(error);
}

void cuda_event_destroy(void *, void *event)
{
    cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

tv_status_t cuda_event_record(void *, void *event, void *stream)
{
    return to_status(
        cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)));
}

tv_status_t cuda_stream_wait_event(void *, void *stream, void *event)
{
    return to_status(
        cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(event), 0));
}

tv_status_t cuda_event_is_done(void *, void *event, int *done_out)
{
    const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (error != cudaSuccess && error != cudaErrorNotReady)
        return to_status(error);
    *done_out = error == cudaSuccess;
    return TV_OK;
}

const tv_device_ops ops = {
    cuda_close,         cuda_alloc,          cuda_release,
    cuda_stream_create, cuda_stream_destroy, cuda_stream_synchronize,
    cuda_stream_copy,   cuda_stream_zero,    cuda_event_create,
    cuda_event_destroy, cuda_event_record,   cuda_stream_wait_event,
    cuda_event_is_done,
};
} // namespace

void *tv_cuda_stream(const tv_stream *stream)
{
    return host->stream_handle(stream);
}

tv_status_t tv_cuda_workspace(tv_stream *stream, size_t bytes, void **data_out)
{
    workspace *room = workspace_of(static_cast<cuda_state *>(host->stream_state(stream)),
                                   host->stream_handle(stream));
    if (room == nullptr)
        return TV_ERR(TV_NO_MEMORY, "a workspace: out of host memory");
    if (room->bytes < bytes) {
        cudaFree(room->data); // waits for what uses it
        room->data = nullptr;
        room->bytes = 0;
        if (cudaMalloc(&room->data, bytes) != cudaSuccess)
            return TV_ERR(TV_NO_MEMORY, "no room for a workspace of %zu bytes on the GPU", bytes);
        room->bytes = bytes;
    }
    *data_out = room->data;
    return TV_OK;
}

/* libtrivet's function of this name, for TV_ERR in this library. */
extern "C" void tv_error_set(const char *file, int line, const char *format, ...)
{
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    host->error_set(file, line, "%s", sentence);
}

extern "C" tv_status_t tv_device_cuda_driver(const tv_device_host *host_in,
                                             tv_device_driver *driver_out, char *message_out,
                                             size_t message_bytes)
{
    host = host_in;
    int num_devices = 0;
    cudaDeviceProp properties;
    cudaError_t error = cudaGetDeviceCount(&num_devices);
    if (error == cudaSuccess && num_devices == 0)
        error = cudaErrorNoDevice;
    if (error == cudaSuccess)
        error = cudaSetDevice(0);
    if (error == cudaSuccess)
        error = cudaGetDeviceProperties(&properties, 0);
    if (error != cudaSuccess) {
        snprintf(message_out, message_bytes, "%s", cudaGetErrorString(error));
        return TV_UNSUPPORTED;
    }
    cuda_state *state = static_cast<cuda_state *>(calloc(1, sizeof(cuda_state)));
    if (state == nullptr) {
        snprintf(message_out, message_bytes, "out of host memory");
        return TV_NO_MEMORY;
    }
    driver_out->abi = TV_DEVICE_ABI;
    driver_out->ops = &ops;
    driver_out->state = state;
    driver_out->kernels[0] = tv_cuda_kernels(TV_F32);
    driver_out->kernels[1] = tv_cuda_kernels(TV_BF16);
    snprintf(driver_out->name, sizeof(driver_out->name), "%.*s", TV_DEVICE_MAX_NAME - 1,
             properties.name);
    return TV_OK;
}
