/* train/bench_kernels.h -- `trivet bench kernels`: every kernel of the table alone, at the sizes that a rank of a model
 * has, beside the least time that this machine's peaks allow (the roofline). */
#ifndef TV_TRAIN_BENCH_KERNELS_H
#define TV_TRAIN_BENCH_KERNELS_H
#include "kernels/work.h"
#include "train/bench_peak.h"
#include "train/bench_step_options.h"
#include "train/run.h"
#include "train/spread.h"

TV_BEGIN_C
union tv_any_kernel_args {
#define TV_ANY_KERNEL_ARGS(op, type) struct type op;
    TV_KERNEL_LIST(TV_ANY_KERNEL_ARGS)
#undef TV_ANY_KERNEL_ARGS
};

/* Sizes of one rank of the tensor axis: heads, ffn and vocabulary are its share. */
struct tv_kernel_sizes {
    tv_model_family_t family;
    tv_dtype_t dtype; /* of weights and activations */
    int batch, seq_length, hidden, num_heads, num_kv_heads, head_dim, ffn;
    int64_t vocab, rows; /* rows: batch x seq_length */
    int64_t head_rows;   /* of them, those that the head and the loss take at once */
    tv_device_kind_t device;
};
struct tv_kernel_sizes tv_kernel_sizes_of(const struct tv_run *run);

/* A call of a kernel. Matrix products: each matrix of a layer and the head's, forward, and the gradients of its input
 * and of its weights; every other kernel once. The head's and the loss: one chunk of rows. */
struct tv_kernel_case {
    char name[40]; /* "matmul, head, dw", "gelu_forward" */
    tv_kernel_t kernel;
    union tv_any_kernel_args args;
    /* Args may point to these: the case must stay where it is. */
    double sum;
    struct tv_square_sum_array squared;
    struct tv_adamw_weight weight;
};
int tv_kernel_num_cases(const struct tv_kernel_sizes *sizes);
/* Fills the case with tensors that lie one behind the other in `memory`, and gives them numbers with which the kernel
 * may be called over and over; memory NULL: says how many bytes that takes, writes none. On an error the case
 * is half filled. Errors: those of the copies. */
TV_MUST_CHECK tv_status_t tv_kernel_case_fill(const struct tv_kernel_sizes *sizes, int index,
                                              struct tv_stream *stream, void *memory,
                                              struct tv_kernel_case *case_out,
                                              int64_t *num_bytes_out);
TV_MUST_CHECK tv_status_t tv_kernel_case_run(const struct tv_kernel_case *one,
                                             const struct tv_kernels *kernels,
                                             struct tv_stream *stream);

struct tv_kernel_result {
    char name[40];
    tv_kernel_t kernel;
    int rounds;
    struct tv_spread seconds; /* of a call */
    struct tv_kernel_work work;
    double roofline; /* seconds: the longer of work.flops and work.bytes at the peaks */
    int is_compute_bound;
    /* FLOP/s of some calls as a share of the mean of a product (peak) before and after them; on the CPU, of kernels
     * whose FLOPs are counted. */
    int has_beside;
    struct tv_spread beside;
};
struct tv_kernels_bench {
    struct tv_kernel_sizes sizes;
    int num_threads, num_results;
    struct tv_kernel_result *results; /* owned */
    struct tv_peak peak;              /* the better of those before and after */
};
/* world: one rank. Errors: TV_INVALID (more ranks), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_kernels_bench_measure(struct tv_comm *world, const struct tv_run *run,
                                                   const struct tv_bench_step_options *options,
                                                   struct tv_kernels_bench *bench_out);
void tv_kernels_bench_free(struct tv_kernels_bench *bench);
/* 80 columns, or one JSON object. Errors: TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_kernels_bench_print(const struct tv_kernels_bench *bench,
                                                 const struct tv_bench_step_options *options,
                                                 FILE *out);
TV_END_C
#endif
