/* base/device_cuda.cu -- the device table over the CUDA runtime; built into libtrivet_cuda.so, never into libtrivet.
 *
 * One GPU per rank, by its PCI address or its number. Ranks may be threads, and a rank's own threads save for it, so
 * every operation first makes the rank's GPU its thread's. Streams do not wait for the default stream, so memory is
 * cleared on a stream of the device's own, and waited for. */
#include "base/device_cuda.h"
#include "base/device_internal.h"
#include "base/memory_cuda.h"
#include <cstdarg>
#include <cstdio>
#include <cuda_runtime.h>
#include <map>
#include <new>
#include <nvtx3/nvToolsExt.h>
#include <set>

namespace
{
/* Of each stream that needs them. */
struct stream_room {
    void *workspace = nullptr;
    tv_cuda_companion companion = {nullptr, nullptr};
};

struct cuda_state {
    int device = 0;
    int uses_tf32 = 0;
    tv_cuda_facts facts = {0, 0, 0};
    std::map<void *, stream_room> rooms; /* by the driver's stream */
    std::set<void *> streams;            /* that released memory waits for */
    cudaStream_t clearing = nullptr;
    tv_cuda_pool pool;
    tv_cuda_staging staging;
};

const tv_device_host *host; /* libtrivet, since the first device was opened */

/* The state, and its GPU made this thread's. */
cuda_state *enter(void *state)
{
    thread_local int current = -1;
    cuda_state *here = static_cast<cuda_state *>(state);
    if (current != here->device && cudaSetDevice(here->device) == cudaSuccess)
        current = here->device;
    return here;
}

thread_local cudaError_t last_error = cudaSuccess;

tv_status_t to_status(cudaError_t error)
{
    if (error == cudaSuccess)
        return TV_OK;
    last_error = error;
    return error == cudaErrorMemoryAllocation ? TV_NO_MEMORY : TV_INTERNAL;
}

tv_status_t cuda_close(void *state)
{
    cuda_state *here = enter(state);
    const cudaError_t error = cudaDeviceSynchronize();
    cudaStreamDestroy(here->clearing);
    delete here;
    return to_status(error);
}

tv_status_t cuda_alloc(void *state, size_t bytes, void **data_out)
{
    cuda_state *here = enter(state);
    void *data = nullptr;
    cudaError_t error = here->pool.take(bytes, &data);
    if (error != cudaSuccess)
        return to_status(error);
    error = cudaMemsetAsync(data, 0, bytes, here->clearing);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(here->clearing);
    if (error != cudaSuccess) {
        (void)here->pool.give_back(data);
        return to_status(error);
    }
    *data_out = data;
    return TV_OK;
}

void cuda_release(void *state, void *data)
{
    cuda_state *here = enter(state);
    for (void *stream : here->streams)
        cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
    (void)here->pool.give_back(data);
}

tv_status_t cuda_stream_create(void *state, void **stream_out)
{
    cuda_state *here = enter(state);
    cudaStream_t stream;
    const cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (error == cudaSuccess) {
        *stream_out = stream;
        here->streams.insert(stream);
    }
    return to_status(error);
}

void cuda_stream_set_aside(void *state, void *stream)
{
    enter(state)->streams.erase(stream);
}

void cuda_stream_destroy(void *state, void *stream)
{
    cuda_state *here = enter(state);
    cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
    const auto room = here->rooms.find(stream);
    if (room != here->rooms.end()) {
        if (room->second.companion.data != nullptr)
            room->second.companion.end(room->second.companion.data);
        if (room->second.workspace != nullptr)
            (void)here->pool.give_back(room->second.workspace);
        here->rooms.erase(room);
    }
    here->streams.erase(stream);
    cudaStreamDestroy(static_cast<cudaStream_t>(stream));
}

tv_status_t cuda_stream_synchronize(void *state, void *stream)
{
    (void)enter(state);
    return to_status(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

tv_status_t cuda_stream_copy(void *state, void *stream, void *dst, const void *src, size_t bytes)
{
    return to_status(
        enter(state)->staging.copy(static_cast<cudaStream_t>(stream), dst, src, bytes));
}

tv_status_t cuda_stream_zero(void *state, void *stream, void *dst, size_t bytes)
{
    (void)enter(state);
    return to_status(cudaMemsetAsync(dst, 0, bytes, static_cast<cudaStream_t>(stream)));
}

tv_status_t cuda_event_create(void *state, void **event_out)
{
    (void)enter(state);
    cudaEvent_t event;
    const cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (error == cudaSuccess)
        *event_out = event;
    return to_status(error);
}

void cuda_event_destroy(void *state, void *event)
{
    (void)enter(state);
    cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

tv_status_t cuda_event_record(void *state, void *event, void *stream)
{
    (void)enter(state);
    return to_status(
        cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)));
}

tv_status_t cuda_stream_wait_event(void *state, void *stream, void *event)
{
    (void)enter(state);
    return to_status(
        cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(event), 0));
}

tv_status_t cuda_event_is_done(void *state, void *event, int *done_out)
{
    (void)enter(state);
    const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (error != cudaSuccess && error != cudaErrorNotReady)
        return to_status(error);
    *done_out = error == cudaSuccess;
    return TV_OK;
}

tv_status_t cuda_event_create_timed(void *state, void **event_out)
{
    (void)enter(state);
    cudaEvent_t event;
    const cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDefault);
    if (error == cudaSuccess)
        *event_out = event;
    return to_status(error);
}

tv_status_t cuda_event_seconds_since(void *state, void *event, void *earlier, double *seconds_out)
{
    (void)enter(state);
    float milliseconds = 0;
    const cudaError_t error = cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier),
                                                   static_cast<cudaEvent_t>(event));
    *seconds_out = 1e-3 * static_cast<double>(milliseconds);
    return to_status(error);
}

void cuda_range_push(const char *name)
{
    nvtxRangePushA(name);
}

void cuda_range_pop()
{
    nvtxRangePop();
}

const char *cuda_reason(void *)
{
    return cudaGetErrorString(last_error);
}

int cuda_copy_waits(void *state, const void *dst, const void *src)
{
    return enter(state)->staging.waits(dst, src);
}

tv_status_t cuda_stream_reserve(void *state, void *stream, size_t bytes)
{
    cuda_state *here = enter(state);
    stream_room *room = &here->rooms[stream];
    if (room->workspace != nullptr) {
        cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
        (void)here->pool.give_back(room->workspace);
    }
    room->workspace = nullptr;
    return to_status(here->pool.take(bytes, &room->workspace));
}

const tv_device_ops ops = {
    cuda_close,
    cuda_alloc,
    cuda_release,
    cuda_stream_create,
    cuda_stream_destroy,
    cuda_stream_synchronize,
    cuda_stream_copy,
    cuda_stream_zero,
    cuda_event_create,
    cuda_event_destroy,
    cuda_event_record,
    cuda_stream_wait_event,
    cuda_event_is_done,
    cuda_reason,
    cuda_copy_waits,
    cuda_stream_set_aside,
    cuda_stream_reserve,
    cuda_event_create_timed,
    cuda_event_seconds_since,
    cuda_range_push,
    cuda_range_pop,
};

cudaError_t count_devices(int *num_out)
{
    const cudaError_t error = cudaGetDeviceCount(num_out);
    return error == cudaSuccess && *num_out == 0 ? cudaErrorNoDevice : error;
}

/* The GPU that was asked for, among those that are visible. */
cudaError_t find_device(const tv_gpu_choice *choice, int *device_out)
{
    int num = 0;
    const cudaError_t error = count_devices(&num);
    if (error != cudaSuccess)
        return error;
    if (choice->pci[0] != '\0')
        return cudaDeviceGetByPCIBusId(device_out, choice->pci);
    *device_out = choice->index % num;
    return cudaSuccess;
}

cudaError_t open_device(cuda_state *state, tv_device_driver *driver)
{
    cudaDeviceProp properties;
    cudaError_t error = cudaSetDevice(state->device);
    if (error == cudaSuccess)
        error = cudaGetDeviceProperties(&properties, state->device);
    if (error == cudaSuccess)
        error = cudaDeviceGetPCIBusId(driver->pci, sizeof(driver->pci), state->device);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&state->clearing, cudaStreamNonBlocking);
    if (error == cudaSuccess) {
        state->facts = {10 * properties.major + properties.minor, properties.multiProcessorCount,
                        (int64_t)properties.sharedMemPerBlockOptin};
        snprintf(driver->name, sizeof(driver->name), "%.*s", TV_DEVICE_MAX_NAME - 1,
                 properties.name);
    }
    return error;
}

cuda_state *state_of(const tv_stream *stream)
{
    return enter(host->stream_state(stream));
}
} // namespace

void *tv_cuda_stream(const tv_stream *stream)
{
    return host->stream_handle(stream);
}

int tv_cuda_uses_tf32(const tv_stream *stream)
{
    return state_of(stream)->uses_tf32;
}

const tv_cuda_facts *tv_cuda_facts_of(const tv_stream *stream)
{
    return &static_cast<const cuda_state *>(host->stream_state(stream))->facts;
}

tv_cuda_companion *tv_cuda_companion_of(tv_stream *stream)
{
    return &state_of(stream)->rooms[host->stream_handle(stream)].companion;
}

tv_status_t tv_cuda_workspace(tv_stream *stream, size_t bytes, void **data_out)
{
    const cuda_state *state = state_of(stream);
    TV_TRY(host->stream_reserve(stream, bytes));
    const auto room = state->rooms.find(host->stream_handle(stream));
    *data_out = room == state->rooms.end() ? nullptr : room->second.workspace;
    return TV_OK;
}

tv_status_t tv_cuda_synchronize(tv_stream *stream)
{
    return host->stream_synchronize(stream);
}

tv_status_t tv_cuda_copy(tv_stream *stream, void *dst, const void *src, size_t bytes)
{
    return host->stream_copy(stream, dst, src, bytes);
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
                                             const tv_gpu_choice *choice,
                                             tv_device_driver *driver_out, char *message_out,
                                             size_t message_bytes)
{
    host = host_in;
    cuda_state *state = new (std::nothrow) cuda_state;
    if (state == nullptr) {
        snprintf(message_out, message_bytes, "out of host memory");
        return TV_NO_MEMORY;
    }
    state->uses_tf32 = choice->uses_tf32;
    cudaError_t error = find_device(choice, &state->device);
    if (error == cudaSuccess)
        error = open_device(state, driver_out);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(message_out, message_bytes, "%s%s%s", choice->pci, choice->pci[0] ? ": " : "",
                 cudaGetErrorString(error));
        delete state;
        return TV_UNSUPPORTED;
    }
    driver_out->abi = TV_DEVICE_ABI;
    driver_out->ops = &ops;
    driver_out->state = state;
    driver_out->kernels[0] = tv_cuda_kernels(TV_F32);
    driver_out->kernels[1] = tv_cuda_kernels(TV_BF16);
    return TV_OK;
}

extern "C" tv_status_t tv_device_cuda_count(int *count_out, char *message_out, size_t message_bytes)
{
    int num = 0;
    const cudaError_t error = count_devices(&num);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(message_out, message_bytes, "%s", cudaGetErrorString(error));
        return TV_UNSUPPORTED;
    }
    *count_out = num;
    return TV_OK;
}
