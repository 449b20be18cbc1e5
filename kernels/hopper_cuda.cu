/* hopper_cuda.cu -- the host's part of Hopper's kernels: tensor maps for TMA. The driver's function is asked for
 * by name: libcuda is not linked. */
#include "kernels/hopper_internal.h"

namespace
{
using encode_function = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                     const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                     const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                     CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

encode_function find_encode(void)
{
    void *function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                               12000, cudaEnableDefault, &result);
    const bool is_found = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return is_found ? reinterpret_cast<encode_function>(function) : nullptr;
}
} // namespace

tv_status_t tv_tensor_map(CUtensorMap *map, const void *data, int64_t cols, int64_t rows,
                          int64_t batch, int64_t ld, int box_rows)
{
    static const encode_function encode = find_encode();
    if (encode == nullptr)
        return TV_ERR(TV_UNSUPPORTED, "the CUDA driver has no tensor maps");
    const cuuint64_t dims[3] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows),
                                static_cast<cuuint64_t>(batch)};
    const cuuint64_t strides[2] = {static_cast<cuuint64_t>(ld * 2),
                                   static_cast<cuuint64_t>(rows * ld * 2)};
    const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(box_rows), 1}, steps[3] = {1, 1, 1};
    const CUresult result =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void *>(data), dims, strides,
               box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return TV_ERR(
            TV_INTERNAL, "CUDA: a tensor map of %lld x %lld x %lld with rows %lld apart: error %d",
            static_cast<long long>(batch), static_cast<long long>(rows),
            static_cast<long long>(cols), static_cast<long long>(ld), static_cast<int>(result));
    return TV_OK;
}
