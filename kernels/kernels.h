/* kernels/kernels.h -- the operations of a transformer, one table of functions per backend and type
 * of stored elements.
 *
 * Tensors are row-major. `void *` ones (weights, activations and their gradients) have elements of
 * the table's dtype, TV_F32 or TV_BF16; `float *` ones (gradients of weights, statistics of rows,
 * the optimizer's state) are fp32 in every table. Elements are read into fp32 or wider, added up
 * there, and rounded once when a result is stored. `rows` are tokens (B x S, sequence by sequence), B S C H V as in
 * docs/glossary.md. Where an `ld_` is given, row r of that tensor starts at r * ld (elements), so
 * an operation can read a part of a fused matrix. Gradients of weights are added to (`+=`) when
 * `accumulate`, else written (`=`), whatever is there; embedding_backward always adds. Gradients of
 * activations are written unless said. Operations are enqueued on args' stream;
 * all of them are deterministic: fixed reduction orders, no atomics.
 *
 * The reference table is the definition (naive loops, double accumulators); the CPU table has
 * faster ones of the same meaning; a GPU table must be complete on its own. No entry
 * is ever NULL. */
#ifndef TV_KERNELS_KERNELS_H
#define TV_KERNELS_KERNELS_H
#include "base/device.h"
#include "base/dtype.h"
#include <stdint.h>

TV_BEGIN_C

/* c[m,n] = op(a)[m,k] op(b)[k,n] (+ bias[n]) (+ c when accumulate). trans_a: a is stored [k,m];
 * trans_b: b is [n,k]. 2 m n k FLOPs. bias NULL: none. m, n or k may be 0. */
struct tv_matmul_args {
    int64_t m, n, k;
    const void *a;
    int64_t ld_a;
    int trans_a;
    const void *b;
    int64_t ld_b;
    int trans_b;
    const void *bias;
    int accumulate;
    void *c; /* matmul_to_f32: float, as gradients of weights are */
    int64_t ld_c;
};
/* dbias[cols] = (accumulate: +=) sum over rows of dy[rows, cols] */
struct tv_bias_backward_args {
    int64_t rows, cols, ld_dy;
    const void *dy;
    int accumulate;
    float *dbias;
};
/* y = a + b, [count]; y may be a or b */
struct tv_add_args {
    int64_t count;
    const void *a, *b;
    void *y;
};
/* LayerNorm (Ba, Kiros, Hinton 2016) per row: y = (x - mean) rstd w + b, rstd = 1/sqrt(var + eps).
 * x, y [rows, cols]; weight, bias [cols]; mean, rstd [rows] kept for backward. RMSNorm (Zhang,
 * Sennrich 2019): y = w x rstd, rstd = 1/sqrt(mean(x^2) + eps); mean, bias unused (NULL). With `added`
 * [rows, cols] the norm is that of sum = x + added, which is written as `add` does; sum may be x or
 * added. */
struct tv_norm_args {
    int64_t rows, cols;
    double eps;
    const void *x, *weight, *bias;
    void *y;
    float *mean, *rstd;
    const void *added; /* or NULL */
    void *sum;         /* where added is */
};
/* dx = (add_dx: +=); dweight, dbias = (accumulate: +=). */
struct tv_norm_backward_args {
    int64_t rows, cols;
    const void *dy, *x, *weight;
    const float *mean, *rstd;
    int add_dx;
    void *dx;
    int accumulate;
    float *dweight, *dbias;
};
/* Rotary embedding (Su et al. 2021), half-split: within each head, (x_i, x_{i+h/2}) turns by
 * position * theta^(-2i/h). x [rows, heads * head_dim] in place; position of row r is positions[r],
 * or r % seq_length where positions is NULL; inverse = 1 turns back (the gradient). */
struct tv_rotary_args {
    int64_t rows, ld_x;
    int seq_length, num_heads, head_dim, inverse;
    double theta;
    void *x;
    const int32_t *positions; /* [rows], or NULL */
};
/* Dropout (Srivastava et al. 2014): y = x / (1 - p) where x is kept, else 0. An element is dropped
 * when its random word is below `threshold` = p 2^32: word column % 4 of the Philox block with
 * counter {column / 4, token (low half, high half), plane} under `key`. So the mask is a function
 * of the element's place alone, however rows, heads and micro-batches are spread, and backward
 * makes it again. threshold 0: no dropout, nothing else is read. */
struct tv_dropout {
    uint64_t key; /* one per use: a function of (seed, step, layer, kind) */
    uint32_t threshold;
    float scale;         /* 1 / (1 - p) */
    int64_t first_token; /* of row 0, counted in the global batch */
    int first_plane;     /* attention: head 0, counted in the model; else 0 */
};
/* y = dropout of x, [rows, cols]; y may be x. Also its own backward: dx = dropout of dy. */
struct tv_dropout_args {
    int64_t rows, cols;
    struct tv_dropout dropout;
    const void *x;
    void *y;
};
/* Causal attention, grouped queries: query head j reads kv head j / (num_heads / num_kv_heads).
 * scale 1/sqrt(head_dim). q, o [B*S, num_heads * head_dim]; k, v [B*S, num_kv_heads * head_dim];
 * lse [B, num_heads, S] = log sum exp of each row of scaled scores, kept for backward. Dropout of
 * the softmax's output: token = the query's, plane = the head, column = the key's place in the
 * sequence. Never holds more than one block of S x S scores (Dao et al. 2022).
 * first_keys [B*S], or NULL: the first key in its sequence that each query may see, at most its own
 * place and never falling along a sequence: where its document starts. NULL: key 0. */
struct tv_attention_args {
    int batch, seq_length, num_heads, num_kv_heads, head_dim;
    const void *q, *k, *v;
    int64_t ld_q, ld_k, ld_v;
    void *o;
    int64_t ld_o;
    float *lse;
    struct tv_dropout dropout;
    const int32_t *first_keys;
};
/* Given o, lse of forward, do, the same dropout and first_keys: writes dq, dk, dv (=), laid out as q,
 * k, v with the ld_d* strides. work [tv_attention_work_count]: fp32 sums of dq; not read where the
 * count is 0. */
struct tv_attention_backward_args {
    int batch, seq_length, num_heads, num_kv_heads, head_dim;
    const void *q, *k, *v;
    int64_t ld_q, ld_k, ld_v;
    const void *o, *d_o;
    int64_t ld_o, ld_do;
    const float *lse;
    void *dq, *dk, *dv;
    int64_t ld_dq, ld_dk, ld_dv;
    struct tv_dropout dropout;
    const int32_t *first_keys;
    float *work;
};
/* rows = B S, cols = num_heads * head_dim. An fp32 dq holds its own sums. */
static inline int64_t tv_attention_work_count(tv_dtype_t dtype, int64_t rows, int64_t cols)
{
    return dtype == TV_F32 ? 0 : rows * cols;
}
/* Elements between rows of `cols` of which attention reads and writes heads: on the CPU a line of 64 bytes more where
 * rows would lie multiples of 1 KiB apart. A head's rows would share a fourth or less of the first cache's sets. */
static inline int64_t tv_attention_row_stride(tv_dtype_t dtype, tv_device_kind_t device,
                                              int64_t cols)
{
    enum { LINE = 64, APART = 1 << 10 };
    const int64_t size = (int64_t)tv_dtype_bytes(dtype);
    return device == TV_DEVICE_CPU && cols * size % APART == 0 ? cols + LINE / size : cols;
}
/* gelu, tanh form (Hendrycks, Gimpel 2016): y = x/2 (1 + tanh(sqrt(2/pi)(x + 0.044715 x^3))).
 * backward: dx = dy y'(x), and where dx is [count / cols, cols], dbias[cols] = (accumulate: +=) its
 * column sums, as bias_backward makes them. dx may be dy or x. */
struct tv_gelu_args {
    int64_t count;
    const void *x;
    void *y;
};
struct tv_gelu_backward_args {
    int64_t count;
    const void *x, *dy;
    void *dx;
    float *dbias; /* or NULL */
    int64_t cols; /* where dbias is */
    int accumulate;
};
/* SwiGLU (Shazeer 2020): y = gate sigmoid(gate) up, all [rows, cols] with strides. d_gate, d_up may
 * be gate, up. */
struct tv_swiglu_args {
    int64_t rows, cols, ld_gate, ld_up, ld_y;
    const void *gate, *up;
    void *y;
};
struct tv_swiglu_backward_args {
    int64_t rows, cols, ld_gate, ld_up, ld_dy, ld_dgate, ld_dup;
    const void *gate, *up, *dy;
    void *d_gate, *d_up;
};
/* y[rows, cols] = table[ids[r] - first] for first <= ids[r] < first + num, else 0 (+ y when
 * accumulate). backward: dtable[ids[r] - first] += dy[r], rows in ascending order. table [num (or
 * more), cols]. */
struct tv_embedding_args {
    int64_t rows, cols, first, num;
    const int32_t *ids;
    const void *table;
    int accumulate;
    void *y;
};
struct tv_embedding_backward_args {
    int64_t rows, cols, first, num;
    const int32_t *ids;
    const void *dy;
    float *dtable;
};
/* Softmax cross-entropy over a vocabulary that may be cut over ranks; this rank holds columns
 * [first, first + cols) as logits [rows, cols] with stride ld. Entries, and what they see:
 *   forward   the logits, once. row_max[r] = row_base[r] = max over columns (-inf when cols is 0);
 *             row_sum[r] = sum exp(logit - row_base[r]); row_target[r] = logit of targets[r] if held
 *             here, else 0. The caller reduces row_max over the ranks.
 *   rebase    row_sum and row_rest are made relative to row_max instead of row_base. The caller adds
 *             row_sum, row_target and row_rest over the ranks.
 *   loss      row_lse[r] = row_max[r] + log(row_sum[r]), and row_loss[r] = row_lse[r] - row_target[r],
 *             in double; 0 where targets[r] < 0 (not counted).
 *   backward  logits become scale_r (exp(logit - row_lse[r]) - [column is targets[r]]), scale_r = 0
 *             where targets[r] < 0, else 1.
 * And cross_entropy, where no other rank has columns: the four, one behind the other, with the bits of
 * lse, loss and gradient that they make. Other numbers of rows are room to work in, with anything in it
 * afterwards (row_rest says whether there is smoothing).
 * Label smoothing s over V columns in all: forward also writes row_rest[r] = sum (logit -
 * row_base[r]), backward subtracts 1 - s at the target and s / V everywhere; the loss of row r is
 * (1 - s)(row_lse - target logit) + s (row_lse - mean logit). */
struct tv_cross_entropy_args {
    int64_t rows, cols, ld, first;
    int64_t
        padded;   /* backward: columns [cols, padded) become 0; none where that is not above cols */
    void *logits; /* read by forward, replaced by backward */
    const int32_t *targets;
    float *row_max, *row_base, *row_sum, *row_target; /* [rows] */
    float *row_rest;                                  /* [rows], or NULL without smoothing */
    float *row_lse;                         /* [rows]: written by loss, read by backward */
    double *row_loss;                       /* [rows]: written by loss */
    double smoothing, smoothing_per_column; /* s, s / V; loss and backward */
};
/* AdamW (Loshchilov, Hutter 2019), in place. g = grad * grad_scale; m, v moments; with bias
 * corrections c1 = 1 - beta1^step, c2 = 1 - beta2^step: param -= lr ((m/c1) / (sqrt(v/c2) + eps) +
 * weight_decay param). Weights that do not overlap, [num] in host memory; each comes out as if it
 * were alone. */
struct tv_adamw_weight {
    int64_t count;
    float *param, *m, *v;
    const float *grad;
    double lr, weight_decay;
    void *rounded; /* bf16 of the new param in every table, as to_bf16 makes it; or NULL */
};
struct tv_adamw_args {
    int num;
    const struct tv_adamw_weight *of;
    double beta1, beta2, eps, grad_scale;
    int64_t step; /* from 1 */
};
/* y = alpha x + beta y over [rows, cols], worked out in double and rounded once; beta 0: y is not
 * read. y may be x. */
struct tv_axpby_args {
    int64_t rows, cols, ld_x, ld_y;
    double alpha, beta;
    const float *x;
    float *y;
};
/* Lion (Chen et al. 2023, arXiv:2302.06675, algorithm 2), in place, worked out in double so that every
 * table takes the same sign. g = grad * grad_scale; c = beta1 m + (1 - beta1) g; param -= lr (sign(c)
 * + weight_decay param), sign(0) = 0; then m = beta2 m + (1 - beta2) g. */
struct tv_lion_args {
    int64_t count;
    float *param, *m;
    const float *grad;
    double lr, beta1, beta2, weight_decay, grad_scale;
};
/* sums_out[i] = sum of x^2 over array i, accumulated in double in a fixed order that no other array
 * changes. Arrays and sums, [num], are listed in host memory. Synchronizes the stream, once. */
struct tv_square_sum_array {
    int64_t count;
    const float *x;
};
struct tv_square_sum_args {
    int num;
    const struct tv_square_sum_array *of;
    double *sums_out;
};

/* bf16 of floats, y = x rounded to nearest, ties to even; and back, which is exact. Any table. to_bf16: y may
 * be x, the bf16 numbers then lie in the first half of the array of floats. from_bf16: y may begin
 * in the same place as x, or behind it. */
struct tv_to_bf16_args {
    int64_t count;
    const float *x;
    void *y;
};
struct tv_from_bf16_args {
    int64_t count;
    const void *x;
    float *y;
};

/* X(function, args struct) */
#define TV_KERNEL_LIST(X)                                                                          \
    X(matmul, tv_matmul_args)                                                                      \
    X(matmul_to_f32, tv_matmul_args)                                                               \
    X(bias_backward, tv_bias_backward_args)                                                        \
    X(add, tv_add_args)                                                                            \
    X(layernorm_forward, tv_norm_args)                                                             \
    X(layernorm_backward, tv_norm_backward_args)                                                   \
    X(rmsnorm_forward, tv_norm_args)                                                               \
    X(rmsnorm_backward, tv_norm_backward_args)                                                     \
    X(rotary, tv_rotary_args)                                                                      \
    X(dropout, tv_dropout_args)                                                                    \
    X(attention_forward, tv_attention_args)                                                        \
    X(attention_backward, tv_attention_backward_args)                                              \
    X(gelu_forward, tv_gelu_args)                                                                  \
    X(gelu_backward, tv_gelu_backward_args)                                                        \
    X(swiglu_forward, tv_swiglu_args)                                                              \
    X(swiglu_backward, tv_swiglu_backward_args)                                                    \
    X(embedding_forward, tv_embedding_args)                                                        \
    X(embedding_backward, tv_embedding_backward_args)                                              \
    X(cross_entropy_forward, tv_cross_entropy_args)                                                \
    X(cross_entropy_rebase, tv_cross_entropy_args)                                                 \
    X(cross_entropy_loss, tv_cross_entropy_args)                                                   \
    X(cross_entropy_backward, tv_cross_entropy_args)                                               \
    X(cross_entropy, tv_cross_entropy_args)                                                        \
    X(adamw, tv_adamw_args)                                                                        \
    X(lion, tv_lion_args)                                                                          \
    X(axpby, tv_axpby_args)                                                                        \
    X(square_sum, tv_square_sum_args)                                                              \
    X(to_bf16, tv_to_bf16_args)                                                                    \
    X(from_bf16, tv_from_bf16_args)

struct tv_kernels {
    const char *name; /* "ref", "cpu", "cuda" */
    tv_dtype_t dtype; /* of what is `void *` above */
#define TV_KERNEL_FIELD(op, args)                                                                  \
    tv_status_t (*op)(struct tv_stream * stream, const struct args *a);
    TV_KERNEL_LIST(TV_KERNEL_FIELD)
#undef TV_KERNEL_FIELD
};

/* The definition: one thread, double accumulators, host memory. dtype: TV_F32 or TV_BF16. */
const struct tv_kernels *tv_kernels_ref(tv_dtype_t dtype);
/* What is fastest on this CPU; runs with the threads of the stream's device. */
const struct tv_kernels *tv_kernels_cpu(tv_dtype_t dtype);
/* What the CPU tables multiply matrices with: "AVX-512", "AVX2", or OpenBLAS's name for its kernels, as "OpenBLAS
 * Nehalem"; "none" where that is needed and missing. */
const char *tv_product_name(void);
/* The table for a device. Errors: TV_UNSUPPORTED (a device without kernels in this build; no OpenBLAS). */
TV_MUST_CHECK tv_status_t tv_kernels_open(const struct tv_device *device, tv_dtype_t dtype,
                                          const struct tv_kernels **kernels_out);
TV_END_C
#endif
