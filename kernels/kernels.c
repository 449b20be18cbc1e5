/* kernels/kernels.c -- which table for whom. */
#include "kernels/kernels_internal.h"
#include "kernels/math_internal.h"
#include "kernels/matmul/product_internal.h"
#include "kernels/matmul/tile_internal.h"
#include <stdatomic.h>
#include <unistd.h>

const struct tv_exp_limits tv_exp_limits = {.low = -88.0f, .high = 88.0f, .low2 = -127.0f};

int64_t tv_second_cache_bytes(void)
{
    static _Atomic int64_t known; /* asking traps in a virtual machine */
    int64_t bytes = atomic_load_explicit(&known, memory_order_relaxed);
    if (bytes == 0) {
#ifdef _SC_LEVEL2_CACHE_SIZE
        bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
        bytes = bytes > 0 ? bytes : 1 << 20;
        atomic_store_explicit(&known, bytes, memory_order_relaxed);
    }
    return bytes;
}

const struct tv_kernels *tv_kernels_ref(tv_dtype_t dtype)
{
    return dtype == TV_BF16 ? tv_table_ref_bf16() : tv_table_ref_f32();
}

const struct tv_kernels *tv_kernels_cpu(tv_dtype_t dtype)
{
    return tv_table_copy(0, dtype);
}

const struct tv_kernels *tv_table_portable(tv_dtype_t dtype)
{
    return dtype == TV_BF16 ? tv_table_cpu_bf16() : tv_table_cpu_f32();
}

tv_status_t tv_kernels_open(const struct tv_device *device, tv_dtype_t dtype,
                            const struct tv_kernels **kernels_out)
{
    if (dtype != TV_F32 && dtype != TV_BF16)
        return TV_ERR(TV_UNSUPPORTED, "no kernels for elements of type %d", (int)dtype);
    if (tv_device_kind(device) != TV_DEVICE_CPU) {
        *kernels_out = tv_device_kernels(device, dtype);
        return TV_OK;
    }
    if (tv_product(0) == tv_product_blas)
        TV_TRY(tv_blas_check());
    *kernels_out = tv_kernels_cpu(dtype);
    return TV_OK;
}
