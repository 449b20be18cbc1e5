/* data/bad_steps.c -- counts bad steps in a row. */
#include "data/bad_steps.h"
#include <math.h>

tv_step_verdict_t tv_bad_steps_judge(struct tv_bad_steps *bad, double loss, double grad_norm)
{
    if (isfinite(loss) && isfinite(grad_norm)) {
        bad->in_a_row = 0;
        return TV_STEP_TAKE;
    }
    bad->in_a_row++;
    return bad->in_a_row <= bad->limit ? TV_STEP_SKIP : TV_STEP_STOP;
}
