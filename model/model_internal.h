/* model/model_internal.h -- how a rank's chunks of the model lie in memory.
 *
 * Flat arrays: parameters, gradients, activations and scratch. The last two hold elements of the
 * model's dtype and, for statistics and sums, floats, so places in them are in bytes. Activations:
 * for each chunk its slots, then its working sets; where all chunks share one, that comes last.
 * layout.c computes all places from the arguments alone, so that a dry run and the real thing cannot
 * disagree.
 *
 * Between backward_input and backward_weight a slot holds gradients in places that have become
 * free: d(qkv) over qkv, d(mid) over mid, and the gradient of a unit's output over the next unit's
 * input. d(ff) takes the place of ff in any backward.
 *
 * The head keeps its input alone: all else it makes in its backward, in scratch (decisions/0018). */
#ifndef TV_MODEL_MODEL_INTERNAL_H
#define TV_MODEL_MODEL_INTERNAL_H
#include "model/model.h"

TV_BEGIN_C
enum { TV_MAX_UNIT_PARAMS = 12 };

/* Sizes on one rank. */
struct tv_model_sizes {
    int T, t;
    int64_t rows; /* R = B S */
    struct tv_row_shard
        own;      /* this rank's between matrices: R/T under sequence parallelism, else R */
    int64_t C, F; /* channels; this rank's columns of the feed-forward matrix */
    int64_t q_cols, kv_cols, qkv_cols;     /* this rank's query, key (= value) and fused columns */
    int64_t ld_att, ld_qkv;                /* between rows of q_cols, of qkv_cols */
    int num_heads, num_kv_heads, head_dim; /* this rank's */
    struct tv_vocab_shard vocab;
};

/* Bytes into the micro-batch's slot, into its working set, or into the scratch of all. */
enum tv_room { TV_IN_SLOT, TV_IN_WORK, TV_IN_SCRATCH };
struct tv_place {
    int64_t first;
    enum tv_room room;
};

/* Where a unit keeps what its backward needs. */
struct tv_norm_places {
    struct tv_place y;          /* [rows, C] (gathered) */
    struct tv_place mean, rstd; /* [own rows], floats */
};
struct tv_layer_places {
    struct tv_norm_places norm1;
    struct tv_place qkv, att; /* [rows, qkv_cols], [rows, q_cols] */
    struct tv_place lse;      /* [B, heads, S], floats */
    struct tv_place mid;      /* [own rows, C]: x + attention */
    struct tv_norm_places norm2;
    struct tv_place ff, act; /* [rows, F] or [rows, 2 F] gate and up; [rows, F] */
};
struct tv_head_places { /* in scratch */
    struct tv_norm_places norm;
    struct tv_vocab_chunks chunks;
    struct tv_place logits;    /* [rows of a chunk, padded vocabulary] */
    struct tv_place lse, work; /* [rows of a chunk], [4 or 5, rows of a chunk], floats */
    struct tv_place losses;    /* [rows], doubles */
};

/* A weight and its gradient; NULL where the family has none. */
struct tv_weight {
    const void *value;
    float *grad;
};

struct tv_unit {
    int index;       /* in the chain of units */
    int num_weights; /* rows of the table that belong to the unit, in table order */
    int64_t first;   /* of its weights in the flat arrays */
    int64_t weight_first[TV_MAX_UNIT_PARAMS]; /* elements of the flat arrays */
    int64_t tied_first;                       /* head: place of the tied matrix, else -1 */
    struct tv_place input;                    /* [own rows, C]; not of a chunk's first unit */
    struct tv_layer_places layer;
};

struct tv_chunk_layout {
    struct tv_model_chunk args;
    struct tv_unit *units;          /* [num_units], a part of the layout's */
    int64_t slot_bytes, work_bytes; /* of one slot, of one working set */
    int64_t first_slot, first_work; /* bytes before them in the array of activations */
    /* per slot ids [rows], targets [rows], and where they are reset positions, first keys [rows] */
    int64_t first_tokens;
};

struct tv_model_layout {
    struct tv_model_sizes sizes;
    tv_dtype_t dtype; /* of weights and activations */
    int num_chunks;
    struct tv_chunk_layout *chunks; /* [num_chunks], owned */
    int num_units;
    struct tv_unit *units; /* of all chunks, owned */
    int num_local;
    struct tv_local_param *local; /* owned */
    int64_t param_count, activation_bytes;
    int64_t slot_tokens;  /* int32 of one slot */
    int64_t tokens_count; /* int32: positions [rows], then those of the chunks' slots */
    /* scratch, places in bytes: gradient of the residual stream [own rows, C]; what all ranks' rows
     * are in at the moment, partial sums or gathered gradients [rows, C]; one more [own rows, C] where
     * those are apart; in one place, since units take turns, a layer's (feed-forward and attention
     * gradients, in floats sums of the attention's kernel) and the head's; in floats under sequence
     * parallelism the gradients of weights `is_for_rows` side by side, for their sum */
    int64_t grad, whole, own, d_act, d_qkv, d_att;
    int64_t attention_work, row_sums, scratch_bytes;
    int has_head;
    struct tv_head_places head; /* where has_head */
};

struct tv_model {
    struct tv_model_args args; /* without chunks: the layout has them */
    struct tv_param_table table;
    struct tv_model_layout layout;
    struct tv_buffer params, grads, activations, scratch, tokens;
    unsigned char *given; /* [num_units] TV_GIVEN_NORMS, TV_GIVEN_OTHERS; not of lent memory */
    int given_tied;       /* TV_GIVEN_TIED or 0 */
    double *host_losses;  /* [rows]; NULL without the head */
    struct tv_square_sum_array *squared; /* [num_local]; behind it, as many sums */
    double *squares;
    /* What is in flight over the tensor axis: rows on their way to the matrices behind a norm, or
     * their gradient to a row matrix; the sum behind the column matrices' input gradients. */
    struct tv_row_gather gather;
    struct tv_request *sum;
    struct tv_comm
        *kv_holders; /* tensor ranks with the same kv heads; NULL when each has its own */
};

/* layout.c. T, t: tensor axis. table: of args->config. args->axis is not read. */
TV_MUST_CHECK tv_status_t tv_model_layout_create(const struct tv_model_args *args,
                                                 const struct tv_param_table *table, int T, int t,
                                                 tv_dtype_t dtype,
                                                 struct tv_model_layout *layout_out);
void tv_model_layout_destroy(struct tv_model_layout *layout);

/* What the functions of one unit work on. */
struct tv_pass {
    struct tv_model *model;
    const struct tv_tensor_axis *axis;
    const struct tv_model_sizes *sizes;
    const struct tv_chunk_layout *chunk;
    const struct tv_unit *unit;
    struct tv_unit_memory memory; /* the unit's, while it computes */
    char *slot, *work;            /* this micro-batch's */
    char *scratch;
    int32_t *ids, *targets;    /* [rows], the slot's */
    int32_t *own_positions;    /* [rows], the slot's; NULL: every sequence counts from 0 */
    int32_t *first_keys;       /* [rows], the slot's, or NULL */
    const int32_t *positions;  /* [rows] */
    int64_t step, first_token; /* the call's; row 0 in the global batch */
    int is_split;              /* backward: weights' gradients come later; keep what they need */
    const struct tv_unit_done
        *unit_done; /* of a backward that completes weights' gradients, or NULL */
};
/* The unit's gradients from `branch` on are complete. */
tv_status_t tv_pass_report(const struct tv_pass *pass, int branch);
void *tv_pass_at(const struct tv_pass *pass, struct tv_place place);
/* Element `index` of stored elements. */
static inline void *tv_pass_element(const struct tv_pass *pass, void *data, int64_t index)
{
    return tv_tensor_at(pass->axis, data, index);
}
struct tv_weight tv_pass_weight(const struct tv_pass *pass, int index);
/* The head's output matrix: its own or the tied one. */
struct tv_weight tv_pass_output_matrix(const struct tv_pass *pass);
/* Is the gradient of the table of tokens, or of the output matrix, to be added to? Either may be the tied one. */
int tv_pass_adds_table(const struct tv_pass *pass);

/* The residual stream where a norm reads it, [own rows, C]: x, or x + added, which the norm writes to sum. */
struct tv_residual {
    const void *x, *added; /* added NULL: x */
    void *sum;
};
static inline struct tv_residual tv_residual_of(const void *x)
{
    return (struct tv_residual){x, NULL, NULL};
}

/* layer.c, attention.c, ends.c. x, y, dy, grad: [own rows, C].
 * forward: x -> y; y NULL: nobody reads it (recomputation). leaves_sum: y is without mid, which who reads it adds.
 * backward: grad is dy and becomes dx in place; of the attention part dn1, partial, and d(qkv), which
 * its weight part reads: in scratch, of a split backward in the place of qkv.
 * backward_weight: what a split backward left out. */
TV_MUST_CHECK tv_status_t tv_layer_forward(const struct tv_pass *pass, struct tv_residual x,
                                           int leaves_sum, void *y);
TV_MUST_CHECK tv_status_t tv_layer_backward(const struct tv_pass *pass, const void *x, void *grad);
TV_MUST_CHECK tv_status_t tv_layer_backward_weight(const struct tv_pass *pass, const void *dy);
TV_MUST_CHECK tv_status_t tv_attention_part_forward(const struct tv_pass *pass);
TV_MUST_CHECK tv_status_t tv_attention_part_backward(const struct tv_pass *pass, const void *d_att,
                                                     void *dn1);
TV_MUST_CHECK tv_status_t tv_attention_part_backward_weight(const struct tv_pass *pass,
                                                            const void *d_qkv);
TV_MUST_CHECK tv_status_t tv_embedding_unit_forward(const struct tv_pass *pass, void *y);
TV_MUST_CHECK tv_status_t tv_embedding_unit_backward_weight(const struct tv_pass *pass,
                                                            const void *dy);
/* Of an evaluation. */
TV_MUST_CHECK tv_status_t tv_head_loss(const struct tv_pass *pass, const void *x,
                                       double *loss_sum_out);
/* The loss, the gradient of x and those of the weights, which a split backward has here too. */
TV_MUST_CHECK tv_status_t tv_head_backward(const struct tv_pass *pass, const void *x, void *grad,
                                           double *loss_sum_out);
/* This rank's columns of row `row` of the logits, [padded], in scratch. */
TV_MUST_CHECK tv_status_t tv_head_logits(const struct tv_pass *pass, const void *x, int64_t row,
                                         const void **own_out);

/* dropout.c: the embeddings' sum; the attention's weights; what attention and feed-forward add. */
enum tv_dropout_kind { TV_DROPOUT_EMBEDDING, TV_DROPOUT_ATTENTION, TV_DROPOUT_MID, TV_DROPOUT_FF };
struct tv_dropout tv_pass_dropout(const struct tv_pass *pass, enum tv_dropout_kind kind);
/* y[own rows, C], in place. */
TV_MUST_CHECK tv_status_t tv_unit_drop(const struct tv_pass *pass, enum tv_dropout_kind kind,
                                       void *y);
/* From dy[own rows, C] of the residual stream all rows of the gradient of what was added to it, for
 * a row matrix or an embedding: dropped into scratch `own`, gathered into `whole`, or dy itself.
 * Starts the model's gather of them, which the caller takes. */
TV_MUST_CHECK tv_status_t tv_unit_branch_gradient(const struct tv_pass *pass,
                                                  enum tv_dropout_kind kind, const void *dy);

/* Norm of the family, shared by layers and head. weight, bias: indices of the unit's weights (bias
 * unused by Llama). */
struct tv_norm_use {
    int weight, bias;
    struct tv_norm_places places;
};
/* x[own rows, C] -> all rows of y, for the column matrices behind it: starts the model's gather of
 * them, which the caller takes. */
TV_MUST_CHECK tv_status_t tv_unit_norm_forward(const struct tv_pass *pass, struct tv_norm_use use,
                                               struct tv_residual x);
/* Start the sum of what the column matrices behind the norm gave, in scratch `whole`. Until
 * norm_backward waits for it there is time for their weights' gradients. */
TV_MUST_CHECK tv_status_t tv_unit_start_norm_sum(const struct tv_pass *pass);
/* dy: that sum. add_dx: dx[own rows, C] += */
TV_MUST_CHECK tv_status_t tv_unit_norm_backward(const struct tv_pass *pass, struct tv_norm_use use,
                                                const void *x, int add_dx, void *dx);
TV_END_C
#endif
