/* base/streams_cuda.h -- what libtrivet_cuda.so knows of a stream beside CUDA. */
#ifndef TV_BASE_STREAMS_CUDA_H
#define TV_BASE_STREAMS_CUDA_H
#include <cuda_runtime.h>

struct tv_cuda_stream {
    int uses_tf32; /* products of fp32 matrices may round their factors to tf32 */
    /* What a library keeps for the stream, and how that ends; NULL: nothing yet. Set by the rank whose stream it is. */
    void *companion;
    void (*end_companion)(void *companion);
};

void tv_cuda_stream_add(cudaStream_t stream, int uses_tf32);
/* Everything on it is done. */
void tv_cuda_stream_remove(cudaStream_t stream);
/* NULL: not a stream of base/device.h. */
tv_cuda_stream *tv_cuda_stream_find(cudaStream_t stream);
#endif
