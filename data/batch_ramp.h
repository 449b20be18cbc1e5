/* data/batch_ramp.h -- a global batch that grows with the samples consumed (Megatron-LM's
 * --rampup-batch-size). */
#ifndef TV_DATA_BATCH_RAMP_H
#define TV_DATA_BATCH_RAMP_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
/* From `start` by `increment` up to `final`, in equal parts of the first `samples` samples.
 * increment 0: always `final`. */
struct tv_batch_ramp {
    int64_t start, increment, samples, final;
};
/* "START,INCREMENT,SAMPLES", with commas or blanks, towards a final batch. `grain`: what every batch
 * must be a multiple of, B x D. Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_batch_ramp_parse(const char *text, int64_t final, int64_t grain,
                                              struct tv_batch_ramp *ramp_out);
/* Different batches on the way, the final one included; batch i of them. */
int64_t tv_batch_ramp_num(const struct tv_batch_ramp *ramp);
int64_t tv_batch_ramp_batch(const struct tv_batch_ramp *ramp, int64_t i);
/* The batch of the step before which `consumed` samples were read. */
int64_t tv_batch_ramp_at(const struct tv_batch_ramp *ramp, int64_t consumed);
TV_END_C
#endif
