/* tests/model/golden.h -- the float64 reference runs: configuration, weights, tokens, and the loss
 * and gradients of their first step. */
#ifndef TESTS_MODEL_GOLDEN_H
#define TESTS_MODEL_GOLDEN_H
#include "model/step.h"
#include <filesystem>

struct Golden {
    StepCase step;          /* the first global batch, in micro-batches of 4 sequences */
    double loss, grad_norm; /* means over the counted tokens */
    int64_t counted_tokens;
    Tensors grads;
};

/* golden/ below $TRIVET_SHARED, or below shared/ beside the source tree. */
std::filesystem::path golden_folder();
/* Throws std::runtime_error on a missing or damaged file. */
Golden read_golden(const std::filesystem::path &folder);
#endif
