/* base/device_cuda_loader.c -- finds the CUDA driver in libtrivet_cuda.so when a GPU is asked for.
 *
 * libtrivet never links CUDA: loading cuBLASLt alone costs every process 200 MB and up to a second.
 */
#include "base/device_internal.h"
#include <dlfcn.h>
#include <unistd.h>

#define CUDA_LIBRARY "libtrivet_cuda.so"

/* Its handle, and a function of it. It stays open for the life of the process: CUDA cannot be unloaded safely. */
static tv_status_t find(const char *name, void **library_out, void **function_out)
{
    void *library = dlopen(CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return TV_ERR(TV_UNSUPPORTED, "no CUDA device: %s", dlerror());
    void *function = dlsym(library, name);
    if (function == NULL)
        return TV_ERR(TV_UNSUPPORTED, "no CUDA device: %s has no %s", CUDA_LIBRARY, name);
    *library_out = library;
    *function_out = function;
    return TV_OK;
}

tv_status_t tv_device_cuda_load(const struct tv_gpu_choice *choice,
                                struct tv_device_driver *driver_out)
{
    void *library, *function;
    char message[256] = "";
    struct tv_device_driver driver = {0};
    TV_TRY(find("tv_device_cuda_driver", &library, &function));
    const tv_status_t status = ((tv_device_cuda_driver_fn)function)(
        &tv_device_lent, choice, &driver, message, sizeof(message));
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

tv_status_t tv_gpu_count(int *count_out)
{
    void *library, *function;
    char message[256] = "";
    TV_TRY(find("tv_device_cuda_count", &library, &function));
    const tv_status_t status =
        ((tv_device_cuda_count_fn)function)(count_out, message, sizeof(message));
    return status == TV_OK ? TV_OK : TV_ERR(status, "no CUDA device: %s", message);
}

int tv_gpu_has_driver(void)
{
    return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0; /* WSL's */
}
