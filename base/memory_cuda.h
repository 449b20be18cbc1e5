/* base/memory_cuda.h -- device memory that is used again, and pinned memory through which pageable memory is
 * copied; both belong to one device of libtrivet_cuda.so. */
#ifndef TV_BASE_MEMORY_CUDA_H
#define TV_BASE_MEMORY_CUDA_H
#include <cstddef>
#include <cuda_runtime.h>
#include <map>

/* Blocks of device memory. What is given back is kept and handed out again, to a request that fills at least four
 * fifths of it; when the device has no more, what is kept goes back to it first. */
class tv_cuda_pool
{
  public:
    tv_cuda_pool() = default;
    tv_cuda_pool(const tv_cuda_pool &) = delete;
    tv_cuda_pool &operator=(const tv_cuda_pool &) = delete;
    ~tv_cuda_pool();
    cudaError_t take(size_t bytes, void **data_out); /* not cleared */
    /* Nothing works on the block any more. */
    cudaError_t give_back(void *data);

  private:
    cudaError_t empty();
    std::map<void *, size_t> used_;
    std::multimap<size_t, void *> idle_;
};

/* Copies by a stream between device and pageable memory, in pieces through two halves of pinned memory: the driver
 * would do the same with less of it, one after the other. */
class tv_cuda_staging
{
  public:
    tv_cuda_staging() = default;
    tv_cuda_staging(const tv_cuda_staging &) = delete;
    tv_cuda_staging &operator=(const tv_cuda_staging &) = delete;
    ~tv_cuda_staging();
    /* Any two places. Pageable memory has been read, or written, when this returns. */
    cudaError_t copy(cudaStream_t stream, void *dst, const void *src, size_t bytes);
    /* Would `copy` wait for what is on the stream before? */
    bool waits(const void *dst, const void *src) const;

  private:
    enum { NUM_HALVES = 2 };
    cudaError_t open();
    cudaError_t upload(cudaStream_t stream, char *dst, const char *src, size_t bytes);
    cudaError_t download(cudaStream_t stream, char *dst, const char *src, size_t bytes);
    char *pinned_[NUM_HALVES] = {};
    cudaEvent_t passed_[NUM_HALVES] = {}; /* what is in the half has been copied */
};
#endif
