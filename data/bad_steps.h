/* data/bad_steps.h -- what to do with a step whose loss or gradient norm is not finite. */
#ifndef TV_DATA_BAD_STEPS_H
#define TV_DATA_BAD_STEPS_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
/* Up to `limit` bad steps in a row are skipped; a good one starts the count again. */
struct tv_bad_steps {
    int64_t limit, in_a_row;
};
typedef enum {
    TV_STEP_TAKE, /* it is good */
    TV_STEP_SKIP, /* leave weights and optimizer as they are and go on */
    TV_STEP_STOP  /* it is bad and so were the `limit` before it */
} tv_step_verdict_t;
tv_step_verdict_t tv_bad_steps_judge(struct tv_bad_steps *bad, double loss, double grad_norm);
TV_END_C
#endif
