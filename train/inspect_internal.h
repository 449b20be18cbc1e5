/* train/inspect_internal.h -- what the kinds of tv_inspect share. */
#ifndef TV_TRAIN_INSPECT_INTERNAL_H
#define TV_TRAIN_INSPECT_INTERNAL_H
#include "model/config.h"
#include "train/inspect.h"

TV_BEGIN_C
enum { TV_INSPECT_BLOCK = 1 << 20 }; /* numbers that are in memory at once */

/* Of the numbers of one tensor. Zeroed: of none. */
struct tv_inspect_numbers {
    int64_t finite, nonfinite;
    double square_sum, largest;
};
void tv_inspect_count(const float *block, int64_t count, struct tv_inspect_numbers *numbers);
/* Adds "rms", "largest" and "nonfinite" to a tensor's entry. */
void tv_inspect_describe_numbers(const struct tv_inspect_numbers *numbers, struct json_t *entry);
/* Adds "family", "layers" ... to a report. */
void tv_inspect_describe_config(const struct tv_model_config *config, struct json_t *report);

/* Whatever a path means; fills the report. */
TV_MUST_CHECK tv_status_t tv_inspect_safetensors(const struct tv_inspect_options *options,
                                                 struct json_t *report);
TV_MUST_CHECK tv_status_t tv_inspect_checkpoint(const struct tv_inspect_options *options,
                                                struct json_t *report);
TV_END_C
#endif
