// device.cc -- which GPUs there are, and what errors are called.
#include "emulation/emulation.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace emulation
{
namespace
{
thread_local int device;
thread_local cudaError_t last_error = cudaSuccess;
std::atomic<int> questions{0};

unsigned long long number_of(const char *name, unsigned long long otherwise)
{
    const char *text = getenv(name);
    return text != nullptr ? strtoull(text, nullptr, 0) : otherwise;
}

Settings from_environment()
{
    Settings s;
    s.fill = (unsigned char)number_of("TRIVET_EMULATION_FILL", s.fill);
    s.order = (unsigned)number_of("TRIVET_EMULATION_ORDER", s.order);
    s.schedule = (unsigned)number_of("TRIVET_EMULATION_SCHEDULE", s.schedule);
    s.gpus = (int)number_of("TRIVET_EMULATION_GPUS", (unsigned long long)s.gpus);
    s.capability = (int)number_of("TRIVET_EMULATION_CAPABILITY", (unsigned long long)s.capability);
    s.memory = (size_t)number_of("TRIVET_EMULATION_MEMORY", s.memory);
    return s;
}

bool is_device(int number)
{
    return number >= 0 && number < settings().gpus;
}

int bus_of(int number)
{
    return 16 * (number + 1);
}
} // namespace

namespace
{
thread_local std::vector<std::string> ranges;

void note_range(const char *name)
{
    const size_t most = 1000; // nobody may ask for them
    if (ranges.size() < most)
        ranges.emplace_back(name);
}
} // namespace

std::vector<std::string> take_ranges()
{
    return std::exchange(ranges, {});
}

Settings &settings()
{
    static Settings the = from_environment();
    return the;
}

int num_questions()
{
    return questions;
}

int current_device()
{
    return device;
}

void set_last_error(cudaError_t error)
{
    last_error = error;
}
} // namespace emulation

using namespace emulation;

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = settings().gpus;
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int number)
{
    if (!is_device(number))
        return cudaErrorInvalidDevice;
    device = number;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *number)
{
    *number = device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int number)
{
    questions++;
    if (!is_device(number))
        return cudaErrorInvalidDevice;
    *properties = {};
    snprintf(properties->name, sizeof(properties->name), "emulated GPU %d", number);
    properties->totalGlobalMem = settings().memory;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->sharedMemPerBlockOptin = 232448;
    properties->warpSize = warpSize;
    properties->major = settings().capability / 10;
    properties->minor = settings().capability % 10;
    properties->multiProcessorCount = 4;
    properties->l2CacheSize = 1 << 20;
    properties->pciBusID = bus_of(number);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int number)
{
    cudaDeviceProp p;
    const cudaError_t error = cudaGetDeviceProperties(&p, number);
    if (error != cudaSuccess)
        return error;
    switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)p.sharedMemPerBlockOptin;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int bytes, int number)
{
    if (!is_device(number))
        return cudaErrorInvalidDevice;
    snprintf(id, (size_t)bytes, "0000:%02x:00.0", (unsigned)bus_of(number));
    return cudaSuccess;
}

cudaError_t cudaDeviceGetByPCIBusId(int *number, const char *id)
{
    char ours[32];
    for (*number = 0; *number < settings().gpus; ++*number) {
        cudaDeviceGetPCIBusId(ours, sizeof(ours), *number);
        if (std::strcmp(ours, id) == 0 || std::strcmp(ours + 5, id) == 0)
            return cudaSuccess;
    }
    return cudaErrorInvalidDevice;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaGetLastError()
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError()
{
    return last_error;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
        return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
        return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    case cudaErrorNotSupported:
        return "cudaErrorNotSupported";
    }
    return "an unknown error";
}

const char *cudaGetErrorString(cudaError_t error)
{
    static thread_local std::string sentence;
    sentence =
        error == cudaErrorLaunchFailure && !failure().empty() ? failure() : cudaGetErrorName(error);
    return sentence.c_str();
}

extern "C" int nvtxRangePushA(const char *name)
{
    emulation::note_range(name);
    return 0;
}

extern "C" int nvtxRangePop()
{
    emulation::note_range("");
    return 0;
}
