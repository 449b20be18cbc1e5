// probe.cu -- small kernels, most of them wrong.
#include "emulation/probe.h"

namespace
{
__global__ void reverse(const float *x, float *y, bool has_barrier)
{
    __shared__ float room[64];
    room[threadIdx.x] = x[threadIdx.x];
    if (has_barrier)
        __syncthreads();
    y[threadIdx.x] = room[63 - threadIdx.x];
}

__global__ void warp_sums(const float *x, float *y)
{
    float sum = x[threadIdx.x];
    for (int bits = 16; bits > 0; bits /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, bits);
    y[threadIdx.x] = sum;
}

__global__ void half_barrier()
{
    if (threadIdx.x < 32)
        __syncthreads();
}

__global__ void two_barriers()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

__global__ void missing_lane()
{
    if (threadIdx.x != 5)
        __shfl_sync(0xffffffffu, 1.0f, 0);
}

__global__ void absent_source(const float *x, float *y)
{
    if (threadIdx.x % 32 < 16)
        y[threadIdx.x] = __shfl_sync(0x0000ffffu, x[threadIdx.x], 20);
}

__global__ void unwritten_shared(float *y)
{
    __shared__ float room[64];
    if (threadIdx.x != 7)
        room[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = room[threadIdx.x];
}

__global__ void copy(const float *x, float *y, int count)
{
    if ((int)threadIdx.x < count)
        y[threadIdx.x] = x[threadIdx.x];
}

__global__ void dynamic(float *y, size_t bytes)
{
    TV_SHARED_DYNAMIC(float, room);
    if (threadIdx.x == 0)
        room[bytes / sizeof(float) - 1] = 3;
    __syncthreads();
    y[threadIdx.x] = room[bytes / sizeof(float) - 1];
}

thread_local int launches;

template <typename... Params, typename... Args>
cudaError_t start(cudaStream_t stream, size_t shared_bytes, void (*kernel)(Params...), Args... args)
{
    launches++;
    cudaLaunchConfig_t config = {};
    config.gridDim = 1;
    config.blockDim = 64;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, args...);
}
} // namespace

cudaError_t probe_reverse(cudaStream_t stream, const float *x, float *y)
{
    return start(stream, 0, reverse, x, y, true);
}
cudaError_t probe_reverse_without_barrier(cudaStream_t stream, const float *x, float *y)
{
    return start(stream, 0, reverse, x, y, false);
}
cudaError_t probe_warp_sums(cudaStream_t stream, const float *x, float *y)
{
    return start(stream, 0, warp_sums, x, y);
}
cudaError_t probe_half_barrier(cudaStream_t stream)
{
    return start(stream, 0, half_barrier);
}
cudaError_t probe_two_barriers(cudaStream_t stream)
{
    return start(stream, 0, two_barriers);
}
cudaError_t probe_missing_lane(cudaStream_t stream)
{
    return start(stream, 0, missing_lane);
}
cudaError_t probe_absent_source(cudaStream_t stream, const float *x, float *y)
{
    return start(stream, 0, absent_source, x, y);
}
cudaError_t probe_unwritten_shared(cudaStream_t stream, float *y)
{
    return start(stream, 0, unwritten_shared, y);
}
cudaError_t probe_copy(cudaStream_t stream, const float *x, float *y, int count)
{
    return start(stream, 0, copy, x, y, count);
}
cudaError_t probe_dynamic(cudaStream_t stream, float *y, size_t shared_bytes)
{
    return start(stream, shared_bytes, dynamic, y, shared_bytes);
}
cudaError_t probe_allow_dynamic(int bytes)
{
    return cudaFuncSetAttribute(dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}
int probe_launches()
{
    return launches;
}
