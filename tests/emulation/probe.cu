// probe.cu -- small kernels, most of them wrong.
#include "base/dtype.h"
#include "emulation/probe.h"
#include "kernels/mma_internal.h"

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

// c[16, 8] = a[16, 16] b[16, 8] by the first warp: a through ldmatrix, b through its transposing form, or transposed in
// memory through the plain one. y: rows 0 to 7, or 8 to 15.
__global__ void product(float *y, bool is_lower, bool is_transposed)
{
    alignas(16) __shared__ uint16_t a[16][16];
    alignas(16) __shared__ uint16_t b[16][16];
    const int thread = (int)threadIdx.x, lane = thread % 32;
    for (int i = thread; i < 256; i += 64) {
        a[i / 16][i % 16] = tv_bf16_from_f32(probe_a(i / 16, i % 16));
        b[i / 16][i % 16] = tv_bf16_from_f32(is_transposed ? probe_b(i % 16, i / 16 % 8)
                                                           : probe_b(i / 16, i % 16 % 8));
    }
    __syncthreads();
    if (thread >= 32)
        return;
    uint32_t of_a[4], of_b[4];
    float c[4] = {};
    tv_ldmatrix(of_a, tv_shared_place(&a[lane % 16][lane / 16 * 8]));
    if (is_transposed)
        tv_ldmatrix(of_b, tv_shared_place(&b[lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8]));
    else
        tv_ldmatrix_transposed(of_b, tv_shared_place(&b[lane % 16][lane / 16 * 8]));
    tv_mma_16x8x16(c, of_a, of_b[0], of_b[1]);
    for (int i = 0; i < 2; i++)
        y[lane / 4 * 8 + lane % 4 * 2 + i] = c[is_lower ? 2 + i : i];
}

// x through shared memory, 16 bytes by each of 16 threads.
__global__ void copy_async(const float *x, float *y, bool has_wait)
{
    alignas(16) __shared__ float room[64];
    if (threadIdx.x < 16)
        tv_copy_async_16(room + 4 * threadIdx.x, x + 4 * threadIdx.x, threadIdx.x != 3);
    tv_copy_async_commit();
    if (has_wait)
        tv_copy_async_wait<0>();
    __syncthreads();
    y[threadIdx.x] = room[threadIdx.x];
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
cudaError_t probe_product(cudaStream_t stream, float *y, bool is_lower, bool is_transposed)
{
    return start(stream, 0, product, y, is_lower, is_transposed);
}
cudaError_t probe_copy_async(cudaStream_t stream, const float *x, float *y, bool has_wait)
{
    return start(stream, 0, copy_async, x, y, has_wait);
}
int probe_launches()
{
    return launches;
}
