/* base/device_cuda.h -- what the parts of libtrivet_cuda.so share. TV_ERR works there as everywhere. */
#ifndef TV_BASE_DEVICE_CUDA_H
#define TV_BASE_DEVICE_CUDA_H
#include "base/device.h"

TV_BEGIN_C
/* The cudaStream_t of a stream. */
void *tv_cuda_stream(const struct tv_stream *stream);
/* Device memory, 256-byte aligned, that the operations enqueued next on this stream may use: until the next call for
 * the same stream, whose operations run after them. Holds anything at first. Grows to the largest `bytes` so far, and
 * waits for the stream then; counted, see tv_stream_reserve. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_cuda_workspace(struct tv_stream *stream, size_t bytes,
                                            void **data_out);
/* tv_stream_synchronize and tv_stream_copy for kernels: every wait of the host for a GPU is theirs, so that whoever
 * watches the device (tv_device_watch) holds the deadline. */
TV_MUST_CHECK tv_status_t tv_cuda_synchronize(struct tv_stream *stream);
TV_MUST_CHECK tv_status_t tv_cuda_copy(struct tv_stream *stream, void *dst, const void *src,
                                       size_t bytes);
/* Products of fp32 matrices may round their factors to tf32: struct tv_gpu_choice. */
int tv_cuda_uses_tf32(const struct tv_stream *stream);
/* What the driver was asked once, when the device was opened; anybody may read it. */
struct tv_cuda_facts {
    int capability;       /* 90: compute capability 9.0 */
    int processors;       /* streaming multiprocessors */
    int64_t shared_bytes; /* shared memory that a block may ask for */
};
const struct tv_cuda_facts *tv_cuda_facts_of(const struct tv_stream *stream);
/* What a library keeps for a stream; zeros at first. When the stream goes, and everything on it is done, end(data). */
struct tv_cuda_companion {
    void *data;
    void (*end)(void *data);
};
struct tv_cuda_companion *tv_cuda_companion_of(struct tv_stream *stream);
/* struct tv_kernels for TV_F32 or TV_BF16: kernels/kernels_cuda.cu. */
const void *tv_cuda_kernels(tv_dtype_t dtype);
TV_END_C
#endif
