/* base/device_cuda_loader.c -- finds the CUDA driver in libtrivet_cuda.so when a GPU is asked for.
 *
 * libtrivet never links CUDA: loading cuBLASLt alone costs every process 200 MB and up to a second.
 */
#include "base/device_internal.h"
#include <dlfcn.h>

#define CUDA_LIBRARY "libtrivet_cuda.so"

tv_status_t tv_device_cuda_load(const struct tv_gpu_choice *choice,
                                struct tv_device_driver *driver_out)
{
    /* The handle stays open for the life of the process: CUDA cannot be unloaded safely. */
    void *library = dlopen(CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return TV_ERR(TV_UNSUPPORTED, "no CUDA device: %s", dlerror());
    tv_device_cuda_driver_fn open_driver =
        (tv_device_cuda_driver_fn)dlsym(library, "tv_device_cuda_driver");
    if (open_driver == NULL)
        return TV_ERR(TV_UNSUPPORTED, "%s has no tv_device_cuda_driver", CUDA_LIBRARY);
    char message[256] = "";
    struct tv_device_driver driver = {0};
    const tv_status_t status = open_driver(choice, &driver, message, sizeof(message));
    if (status != TV_OK)
        return TV_ERR(status, "no CUDA device: %s", message);
    if (driver.abi != TV_DEVICE_ABI)
        return TV_ERR(TV_UNSUPPORTED, "%s has device interface %d, this build needs %d",
                      CUDA_LIBRARY, driver.abi, TV_DEVICE_ABI);
    tv_nccl_cuda_table_fn nccl_table = (tv_nccl_cuda_table_fn)dlsym(library, "tv_nccl_cuda_table");
    driver.nccl = nccl_table != NULL ? nccl_table() : NULL;
    *driver_out = driver;
    return TV_OK;
}
