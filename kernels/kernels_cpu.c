/* kernels_cpu.c -- the table of one copy of the CPU functions. */
#include "kernels/kernels_internal.h"

#define ENTRY(op, args) .op = TV_CPU(op),

const struct tv_kernels *TV_CPU(table)(void)
{
    static const struct tv_kernels table = {
        .name = "cpu", .dtype = TV_STORAGE_DTYPE, TV_KERNEL_LIST(ENTRY)};
    return &table;
}
