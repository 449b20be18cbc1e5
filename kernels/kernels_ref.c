/* kernels_ref.c -- the table of the definitions, of one type of stored elements. */
#include "kernels/kernels_internal.h"

#define ENTRY(op, args) .op = TV_REF(op),

const struct tv_kernels *TV_REF(table)(void)
{
    static const struct tv_kernels table = {
        .name = "ref", .dtype = TV_STORAGE_DTYPE, TV_KERNEL_LIST(ENTRY)};
    return &table;
}
