/* kernels_cuda.cu -- the tables of the CUDA device. */
#include "kernels/cuda_internal.h"

namespace
{
#define ENTRY_F32(op, args)  TV_CUDA_F32(op),
#define ENTRY_BF16(op, args) TV_CUDA_BF16(op),
const tv_kernels tables[] = {{"cuda", TV_F32, TV_KERNEL_LIST(ENTRY_F32)},
                             {"cuda", TV_BF16, TV_KERNEL_LIST(ENTRY_BF16)}};
} // namespace

extern "C" const void *tv_cuda_kernels(tv_dtype_t dtype)
{
    return &tables[dtype == TV_BF16];
}
