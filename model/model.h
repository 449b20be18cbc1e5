/* model/model.h -- one rank's chunks of the model: parameters, activations, forward and backward.
 *
 * Weights, activations and the gradients of activations are elements of the kernels' dtype;
 * gradients of weights are fp32.
 *
 * A chunk is a range of the model's units. Tokens are [B, S] of one micro-batch, R = B S rows;
 * activations [R, C] enter and leave a chunk whole, the same on every tensor rank, or under
 * sequence parallelism as this rank's own rows of them, [R/T, C]. The first unit (embedding) reads
 * ids, the last (head) computes the loss: the sum over counted targets, never divided here. In
 * training it does so in its backward, where it makes logits, some rows at a time, and their gradient
 * (docs/decisions/0018); its forward is nothing.
 *
 * A slot holds what one micro-batch keeps in a chunk from its forward to its last backward part.
 * What recomputation does not keep lies in a working set instead; backward makes it again with the
 * same kernels, so the bits are the same.
 *
 * Gradients are those of that sum, added over the micro-batches of a step: the first one's are
 * written, so nothing is cleared before. A tied weight whose two units are both here, in one chunk or
 * two, is one local tensor, to which the backward (or its weight part) of each unit adds when it is
 * called, the head's first; on two ranks each has its own copy, and the caller sums their
 * gradients over the pipe axis. */
#ifndef TV_MODEL_MODEL_H
#define TV_MODEL_MODEL_H
#include "model/config.h"
#include "tensor/tensor.h"

TV_BEGIN_C
struct tv_model; /* opaque: owns parameters, gradients, slots, working sets */

/* What backward makes again instead of keeping it:
 * selective: norm outputs and statistics, and the activation function's output
 * (Korthikanti et al. 2022: what is large and cheap); full: all of the chunk, from its input. */
typedef enum { TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE, TV_RECOMPUTE_FULL } tv_recompute_t;
/* Errors: TV_INVALID. "none", "selective", "full". */
TV_MUST_CHECK tv_status_t tv_recompute_parse(const char *name, tv_recompute_t *recompute_out);
const char *tv_recompute_name(tv_recompute_t recompute);

struct tv_model_chunk {
    int first_unit, num_units; /* units held by this chunk; chunks ascend, need not be adjacent */
    int num_slots;             /* micro-batches in flight in this chunk */
    int num_works;             /* working sets; not read without recomputation */
};

/* Weights and gradients of a unit for one use of it: where its first local weight lies, the others
 * behind it as in the flat arrays; and of the head's tied weight, if there is one. NULL: not needed. */
struct tv_unit_memory {
    const void *params;
    float *grads;
    const void *tied_params;
    float *tied_grads;
    int given; /* TV_GIVEN_*: gradients that are added to; others are written over what is there */
};
/* Gradients of norms, of a unit's other weights, and of the tied weight, whichever unit lends it. */
enum { TV_GIVEN_NORMS = 1, TV_GIVEN_OTHERS = 2, TV_GIVEN_TIED = 4 };
typedef enum {
    TV_USE_FORWARD,
    TV_USE_BACKWARD,
    TV_USE_BACKWARD_INPUT, /* gives gradients of norms alone, of weights `is_for_rows` */
    TV_USE_BACKWARD_WEIGHT /* needs no weights; gives the others' */
} tv_unit_use_t;
/* Lends a unit's memory while it computes. next: the unit that
 * this pass uses next, or -1. The head is used FORWARD for the loss of an evaluation alone, and BACKWARD
 * in the input part of a backward, which is all of its own. */
struct tv_unit_store {
    void *context;
    tv_status_t (*acquire)(void *context, int unit, int next, tv_unit_use_t use,
                           struct tv_unit_memory *memory_out);
    tv_status_t (*release)(void *context, int unit, tv_unit_use_t use);
};

struct tv_model_args {
    struct tv_model_config config;
    struct tv_tensor_axis axis;  /* borrowed parts outlive the model */
    int micro_batch, seq_length; /* B, S */
    int num_chunks;
    const struct tv_model_chunk *chunks; /* [num_chunks], copied */
    tv_device_kind_t device;             /* tv_model_create takes that of the axis' stream */
    tv_recompute_t recompute;
    /* 1: no backward comes in two parts, so that working sets are free between calls. With selective
     * recomputation there is then one, in which all units take turns. */
    int is_backward_whole;
    int is_sequence_parallel; /* B S is then a multiple of T; the axis' own flags are not read */
    int is_tensor_overlapped; /* tensor/tensor.h; changes no bit */
    /* Of training, in [0, 1): of the attention's weights; of the embeddings and of what the parts
     * of a layer add to the residual stream; tensor/tensor.h. */
    double attention_dropout, hidden_dropout, label_smoothing;
    uint64_t seed; /* of the initial values and dropout masks */
    /* Calls say where documents start: the positions that embeddings and rotary take, the first keys
     * that queries see. 0: sequences are whole. */
    int resets_positions, resets_attention;
    /* Who has weights and gradients, borrowed; the model then has no flat arrays, and the store fills
     * in the initial values. NULL: the model. */
    const struct tv_unit_store *store;
    int leaves_params; /* weights stay zero: the caller fills them */
};

/* One weight's place in this rank's flat arrays; each starts at a multiple of 16 elements, gaps are
 * zero (in lent memory anything). */
struct tv_local_param {
    const struct tv_param *param; /* row of the model's table */
    int64_t first, count;         /* elements of tv_model_params / tv_model_grads */
    int unit;                     /* whose backward completes this gradient; of a tied weight with
                                   * both units here the embedding, unless the head's comes later */
    int is_copy; /* the second copy of a tied weight: its embedding unit is on another rank */
};

/* Local weights of all chunks, grouped by unit in descending unit order (the order in which backward
 * completes them), except that a tied weight with both units here comes with the embedding. */
struct tv_local_params {
    int num;
    struct tv_local_param *params; /* [num], owned */
    int64_t count;                 /* length of the flat arrays, gaps included */
};
/* Those that tv_model_create would place on each of T tensor ranks; args->axis is not read. table: of
 * args->config, borrowed by the result. */
TV_MUST_CHECK tv_status_t tv_model_place_params(const struct tv_model_args *args,
                                                const struct tv_param_table *table, int T,
                                                struct tv_local_params *params_out);
void tv_local_params_destroy(struct tv_local_params *params);

/* Weights are initialised by tv_param_init, rounded to their dtype, unless they are left. Errors: TV_INVALID,
 * TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_model_create(const struct tv_model_args *args,
                                          struct tv_model **model_out);
void tv_model_destroy(struct tv_model *model);

const struct tv_param_table *tv_model_table(const struct tv_model *model);
int tv_model_num_local_params(const struct tv_model *model);
struct tv_local_param tv_model_local_param(const struct tv_model *model, int index);
int64_t
tv_model_param_count(const struct tv_model *model); /* length of the flat arrays, gaps included */
/* [param_count] elements of the model's dtype, device memory; NULL with a store, as below */
void *tv_model_params(struct tv_model *model);
float *tv_model_grads(struct tv_model *model); /* [param_count] */
/* Gradients are those of a new step from now on, as they are at first: the first backward, or part of one, that gives
 * a weight's gradient writes it over what is there, those behind it add. So each unit's backward has to come once at
 * least before gradients are read; nothing is cleared but tables of an embedding, before its first. */
void tv_model_begin_step(struct tv_model *model);

/* Bytes that tv_model_create would ask for on each of T tensor ranks, by kind, computed without
 * making anything: for a dry run. args->axis is not read; dtype: of the kernels. Exact. */
TV_MUST_CHECK tv_status_t tv_model_memory(const struct tv_model_args *args, int T, tv_dtype_t dtype,
                                          int64_t bytes_out[TV_NUM_MEM_KINDS]);

/* Called when the gradients of a unit's weights from `branch` on have this micro-batch's share: in descending order of
 * units and, in a layer, of branches (tv_param), so that branch 0 says that all of the unit's have it. */
struct tv_unit_done {
    void *context;
    tv_status_t (*function)(void *context, int unit, int branch);
};

/* One micro-batch through one chunk. */
struct tv_model_call {
    int chunk, slot;
    int work; /* working set; not read without recomputation */
    /* Step of training, from 1, and number of the micro-batch's first sequence in the global batch:
     * with the seed they make the dropout masks, so they are the same in all calls for a
     * micro-batch. Step 0: evaluation, without dropout and label smoothing. */
    int64_t step, first_sequence;
    /* Forward: [B*S], host memory, needed by the embedding / head. Targets < 0 are not counted. */
    const int32_t *ids, *targets;
    /* Forward of any chunk of a model that resets them: [B*S], host memory; in [0, S), and as
     * tv_attention_args has them. */
    const int32_t *positions, *first_keys;
    /* [own rows, C], elements of the model's dtype. x, dx NULL when the embedding is in the chunk;
     * y, dy when the head is. x and dy must stay valid until the slot's last backward part
     * returns. */
    const void *x;  /* forward, backward, backward_input */
    void *y;        /* forward */
    const void *dy; /* all backwards */
    void *dx;       /* backward, backward_input */
    /* Written when the head is in the chunk: by the forward of an evaluation (step 0), and by
     * backward and backward_input. NULL (on all tensor ranks): not wanted, and such a forward makes no
     * loss. */
    double *loss_sum_out;
    const struct tv_unit_done *unit_done; /* backward, backward_weight; may be NULL */
};

/* All are called by all ranks of the tensor axis together. Errors: TV_INVALID: no such chunk, slot
 * or working set. */
/* Leaves nothing in the working set. */
TV_MUST_CHECK tv_status_t tv_model_forward(struct tv_model *model,
                                           const struct tv_model_call *call);
/* After the call's forward, before any other call for its slot or working set: row `row` of [0, B S)
 * of the logits, to out [vocab_size], host memory: the scores of the token that follows it. Made for
 * this row alone, gathered over the tensor axis. Errors: TV_INVALID (the head is not in the chunk, no
 * such row), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_model_read_logits(struct tv_model *model,
                                               const struct tv_model_call *call, int64_t row,
                                               float *out);
/* The gradients of input and weights, unit by unit. Leaves nothing in the working set. */
TV_MUST_CHECK tv_status_t tv_model_backward(struct tv_model *model,
                                            const struct tv_model_call *call);
/* backward in two parts, same bits: first dx (and the gradients of norm weights, which are cheap
 * beside it, and all of the head's, whose logits are gone then), then, any time later and from the
 * same slot and working set, those of matrices, biases and embeddings. To a tied weight with both
 * units here head and embedding thus add in the order of the first and of the second parts. */
TV_MUST_CHECK tv_status_t tv_model_backward_input(struct tv_model *model,
                                                  const struct tv_model_call *call);
TV_MUST_CHECK tv_status_t tv_model_backward_weight(struct tv_model *model,
                                                   const struct tv_model_call *call);

/* A part of a local weight's gradient. */
struct tv_grad_piece {
    int local; /* index of the weight */
    int64_t count;
    float *grad;
};
/* Both work on num_pieces pieces; pieces NULL: on all of the flat array. */
/* After tv_model_sync_replicated: sum of squares (double) of the gradients whose weights this rank
 * counts (each weight once over the tensor axis and the stages; not reduced over any axis). Padding
 * excluded. */
TV_MUST_CHECK tv_status_t tv_model_grad_square_sum(struct tv_model *model, int num_pieces,
                                                   const struct tv_grad_piece *pieces,
                                                   double *sum_out);
/* Sum gradients of weights that several tensor ranks hold but compute in parts: replicated kv
 * heads, one by one; under sequence parallelism norms and the biases of row matrices, in one sum.
 * Collective over the tensor axis, whose ranks pass the same pieces. */
TV_MUST_CHECK tv_status_t tv_model_sync_replicated(struct tv_model *model, int num_pieces,
                                                   const struct tv_grad_piece *pieces);
/* Of the model's own group, the tensor ranks that hold the same kv heads; zeros where it has none.
 */
struct tv_comm_stats tv_model_comm_stats(const struct tv_model *model);
TV_END_C
#endif
