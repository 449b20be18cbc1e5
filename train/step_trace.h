/* train/step_trace.h -- `trivet train --trace`: steps of a run in Chrome's trace format, a process per rank, all on
 * one clock. The functions are called by all ranks of the mesh together; rank 0 writes. */
#ifndef TV_TRAIN_STEP_TRACE_H
#define TV_TRAIN_STEP_TRACE_H
#include "train/trainer.h"

TV_BEGIN_C
struct tv_step_trace; /* opaque */
/* trainer: borrowed. Errors: TV_INVALID (the file), TV_NO_MEMORY: on one rank alone. */
TV_MUST_CHECK tv_status_t tv_step_trace_open(struct tv_trainer *trainer, const char *path,
                                             struct tv_step_trace **trace_out);
/* Before a step that is to be added: from the first on the GPU's streams are timed. */
TV_MUST_CHECK tv_status_t tv_step_trace_begin(struct tv_step_trace *trace);
/* Behind the last step: what ran on GPUs, by their own clocks. Errors: TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_step_trace_finish(struct tv_step_trace *trace);
/* The step that was just trained. Errors: TV_PEER. */
TV_MUST_CHECK tv_status_t tv_step_trace_add(struct tv_step_trace *trace, int64_t step);
/* NULL is a no-op. Errors: TV_IO, of all that was written. */
TV_MUST_CHECK tv_status_t tv_step_trace_close(struct tv_step_trace *trace);
TV_END_C
#endif
