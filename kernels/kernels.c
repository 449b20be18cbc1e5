/* kernels/kernels.c -- the tables. */
#include "kernels/kernels_internal.h"

#define REF_ENTRY(op, args) .op = tv_##op##_ref,

const struct tv_kernels *tv_kernels_ref(void)
{
    static const struct tv_kernels table = {.name = "ref", TV_KERNEL_LIST(REF_ENTRY)};
    return &table;
}

const struct tv_kernels *tv_kernels_cpu(void)
{
    return tv_table_fastest();
}

tv_status_t tv_kernels_open(const struct tv_device *device, const struct tv_kernels **kernels_out)
{
    if (tv_device_kind(device) != TV_DEVICE_CPU)
        return TV_ERR(TV_UNSUPPORTED, "this version has no kernels for %s", tv_device_name(device));
    *kernels_out = tv_kernels_cpu();
    return TV_OK;
}
