/* kernels/matmul/plans_internal.h -- products by cuBLASLt: what a product is made of, looked for once and kept. */
#ifndef TV_KERNELS_MATMUL_PLANS_INTERNAL_H
#define TV_KERNELS_MATMUL_PLANS_INTERNAL_H
#include "kernels/cuda_internal.h"
#include "kernels/kernels_internal.h"
#include <cstdint>
#include <cublasLt.h>
#include <cuda_bf16.h>

/* The most that an algorithm may want; NVIDIA's advice for Hopper. */
enum { TV_LT_WORKSPACE_BYTES = TV_GPU_WORKSPACE_BYTES, TV_LT_BIAS_ALIGNMENT = 16 };

/* From so many FLOPs on a product's algorithms are measured; fewer in the emulation, which is slow. */
#ifndef TV_LT_MEASURED_FLOPS
#define TV_LT_MEASURED_FLOPS 1e9
#endif

template <typename Element> constexpr cudaDataType_t tv_lt_type();
template <> constexpr cudaDataType_t tv_lt_type<float>()
{
    return CUDA_R_32F;
}
template <> constexpr cudaDataType_t tv_lt_type<__nv_bfloat16>()
{
    return CUDA_R_16BF;
}

/* The epilogue takes a bias of c's type alone. */
template <typename Stored, typename Result> bool tv_lt_adds_bias(const tv_matmul_args *a)
{
    return tv_lt_type<Stored>() == tv_lt_type<Result>() &&
           reinterpret_cast<uintptr_t>(a->bias) % TV_LT_BIAS_ALIGNMENT == 0;
}

/* a and b of type `stored`, c of type `result`; m, n and k are not 0. */
tv_status_t tv_lt_multiply(tv_stream *stream, cudaDataType_t stored, cudaDataType_t result,
                           const tv_matmul_args *a);
#endif
