/* kernels/work.h -- what a call of a kernel has to do at least: the FLOPs of its matrix products, and the bytes of its
 * tensors, each read and written once. Time can be held against both: the roofline (Williams, Waterman, Patterson
 * 2009). */
#ifndef TV_KERNELS_WORK_H
#define TV_KERNELS_WORK_H
#include "kernels/kernels.h"

TV_BEGIN_C
typedef enum {
#define TV_KERNEL_NUMBER(op, args) TV_KERNEL_##op,
    TV_KERNEL_LIST(TV_KERNEL_NUMBER)
#undef TV_KERNEL_NUMBER
        TV_NUM_KERNELS
} tv_kernel_t;
const char *tv_kernel_name(tv_kernel_t kernel); /* "matmul" */

/* What kernels are for. */
typedef enum {
    TV_GROUP_MATMUL,
    TV_GROUP_ATTENTION, /* and the rotary embedding */
    TV_GROUP_NORM,      /* and activation functions, sums of two tensors, biases, dropout */
    TV_GROUP_EMBEDDING,
    TV_GROUP_LOSS,
    TV_GROUP_OPTIMIZER, /* and the gradient norm */
    TV_NUM_GROUPS
} tv_kernel_group_t;
const char *tv_kernel_group_name(tv_kernel_group_t group); /* "norm and activation" */
tv_kernel_group_t tv_kernel_group(tv_kernel_t kernel);

struct tv_kernel_work {
    double flops; /* of matrix products; 0 for all kernels but matmul and attention */
    double bytes;
};
/* args: the struct of the kernel, of a table of dtype; its pointers are not followed. A NULL bias is no bytes.
 * Attention: 2 products forward and 5 backward of the S (S + 1) / 2 pairs that a causal mask leaves of each head. */
struct tv_kernel_work tv_kernel_work_of(tv_kernel_t kernel, const void *args, tv_dtype_t dtype);
TV_END_C
#endif
