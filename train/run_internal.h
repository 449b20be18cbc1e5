/* train/run_internal.h -- the parts of tv_run_resolve. */
#ifndef TV_TRAIN_RUN_INTERNAL_H
#define TV_TRAIN_RUN_INTERNAL_H
#include "train/run.h"

TV_BEGIN_C
/* run_model.c: the model from its flags or its config.json; needs options, extent and data_format. */
TV_MUST_CHECK tv_status_t tv_run_resolve_model(struct tv_run *run);
/* run.c: sizes of the batch; needs the model. */
TV_MUST_CHECK tv_status_t tv_run_resolve_batch(struct tv_run *run);
/* run_optimizer.c: the update rule and the learning rates, once the number of steps is known. */
TV_MUST_CHECK tv_status_t tv_run_resolve_optimizer(struct tv_run *run);
/* run_pipeline.c: schedule, chunks, recomputation and split, once model, mesh and batch are known. */
TV_MUST_CHECK tv_status_t tv_run_resolve_pipeline(struct tv_run *run);
TV_END_C
#endif
