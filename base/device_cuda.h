/* base/device_cuda.h -- what the parts of libtrivet_cuda.so share. TV_ERR works there as everywhere. */
#ifndef TV_BASE_DEVICE_CUDA_H
#define TV_BASE_DEVICE_CUDA_H
#include "base/device.h"

TV_BEGIN_C
/* The cudaStream_t of a stream. */
void *tv_cuda_stream(const struct tv_stream *stream);
/* Device memory, 256-byte aligned, that the operations enqueued next on this stream may use: until the next call for
 * the same stream, whose operations run after them. Holds anything at first. Grows to the largest `bytes` so far, and
 * waits for the device then. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_cuda_workspace(struct tv_stream *stream, size_t bytes,
                                            void **data_out);
/* struct tv_kernels for TV_F32 or TV_BF16: kernels/kernels_cuda.cu. */
const void *tv_cuda_kernels(tv_dtype_t dtype);
TV_END_C
#endif
