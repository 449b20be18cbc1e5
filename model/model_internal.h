/* model/model_internal.h -- how a rank's part of the model lies in memory.
 *
 * Three flat arrays: parameters, gradients, and per slot one array of activations. layout.c
 * computes all places from the arguments alone, so that a dry run and the real thing cannot
 * disagree. */
#ifndef TV_MODEL_MODEL_INTERNAL_H
#define TV_MODEL_MODEL_INTERNAL_H
#include "model/model.h"

TV_BEGIN_C
enum { TV_MAX_UNIT_PARAMS = 12 };

/* Sizes on one rank. */
struct tv_model_sizes {
    int T, t;
    int64_t rows; /* B S */
    int64_t C, F; /* channels; this rank's columns of the feed-forward matrix */
    int64_t q_cols, kv_cols, qkv_cols;     /* this rank's query, key (= value) and fused columns */
    int num_heads, num_kv_heads, head_dim; /* this rank's */
    struct tv_vocab_shard vocab;
};

/* Where a unit keeps what its backward needs: element offsets into the slot's array. */
struct tv_layer_places {
    int64_t n1, mean1, rstd1; /* [rows, C], [rows], [rows]: first norm */
    int64_t qkv, att, lse;    /* [rows, qkv_cols], [rows, q_cols], [B, heads, S] */
    int64_t mid;              /* [rows, C]: x + attention */
    int64_t n2, mean2, rstd2; /* second norm */
    int64_t ff, act;          /* [rows, F] or [rows, 2 F] gate and up; [rows, F] */
};
struct tv_head_places {
    int64_t norm, mean, rstd; /* [rows, C], [rows], [rows] */
    int64_t logits, lse;      /* [rows, padded vocabulary], [rows] */
};

/* A weight and its gradient; NULL where the family has none. */
struct tv_weight {
    const float *value;
    float *grad;
};

struct tv_unit {
    int index;       /* in the chain of units */
    int num_weights; /* rows of the table that belong to the unit, in table order */
    int64_t weight_first[TV_MAX_UNIT_PARAMS]; /* elements of the flat arrays */
    int64_t tied_first;                       /* head: place of the tied matrix, else -1 */
    int64_t input; /* [rows, C] in the slot; -1: the stage's own input, or an embedding */
    struct tv_layer_places layer;
    struct tv_head_places head;
};

struct tv_model_layout {
    struct tv_model_sizes sizes;
    int num_units;
    struct tv_unit *units; /* [num_units], owned */
    int num_local;
    struct tv_local_param *local; /* owned */
    int64_t param_count;
    int64_t slot_count; /* floats of one slot */
    /* scratch, floats: gradient of the residual stream, a second one, feed-forward and attention
     * gradients, loss work */
    int64_t grad, tmp, d_ff, d_act, d_qkv, d_att, work, scratch_count;
};

struct tv_model {
    struct tv_model_args args;
    struct tv_param_table table;
    struct tv_model_layout layout;
    struct tv_buffer params, grads, slots, scratch;
    struct tv_buffer tokens; /* int32: positions [rows], then per slot ids [rows], targets [rows] */
    struct tv_comm
        *kv_holders; /* tensor ranks with the same kv heads; NULL when each has its own */
};

/* layout.c. T, t: tensor axis. table: of args->config. */
TV_MUST_CHECK tv_status_t tv_model_layout_create(const struct tv_model_args *args,
                                                 const struct tv_param_table *table, int T, int t,
                                                 struct tv_model_layout *layout_out);
void tv_model_layout_destroy(struct tv_model_layout *layout);
/* Elements of the token buffer. */
int64_t tv_model_tokens_count(const struct tv_model_args *args);

/* What the functions of one unit work on. */
struct tv_pass {
    struct tv_model *model;
    const struct tv_tensor_axis *axis;
    const struct tv_model_sizes *sizes;
    const struct tv_unit *unit;
    float *slot; /* this micro-batch's activations */
    float *scratch;
    const int32_t *ids, *targets, *positions; /* [rows] */
};
struct tv_weight tv_pass_weight(const struct tv_pass *pass, int index);
/* The head's output matrix: its own or the tied one. */
struct tv_weight tv_pass_output_matrix(const struct tv_pass *pass);

/* layer.c, attention.c, ends.c: x -> y; grad: dy becomes dx in place. */
TV_MUST_CHECK tv_status_t tv_layer_forward(const struct tv_pass *pass, const float *x, float *y);
TV_MUST_CHECK tv_status_t tv_layer_backward(const struct tv_pass *pass, const float *x,
                                            float *grad);
TV_MUST_CHECK tv_status_t tv_attention_part_forward(const struct tv_pass *pass);
TV_MUST_CHECK tv_status_t tv_attention_part_backward(const struct tv_pass *pass, const float *grad,
                                                     float *dn1);
TV_MUST_CHECK tv_status_t tv_embedding_unit_forward(const struct tv_pass *pass, float *y);
TV_MUST_CHECK tv_status_t tv_embedding_unit_backward(const struct tv_pass *pass, const float *grad);
TV_MUST_CHECK tv_status_t tv_head_forward(const struct tv_pass *pass, const float *x,
                                          double *loss_sum_out);
TV_MUST_CHECK tv_status_t tv_head_backward(const struct tv_pass *pass, const float *x, float *grad);

/* Norm of the family, shared by layers and head. weight, bias: indices of the unit's weights (bias
 * unused by Llama). */
struct tv_norm_use {
    int weight, bias;
    int64_t y, mean, rstd; /* places in the slot */
};
TV_MUST_CHECK tv_status_t tv_unit_norm_forward(const struct tv_pass *pass, struct tv_norm_use use,
                                               const float *x);
/* add_dx: dx += */
TV_MUST_CHECK tv_status_t tv_unit_norm_backward(const struct tv_pass *pass, struct tv_norm_use use,
                                                const float *x, const float *dy, int add_dx,
                                                float *dx);
TV_END_C
#endif
