/* model/model.h -- a range of the model's units on one rank: parameters, activations, forward and
 * backward.
 *
 * Tokens are [B, S] of one micro-batch; activations [B*S, C] enter and leave whole, the same on
 * every tensor rank; a slot holds what one micro-batch keeps from its forward to its backward. The
 * first unit (embedding) reads ids, the last (head) computes the loss: the sum over counted
 * targets, never divided here.
 *
 * Gradients are those of that sum, added over micro-batches. A tied weight whose two units are both
 * here is one local tensor (head's gradient is added before the embedding's, both in backward); on
 * two stages each has its own copy, and the caller sums their gradients over the pipe axis. */
#ifndef TV_MODEL_MODEL_H
#define TV_MODEL_MODEL_H
#include "model/config.h"
#include "tensor/tensor.h"

TV_BEGIN_C
struct tv_model; /* opaque: owns parameters, gradients, slots */

struct tv_model_args {
    struct tv_model_config config;
    struct tv_tensor_axis axis;  /* borrowed parts outlive the model */
    int micro_batch, seq_length; /* B, S */
    int first_unit, num_units;   /* units held here */
    int num_slots;               /* micro-batches in flight */
    uint64_t seed;               /* of the initial values */
};

/* One weight's place in this rank's flat arrays; each starts at a multiple of 16 elements, gaps are
 * zero. */
struct tv_local_param {
    const struct tv_param *param; /* row of the model's table */
    int64_t first, count;         /* elements of tv_model_params / tv_model_grads */
    int unit;                     /* whose backward completes this gradient */
    int is_copy; /* the second copy of a tied weight: its embedding unit is on another rank */
};

/* Weights are initialised by tv_param_init. Errors: TV_INVALID, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_model_create(const struct tv_model_args *args,
                                          struct tv_model **model_out);
void tv_model_destroy(struct tv_model *model);

const struct tv_param_table *tv_model_table(const struct tv_model *model);
/* Local weights, grouped by unit in descending unit order (the order in which backward completes
 * them), except that a tied weight with both units here comes with the embedding. */
int tv_model_num_local_params(const struct tv_model *model);
struct tv_local_param tv_model_local_param(const struct tv_model *model, int index);
int64_t
tv_model_param_count(const struct tv_model *model); /* length of the flat arrays, gaps included */
float *tv_model_params(struct tv_model *model);     /* [param_count], device memory */
float *tv_model_grads(struct tv_model *model);      /* [param_count] */
TV_MUST_CHECK tv_status_t tv_model_zero_grads(struct tv_model *model);

/* Bytes that tv_model_create would ask for on each of T tensor ranks, by kind, computed without
 * making anything: for a dry run. args->axis is not read. Exact. */
TV_MUST_CHECK tv_status_t tv_model_memory(const struct tv_model_args *args, int T,
                                          int64_t bytes_out[TV_NUM_MEM_KINDS]);

/* Called after a unit's backward is complete (its gradients have this micro-batch's share). */
struct tv_unit_done {
    void *context;
    tv_status_t (*function)(void *context, int unit);
};

/* ids, targets [B*S] int32, host memory, needed by the embedding / head; NULL elsewhere. x [B*S, C]
 * NULL when the embedding is here; y NULL when the head is here. x must stay valid until the slot's
 * backward. loss_sum_out is written when the head is here. Targets < 0 are not counted. Called by
 * all ranks of the tensor axis together. */
TV_MUST_CHECK tv_status_t tv_model_forward(struct tv_model *model, int slot, const int32_t *ids,
                                           const int32_t *targets, const float *x, float *y,
                                           double *loss_sum_out);
/* dy NULL when the head is here, dx NULL when the embedding is here. */
TV_MUST_CHECK tv_status_t tv_model_backward(struct tv_model *model, int slot, const float *x,
                                            const float *dy, float *dx,
                                            const struct tv_unit_done *unit_done);

/* Sum of squares (double) of the gradients whose weights this rank counts (each weight once over
 * the tensor axis and the stages; not reduced over any axis). Padding excluded. */
TV_MUST_CHECK tv_status_t tv_model_grad_square_sum(struct tv_model *model, double *sum_out);
/* Sum gradients of weights that several tensor ranks hold but compute in parts (replicated kv
 * heads). Collective over the tensor axis. */
TV_MUST_CHECK tv_status_t tv_model_sync_replicated(struct tv_model *model);
TV_END_C
#endif
