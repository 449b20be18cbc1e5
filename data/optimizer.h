/* data/optimizer.h -- AdamW, SGD, Lion and Muon over a rank's own weights, and gradient clipping. */
#ifndef TV_DATA_OPTIMIZER_H
#define TV_DATA_OPTIMIZER_H
#include "base/param.h"
#include "kernels/kernels.h"
#include "mesh/comm.h"

TV_BEGIN_C
/* All of them decay weights apart from the gradient (Loshchilov, Hutter 2019), g = grad * grad_scale:
 *   adam  AdamW, kernels.h
 *   sgd   m = momentum m + g; p -= lr (m + weight_decay p)
 *   lion  Chen et al. 2023, kernels.h
 *   muon  Jordan et al. 2024 (kellerjordan.github.io/posts/muon), data/muon.c, for the matrices of
 *         layers; AdamW for everything else: embeddings, head, norms, biases */
typedef enum {
    TV_OPTIMIZER_ADAM,
    TV_OPTIMIZER_SGD,
    TV_OPTIMIZER_LION,
    TV_OPTIMIZER_MUON
} tv_optimizer_kind_t;
/* "adam", "sgd", "lion", "muon". Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_optimizer_kind_parse(const char *word, tv_optimizer_kind_t *kind_out);

struct tv_optimizer_config {
    tv_optimizer_kind_t kind;
    double beta1, beta2; /* adam, lion, muon's rest */
    double eps;          /* adam, muon's rest */
    double momentum;     /* sgd, muon */
    double weight_decay;
};

/* Weights that may have a learning rate of their own. */
enum { TV_LR_BODY, TV_LR_VOCABULARY, TV_NUM_LR_GROUPS };

/* Weights with one rule, and where their first element lies in the arrays given to each step and in
 * the optimizer's state: the arrays of weights, gradients and state may be of different extents. */
struct tv_optimizer_range {
    int64_t param, grad, state;
    int64_t count;
    int has_decay;
    int lr_group;
    /* muon: this range is a piece of that matrix of a layer; borrowed. NULL: anything else. */
    const struct tv_param *matrix;
    int64_t rounded; /* in an array of bf16 */
};

struct tv_optimizer_args {
    struct tv_stream *stream;         /* borrowed */
    const struct tv_kernels *kernels; /* borrowed */
    struct tv_comm *tensor;           /* muon: the tensor axis; borrowed, NULL for the others */
    struct tv_optimizer_config config;
    int64_t count; /* of the state */
    int num_ranges;
    const struct tv_optimizer_range *ranges; /* ascending in the state; copied */
};
struct tv_optimizer; /* opaque: owns the state, zero at the start */
TV_MUST_CHECK tv_status_t tv_optimizer_create(const struct tv_optimizer_args *args,
                                              struct tv_optimizer **optimizer_out);
void tv_optimizer_destroy(struct tv_optimizer *optimizer);
/* One step over the ranges of params given those of grads, scaled by grad_scale; the ranges of rounded
 * then are the bf16 of those of params; NULL: none are wanted. lr [TV_NUM_LR_GROUPS]. step counts from
 * 1, the updates made so far included. muon: collective over the tensor axis. */
TV_MUST_CHECK tv_status_t tv_optimizer_step(struct tv_optimizer *optimizer, float *params,
                                            void *rounded, const float *grads, const double *lr,
                                            double grad_scale, int64_t step);
/* State of a range, [range's count], device memory: moment 0, or the second moment 1; NULL where this
 * optimizer has none. */
float *tv_optimizer_moment(struct tv_optimizer *optimizer, int range, int moment);

/* Bytes that tv_optimizer_create asks for: state of `count` weights, of which muon takes `matrices`,
 * cut over T tensor ranks; and room to work in. */
int64_t tv_optimizer_state_bytes(tv_optimizer_kind_t kind, int64_t count, int T, int num_matrices,
                                 const struct tv_param *const *matrices);
int64_t tv_optimizer_work_bytes(tv_optimizer_kind_t kind, int T, int num_matrices,
                                const struct tv_param *const *matrices);

/* The factor that clipping multiplies gradients with: max_norm / (norm + 1e-6) when below 1, else
 * 1; max_norm 0: 1. */
double tv_clip_factor(double norm, double max_norm);
TV_END_C
#endif
