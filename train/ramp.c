/* train/ramp.c -- --rampup-batch-size: another batch is another number of micro-batches, so another schedule. Room for
 * the largest of them was made at the start (run_pipeline.c). */
#include "train/trainer_internal.h"

tv_status_t tv_trainer_fit_batch(struct tv_trainer *tr)
{
    const struct tv_run *run = tr->run;
    const int64_t batch = tv_batch_ramp_at(&run->ramp, tr->consumed);
    if (batch == tr->global_batch)
        return TV_OK;
    const int num_micro = (int)(batch / (run->micro_batch * run->extent.at[TV_DATA]));
    tv_executor_destroy(tr->executor);
    tr->executor = NULL;
    tv_schedule_destroy(&tr->smaller_schedule);
    tr->schedule = &run->schedule;
    if (num_micro != run->num_micro) {
        int first_failed;
        const tv_status_t status =
            tv_trainer_own(tr, tv_run_build_schedule(run, num_micro, &tr->smaller_schedule));
        TV_TRY(tv_comm_agree(tv_mesh_comm(tr->mesh, TV_PIPE), status, &first_failed));
        tr->schedule = &tr->smaller_schedule;
    }
    tr->global_batch = batch;
    tr->peak_memory = 0; /* to be looked at again */
    return tv_executor_create(tv_mesh_comm(tr->mesh, TV_PIPE), tr->stream, tr->schedule,
                              tv_run_message_count(run), run->dtype, &tr->executor);
}
