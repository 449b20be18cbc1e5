/* train/loop.h -- from the first step to the last: what `trivet train` does once the ranks are there. */
#ifndef TV_TRAIN_LOOP_H
#define TV_TRAIN_LOOP_H
#include "mesh/comm.h"
#include "train/run.h"
#include "train/trainer.h"

TV_BEGIN_C
/* Places the ranks, splits the model where --partition profile left it to them, and builds the trainer. Every rank
 * returns the same status, or TV_PEER. Collective over world. */
TV_MUST_CHECK tv_status_t tv_train_prepare(struct tv_comm *world, struct tv_run *run,
                                           struct tv_trainer **trainer_out);
/* Prepares; trains, evaluates, exports, writes metrics and talks
 * to the terminal (root only). is_common_out: 1 when every rank returns the same failure, so that nobody needs to end
 * the job. Collective over world. */
TV_MUST_CHECK tv_status_t tv_train_loop(struct tv_comm *world, struct tv_run *run,
                                        int *is_common_out);
TV_END_C
#endif
