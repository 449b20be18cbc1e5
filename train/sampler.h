/* train/sampler.h -- one id out of the scores of all: temperature, top-k, top-p.
 *
 * Ids stand in the order of their scores, equal ones by their number. With temperature t > 0 the
 * weight of an id is exp((score - highest) / t) in double; of the first top_k (0: all) those stay
 * that make up the shortest start with at least the share top_p of their weights (Holtzman et al.
 * 2020), and one of these is drawn in proportion to its weight: the first whose running sum is above
 * u times the sum of all, u in [0, 1) being a function of (seed, stream, index). Temperature 0 takes
 * the first. */
#ifndef TV_TRAIN_SAMPLER_H
#define TV_TRAIN_SAMPLER_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
struct tv_sampler_args {
    double temperature; /* >= 0 */
    int64_t top_k;      /* 0: all */
    double top_p;       /* in (0, 1] */
    uint64_t seed;
    int64_t stream; /* of several samples of one seed */
};
/* An id, its score, and its weight when it stays. */
struct tv_candidate {
    int32_t id;
    float score;
    double weight;
};
/* scores [num]; room [num]; index: of the draw, from 0. Errors: TV_NUMERIC (a score is not a number,
 * or the highest is infinite). */
TV_MUST_CHECK tv_status_t tv_sample(const struct tv_sampler_args *args, int64_t index,
                                    const float *scores, int64_t num, struct tv_candidate *room,
                                    int32_t *id_out);
TV_END_C
#endif
