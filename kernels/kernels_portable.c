/* kernels_portable.c -- one copy of the CPU functions, as the compiler makes them by default. */
#include "kernels/kernels_internal.h"
#include "kernels/matmul/product_internal.h"
#include "kernels/matmul/tile_internal.h"

const struct tv_kernels *tv_table_copy(int index, tv_dtype_t dtype)
{
    return index == 0 ? tv_table_portable(dtype) : NULL;
}

tv_product_fn tv_product(int index)
{
    return index == 0 ? tv_product_blas : NULL;
}

const char *tv_product_name(void)
{
    return tv_blas_name();
}

const struct tv_tiles *tv_tiles_of(int index)
{
    return index == 0 ? &tv_tiles_blas : NULL;
}
