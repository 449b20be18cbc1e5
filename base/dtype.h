/* base/dtype.h -- element types of buffers and messages. */
#ifndef TV_BASE_DTYPE_H
#define TV_BASE_DTYPE_H
#include <stddef.h>

typedef enum { TV_F32, TV_F64, TV_BF16, TV_I32, TV_I64, TV_U8 } tv_dtype_t;

static inline size_t tv_dtype_bytes(tv_dtype_t dtype)
{
    switch (dtype) {
    case TV_F32:
    case TV_I32:
        return 4;
    case TV_F64:
    case TV_I64:
        return 8;
    case TV_BF16:
        return 2;
    case TV_U8:
        return 1;
    }
    return 0;
}
#endif
