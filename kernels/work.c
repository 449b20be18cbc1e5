/* kernels/work.c -- one function per kernel, in the order of the list. */
#include "kernels/work.h"

enum { FLOAT = 4, ID = 4 }; /* bytes */

/* `stored` elements of `s` bytes, and floats. */
static struct tv_kernel_work elements(int64_t stored, int64_t s, int64_t floats)
{
    return (struct tv_kernel_work){.bytes = (double)(stored * s + floats * FLOAT)};
}

/* Of a result that is written, or read and written. */
static int64_t num_uses(int accumulate)
{
    return accumulate ? 2 : 1;
}

static struct tv_kernel_work work_matmul(const struct tv_matmul_args *a, int64_t s)
{
    const int64_t written = a->m * a->n * num_uses(a->accumulate);
    struct tv_kernel_work work =
        elements(a->m * a->k + a->k * a->n + written + (a->bias != NULL ? a->n : 0), s, 0);
    work.flops = 2.0 * (double)a->m * (double)a->n * (double)a->k;
    return work;
}

static struct tv_kernel_work work_matmul_to_f32(const struct tv_matmul_args *a, int64_t s)
{
    struct tv_kernel_work work = work_matmul(a, s);
    work.bytes += (double)(a->m * a->n * num_uses(a->accumulate) * (FLOAT - s));
    return work;
}

static struct tv_kernel_work work_bias_backward(const struct tv_bias_backward_args *a, int64_t s)
{
    return elements(a->rows * a->cols, s, num_uses(a->accumulate) * a->cols);
}

static struct tv_kernel_work work_add(const struct tv_add_args *a, int64_t s)
{
    return elements(3 * a->count, s, 0);
}

static struct tv_kernel_work work_layernorm_forward(const struct tv_norm_args *a, int64_t s)
{
    const int64_t matrices = a->added != NULL ? 4 : 2;
    return elements(matrices * a->rows * a->cols + 2 * a->cols, s, 2 * a->rows);
}

static struct tv_kernel_work work_layernorm_backward(const struct tv_norm_backward_args *a,
                                                     int64_t s)
{
    return elements((3 + a->add_dx) * a->rows * a->cols + a->cols, s,
                    2 * num_uses(a->accumulate) * a->cols + 2 * a->rows);
}

static struct tv_kernel_work work_rmsnorm_forward(const struct tv_norm_args *a, int64_t s)
{
    const int64_t matrices = a->added != NULL ? 4 : 2;
    return elements(matrices * a->rows * a->cols + a->cols, s, a->rows);
}

static struct tv_kernel_work work_rmsnorm_backward(const struct tv_norm_backward_args *a, int64_t s)
{
    return elements((3 + a->add_dx) * a->rows * a->cols + a->cols, s,
                    num_uses(a->accumulate) * a->cols + a->rows);
}

static struct tv_kernel_work work_rotary(const struct tv_rotary_args *a, int64_t s)
{
    return elements(2 * a->rows * a->num_heads * a->head_dim, s, 0);
}

static struct tv_kernel_work work_dropout(const struct tv_dropout_args *a, int64_t s)
{
    return elements(2 * a->rows * a->cols, s, 0);
}

/* A product of one row of head_dim with another, for each pair of a query and a key before it. */
static double pair_flops(int batch, int seq_length, int num_heads, int head_dim)
{
    const double pairs = (double)seq_length * (seq_length + 1) / 2;
    return 2.0 * batch * num_heads * pairs * head_dim;
}

static struct tv_kernel_work work_attention_forward(const struct tv_attention_args *a, int64_t s)
{
    const int64_t rows = (int64_t)a->batch * a->seq_length;
    struct tv_kernel_work work = elements(
        rows * 2 * (a->num_heads + a->num_kv_heads) * (int64_t)a->head_dim, s, rows * a->num_heads);
    work.flops = 2 * pair_flops(a->batch, a->seq_length, a->num_heads, a->head_dim);
    return work;
}

static struct tv_kernel_work work_attention_backward(const struct tv_attention_backward_args *a,
                                                     int64_t s)
{
    const int64_t rows = (int64_t)a->batch * a->seq_length;
    struct tv_kernel_work work = elements(
        rows * 4 * (a->num_heads + a->num_kv_heads) * (int64_t)a->head_dim, s, rows * a->num_heads);
    work.flops = 5 * pair_flops(a->batch, a->seq_length, a->num_heads, a->head_dim);
    return work;
}

static struct tv_kernel_work work_gelu_forward(const struct tv_gelu_args *a, int64_t s)
{
    return elements(2 * a->count, s, 0);
}

static struct tv_kernel_work work_gelu_backward(const struct tv_gelu_backward_args *a, int64_t s)
{
    return elements(3 * a->count, s, a->dbias != NULL ? num_uses(a->accumulate) * a->cols : 0);
}

static struct tv_kernel_work work_swiglu_forward(const struct tv_swiglu_args *a, int64_t s)
{
    return elements(3 * a->rows * a->cols, s, 0);
}

static struct tv_kernel_work work_swiglu_backward(const struct tv_swiglu_backward_args *a,
                                                  int64_t s)
{
    return elements(5 * a->rows * a->cols, s, 0);
}

/* Every id is taken to be among this rank's. */
static struct tv_kernel_work work_embedding_forward(const struct tv_embedding_args *a, int64_t s)
{
    struct tv_kernel_work work = elements((a->accumulate ? 3 : 2) * a->rows * a->cols, s, 0);
    work.bytes += (double)ID * (double)a->rows;
    return work;
}

static struct tv_kernel_work work_embedding_backward(const struct tv_embedding_backward_args *a,
                                                     int64_t s)
{
    struct tv_kernel_work work = elements(a->rows * a->cols, s, 2 * a->rows * a->cols);
    work.bytes += (double)ID * (double)a->rows;
    return work;
}

static struct tv_kernel_work work_cross_entropy_forward(const struct tv_cross_entropy_args *a,
                                                        int64_t s)
{
    struct tv_kernel_work work =
        elements(a->rows * a->cols, s, (a->row_rest != NULL ? 5 : 4) * a->rows);
    work.bytes += (double)ID * (double)a->rows;
    return work;
}

static struct tv_kernel_work work_cross_entropy_rebase(const struct tv_cross_entropy_args *a,
                                                       int64_t s)
{
    return elements(0, s, (a->row_rest != NULL ? 6 : 4) * a->rows);
}

/* row_loss is of doubles. */
static struct tv_kernel_work work_cross_entropy_loss(const struct tv_cross_entropy_args *a,
                                                     int64_t s)
{
    struct tv_kernel_work work = elements(0, s, (a->row_rest != NULL ? 5 : 4) * a->rows);
    work.bytes += (double)(ID + 2 * FLOAT) * (double)a->rows;
    return work;
}

static struct tv_kernel_work work_cross_entropy_backward(const struct tv_cross_entropy_args *a,
                                                         int64_t s)
{
    struct tv_kernel_work work = elements(2 * a->rows * a->cols, s, a->rows);
    work.bytes += (double)ID * (double)a->rows;
    return work;
}

/* One look at the logits; the rows' other numbers are room. */
static struct tv_kernel_work work_cross_entropy(const struct tv_cross_entropy_args *a, int64_t s)
{
    struct tv_kernel_work work = elements(2 * a->rows * a->cols, s, a->rows);
    work.bytes += (double)(ID + 2 * FLOAT) * (double)a->rows;
    return work;
}

static struct tv_kernel_work work_adamw(const struct tv_adamw_args *a, int64_t s)
{
    struct tv_kernel_work work = {0};
    for (int i = 0; i < a->num; i++) {
        const int64_t count = a->of[i].count, rounded = a->of[i].rounded != NULL ? count : 0;
        work.bytes += elements(rounded, (int64_t)tv_dtype_bytes(TV_BF16), 7 * count).bytes;
    }
    (void)s;
    return work;
}

static struct tv_kernel_work work_lion(const struct tv_lion_args *a, int64_t s)
{
    return elements(0, s, 5 * a->count);
}

static struct tv_kernel_work work_axpby(const struct tv_axpby_args *a, int64_t s)
{
    return elements(0, s, (a->beta != 0 ? 3 : 2) * a->rows * a->cols);
}

static struct tv_kernel_work work_square_sum(const struct tv_square_sum_args *a, int64_t s)
{
    int64_t count = 0;
    for (int i = 0; i < a->num; i++)
        count += a->of[i].count;
    return elements(0, s, count);
}

static struct tv_kernel_work work_to_bf16(const struct tv_to_bf16_args *a, int64_t s)
{
    (void)s;
    return elements(a->count, (int64_t)tv_dtype_bytes(TV_BF16), a->count);
}

static struct tv_kernel_work work_from_bf16(const struct tv_from_bf16_args *a, int64_t s)
{
    (void)s;
    return elements(a->count, (int64_t)tv_dtype_bytes(TV_BF16), a->count);
}

struct tv_kernel_work tv_kernel_work_of(tv_kernel_t kernel, const void *args, tv_dtype_t dtype)
{
    const int64_t s = (int64_t)tv_dtype_bytes(dtype);
    switch (kernel) {
#define CASE(op, type)                                                                             \
    case TV_KERNEL_##op:                                                                           \
        return work_##op(args, s);
        TV_KERNEL_LIST(CASE)
    default:
        return (struct tv_kernel_work){0};
    }
}

const char *tv_kernel_name(tv_kernel_t kernel)
{
#define NAME(op, type) [TV_KERNEL_##op] = #op,
    static const char *const names[TV_NUM_KERNELS] = {TV_KERNEL_LIST(NAME)};
    return names[kernel];
}

tv_kernel_group_t tv_kernel_group(tv_kernel_t kernel)
{
    static const tv_kernel_group_t groups[TV_NUM_KERNELS] = {
        [TV_KERNEL_matmul] = TV_GROUP_MATMUL,
        [TV_KERNEL_matmul_to_f32] = TV_GROUP_MATMUL,
        [TV_KERNEL_bias_backward] = TV_GROUP_NORM,
        [TV_KERNEL_add] = TV_GROUP_NORM,
        [TV_KERNEL_layernorm_forward] = TV_GROUP_NORM,
        [TV_KERNEL_layernorm_backward] = TV_GROUP_NORM,
        [TV_KERNEL_rmsnorm_forward] = TV_GROUP_NORM,
        [TV_KERNEL_rmsnorm_backward] = TV_GROUP_NORM,
        [TV_KERNEL_rotary] = TV_GROUP_ATTENTION,
        [TV_KERNEL_dropout] = TV_GROUP_NORM,
        [TV_KERNEL_attention_forward] = TV_GROUP_ATTENTION,
        [TV_KERNEL_attention_backward] = TV_GROUP_ATTENTION,
        [TV_KERNEL_gelu_forward] = TV_GROUP_NORM,
        [TV_KERNEL_gelu_backward] = TV_GROUP_NORM,
        [TV_KERNEL_swiglu_forward] = TV_GROUP_NORM,
        [TV_KERNEL_swiglu_backward] = TV_GROUP_NORM,
        [TV_KERNEL_embedding_forward] = TV_GROUP_EMBEDDING,
        [TV_KERNEL_embedding_backward] = TV_GROUP_EMBEDDING,
        [TV_KERNEL_cross_entropy_forward] = TV_GROUP_LOSS,
        [TV_KERNEL_cross_entropy_rebase] = TV_GROUP_LOSS,
        [TV_KERNEL_cross_entropy_loss] = TV_GROUP_LOSS,
        [TV_KERNEL_cross_entropy_backward] = TV_GROUP_LOSS,
        [TV_KERNEL_cross_entropy] = TV_GROUP_LOSS,
        [TV_KERNEL_adamw] = TV_GROUP_OPTIMIZER,
        [TV_KERNEL_lion] = TV_GROUP_OPTIMIZER,
        [TV_KERNEL_axpby] = TV_GROUP_OPTIMIZER,
        [TV_KERNEL_square_sum] = TV_GROUP_OPTIMIZER,
        [TV_KERNEL_to_bf16] = TV_GROUP_OPTIMIZER,
        [TV_KERNEL_from_bf16] = TV_GROUP_OPTIMIZER,
    };
    return groups[kernel];
}

const char *tv_kernel_group_name(tv_kernel_group_t group)
{
    static const char *const names[TV_NUM_GROUPS] = {
        [TV_GROUP_MATMUL] = "matmul",
        [TV_GROUP_ATTENTION] = "attention",
        [TV_GROUP_NORM] = "norm and activation",
        [TV_GROUP_EMBEDDING] = "embedding",
        [TV_GROUP_LOSS] = "loss",
        [TV_GROUP_OPTIMIZER] = "optimizer",
    };
    return names[group];
}
