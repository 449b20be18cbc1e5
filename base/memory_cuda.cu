/* base/memory_cuda.cu -- the pool and the staging of memory_cuda.h. */
#include "base/memory_cuda.h"
#include <cstdint>
#include <cstring>

namespace
{
constexpr size_t small = 512, large = size_t{2} << 20, half_bytes = size_t{4} << 20;

/* Sizes that blocks come in. */
size_t rounded(size_t bytes)
{
    const size_t unit = bytes < large ? small : large;
    return bytes > SIZE_MAX - unit ? bytes : (bytes + unit - 1) / unit * unit;
}

cudaError_t is_pageable(const void *data, bool *pageable_out)
{
    cudaPointerAttributes attributes;
    const cudaError_t error = cudaPointerGetAttributes(&attributes, data);
    *pageable_out = error == cudaSuccess && attributes.type == cudaMemoryTypeUnregistered;
    return error;
}
} // namespace

cudaError_t tv_cuda_pool::empty()
{
    for (const auto &[bytes, data] : idle_) {
        const cudaError_t error = cudaFree(data);
        if (error != cudaSuccess)
            return error;
    }
    idle_.clear();
    return cudaSuccess;
}

tv_cuda_pool::~tv_cuda_pool()
{
    (void)empty();
    for (const auto &[data, bytes] : used_)
        cudaFree(data);
}

cudaError_t tv_cuda_pool::take(size_t bytes, void **data_out)
{
    const size_t wanted = rounded(bytes);
    const auto kept = idle_.lower_bound(wanted);
    if (kept != idle_.end() && kept->first - wanted <= kept->first / 5) {
        *data_out = kept->second;
        used_[kept->second] = kept->first;
        idle_.erase(kept);
        return cudaSuccess;
    }
    void *data = nullptr;
    cudaError_t error = cudaMalloc(&data, wanted);
    if (error == cudaErrorMemoryAllocation && !idle_.empty()) {
        (void)cudaGetLastError(); /* it would come back from a launch */
        error = empty();
        if (error == cudaSuccess)
            error = cudaMalloc(&data, wanted);
    }
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        return error;
    }
    used_[data] = wanted;
    *data_out = data;
    return cudaSuccess;
}

cudaError_t tv_cuda_pool::give_back(void *data)
{
    const auto block = used_.find(data);
    if (block == used_.end())
        return cudaErrorInvalidValue;
    idle_.emplace(block->second, data);
    used_.erase(block);
    return cudaSuccess;
}

tv_cuda_staging::~tv_cuda_staging()
{
    for (int i = 0; i < NUM_HALVES; i++) {
        if (passed_[i] != nullptr)
            cudaEventDestroy(passed_[i]);
        if (pinned_[i] != nullptr)
            cudaFreeHost(pinned_[i]);
    }
}

cudaError_t tv_cuda_staging::open()
{
    for (int i = 0; i < NUM_HALVES; i++) {
        cudaError_t error = cudaSuccess;
        if (pinned_[i] == nullptr)
            error = cudaHostAlloc(reinterpret_cast<void **>(&pinned_[i]), half_bytes,
                                  cudaHostAllocDefault);
        if (error == cudaSuccess && passed_[i] == nullptr)
            error = cudaEventCreateWithFlags(&passed_[i], cudaEventDisableTiming);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

cudaError_t tv_cuda_staging::upload(cudaStream_t stream, char *dst, const char *src, size_t bytes)
{
    cudaError_t error = open();
    for (int half = 0; bytes > 0 && error == cudaSuccess; half = (half + 1) % NUM_HALVES) {
        const size_t n = bytes < half_bytes ? bytes : half_bytes;
        error =
            cudaEventSynchronize(passed_[half]); /* of its last use; at once where there was none */
        if (error == cudaSuccess) {
            std::memcpy(pinned_[half], src, n);
            error = cudaMemcpyAsync(dst, pinned_[half], n, cudaMemcpyHostToDevice, stream);
        }
        if (error == cudaSuccess)
            error = cudaEventRecord(passed_[half], stream);
        dst += n;
        src += n;
        bytes -= n;
    }
    return error;
}

/* Piece i arrives while piece i - 1 is copied on. */
cudaError_t tv_cuda_staging::download(cudaStream_t stream, char *dst, const char *src, size_t bytes)
{
    cudaError_t error = open();
    const size_t num = (bytes + half_bytes - 1) / half_bytes;
    auto piece = [&](size_t i) { return i + 1 < num ? half_bytes : bytes - i * half_bytes; };
    for (size_t i = 0; i <= num && error == cudaSuccess; i++) {
        if (i < num) {
            const size_t half = i % NUM_HALVES;
            error = cudaEventSynchronize(passed_[half]); /* an upload may still be under way */
            if (error == cudaSuccess)
                error = cudaMemcpyAsync(pinned_[half], src + i * half_bytes, piece(i),
                                        cudaMemcpyDeviceToHost, stream);
            if (error == cudaSuccess)
                error = cudaEventRecord(passed_[half], stream);
        }
        if (i > 0 && error == cudaSuccess) {
            const size_t half = (i - 1) % NUM_HALVES;
            error = cudaEventSynchronize(passed_[half]);
            if (error == cudaSuccess)
                std::memcpy(dst + (i - 1) * half_bytes, pinned_[half], piece(i - 1));
        }
    }
    return error;
}

bool tv_cuda_staging::waits(const void *dst, const void *src) const
{
    bool to_pageable = false, from_pageable = false;
    if (is_pageable(dst, &to_pageable) != cudaSuccess ||
        is_pageable(src, &from_pageable) != cudaSuccess)
        return false;
    for (cudaEvent_t passed : passed_)
        to_pageable |= from_pageable && passed != nullptr && cudaEventQuery(passed) != cudaSuccess;
    return to_pageable;
}

cudaError_t tv_cuda_staging::copy(cudaStream_t stream, void *dst, const void *src, size_t bytes)
{
    bool from_pageable = false, to_pageable = false;
    if (bytes == 0)
        return cudaSuccess;
    cudaError_t error = is_pageable(src, &from_pageable);
    if (error == cudaSuccess)
        error = is_pageable(dst, &to_pageable);
    if (error != cudaSuccess)
        return error;
    if (from_pageable && to_pageable) { /* in its turn on the stream */
        error = cudaStreamSynchronize(stream);
        if (error == cudaSuccess)
            std::memcpy(dst, src, bytes);
        return error;
    }
    if (from_pageable)
        return upload(stream, static_cast<char *>(dst), static_cast<const char *>(src), bytes);
    if (to_pageable)
        return download(stream, static_cast<char *>(dst), static_cast<const char *>(src), bytes);
    return cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, stream);
}
