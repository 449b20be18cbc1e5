/* tests/model/step.h -- forward and backward of several micro-batches through a whole model, cut
 * over T tensor ranks (threads) and, within each rank, over any number of chunks of any number of
 * stages.
 *
 * On the way the harness checks what must hold on every mesh: losses, activations between chunks
 * (where every rank has all rows) and gradients of replicated weights are the same bits on all
 * ranks that have them, gradients of padding rows are zero, and forward and backward ask for no
 * memory. */
#ifndef TESTS_MODEL_STEP_H
#define TESTS_MODEL_STEP_H
#include "model/model.h"
#include <map>
#include <string>
#include <vector>

using Tensors = std::map<std::string, std::vector<float>>; /* by Hugging Face name */

struct StepCase {
    struct tv_model_config config;
    int micro_batch, seq_length;
    std::vector<int32_t> ids, targets; /* [micro-batches, B, S] */
    /* As ids, or empty: not reset. */
    std::vector<int32_t> positions, first_keys;
    Tensors weights; /* whole tensors */
    const struct tv_kernels *kernels;
    int T = 1;
    int is_sequence_parallel = 0, is_tensor_overlapped = 0;
    std::vector<int> first_units = {0}; /* of each chunk, ascending */
    std::vector<int> stages;            /* of each chunk; empty: each has a stage of its own */
    tv_recompute_t recompute = TV_RECOMPUTE_NONE;
    int64_t step = 0; /* of training; 0: no dropout, no label smoothing */
    double attention_dropout = 0, hidden_dropout = 0, label_smoothing = 0;
    int64_t first_sequence = 0; /* of the first micro-batch in the global batch */
    bool is_lent = false;       /* weights and gradients come from a store */
    int weight_delay = -1;      /* input part of m, then weight part of m - delay; -1: not split */
};

struct StepResult {
    double loss_sum = 0, grad_square_sum = 0;
    int64_t sent_bytes = 0;        /* by rank 0 over the tensor axis, forward to sum of gradients */
    int64_t num_gradient_sums = 0; /* of them for gradients of norms and biases */
    Tensors grads;                 /* whole tensors, true vocabulary */
    std::vector<std::vector<float>> outputs; /* all rows of what goes from chunk to chunk */
};

/* Reports failures to GoogleTest; the result is only good without any. */
StepResult run_step(const StepCase &step);

/* Sizes of tests: 8 heads (4 of them kv heads for Llama) of 4 channels, vocabulary 37. */
struct tv_model_config small_gpt2();
struct tv_model_config small_llama();
/* Norm weights around 1, all others around 0: each name and place its own number. */
Tensors some_weights(const struct tv_model_config &config, double scale);
/* Sequences of several documents: an id that is a multiple of 5 ends one. */
void reset_documents(StepCase *step);
/* Two micro-batches of the config's whole context, B = 2, some targets not counted. */
StepCase some_step(const struct tv_model_config &config);

bool is_same_bits(const std::vector<float> &a, const std::vector<float> &b);
/* Norm of the difference over the norm of `want`; of the difference alone where want is zero. */
double relative_difference(const std::vector<float> &got, const std::vector<float> &want);
#endif
