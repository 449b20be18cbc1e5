// probe.h -- kernels with planted faults, for the tests of the emulation itself.
#ifndef TV_TESTS_EMULATION_PROBE_H
#define TV_TESTS_EMULATION_PROBE_H
#include <cuda_runtime.h>

// Each enqueues one kernel of one block of 64 threads; x, y: device memory of 64 floats.
cudaError_t probe_reverse(cudaStream_t stream, const float *x,
                          float *y); // y backwards, through shared memory
cudaError_t probe_reverse_without_barrier(cudaStream_t stream, const float *x, float *y);
cudaError_t probe_warp_sums(cudaStream_t stream, const float *x,
                            float *y);               // of each 32, in every lane
cudaError_t probe_half_barrier(cudaStream_t stream); // only the first warp's threads reach it
cudaError_t probe_two_barriers(cudaStream_t stream); // the warps reach different ones
cudaError_t probe_missing_lane(cudaStream_t stream); // a shuffle that one lane does not call
cudaError_t probe_absent_source(cudaStream_t stream, const float *x,
                                float *y); // from a lane outside the mask
cudaError_t probe_unwritten_shared(cudaStream_t stream, float *y);
cudaError_t probe_copy(cudaStream_t stream, const float *x, float *y, int count);
cudaError_t probe_dynamic(cudaStream_t stream, float *y,
                          size_t shared_bytes); // writes where it was asked for
cudaError_t probe_allow_dynamic(int bytes);
// Elements that bf16 holds.
inline float probe_a(int row, int col)
{
    return static_cast<float>((row * 16 + col) % 7 - 3);
}
inline float probe_b(int row, int col)
{
    return static_cast<float>((row * 8 + col) % 5 - 2);
}
// Rows 0 to 7 or (is_lower) 8 to 15 of a [16, 16] times b [16, 8] on the tensor core.
cudaError_t probe_product(cudaStream_t stream, float *y, bool is_lower, bool is_transposed);
// x by asynchronous copies, except x[12] to x[15], which become 0.
cudaError_t probe_copy_async(cudaStream_t stream, const float *x, float *y, bool has_wait);
int probe_launches(); // by this thread: a thread-local variable of the library, as shared memory is
#endif
