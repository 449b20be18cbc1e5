/* train/checkpoint.h -- checkpoints that fit any mesh: when a run writes them, and how it goes on from one.
 *
 *   DIR/step-00000100/shard-00003.safetensors   what one rank wrote: its pieces of the tensors below
 *                     state.json                step, consumed samples, flags, model
 *                     index.json                which shard holds which piece of which tensor, hashes; written last
 *
 * Weights, masters and moments are logical tensors under Hugging Face names, so that another mesh, schedule or ZeRO
 * stage finds its own pieces in them. A folder is written under a temporary name, synced and renamed: what has the name
 * of a step was written to its end. docs/checkpoints.md has the format. */
#ifndef TV_TRAIN_CHECKPOINT_H
#define TV_TRAIN_CHECKPOINT_H
#include "mesh/comm.h"
#include "train/train_options.h"

TV_BEGIN_C
struct tv_trainer; /* train/trainer.h */

/* ---- saving: all functions are called by all ranks of the mesh together, between two steps ---- */

/* Write what training has reached after `step` to --save. Without --save, or where that step is there already (the
 * run was loaded from it, or has just saved it): nothing. Waits for an earlier save that is still being written.
 * --save-async: takes a copy and returns; else the checkpoint is complete on disk when it returns.
 * Errors: TV_IO (a full disk...), the same on all ranks: older checkpoints stay, the new one has no name. TV_PEER. */
TV_MUST_CHECK tv_status_t tv_checkpoint_save(struct tv_trainer *trainer, int64_t step);
/* Has a save ended since the last call? *step_out: its step, or 0. Errors: those of the save. */
TV_MUST_CHECK tv_status_t tv_checkpoint_poll(struct tv_trainer *trainer, int64_t *step_out);
/* The same, waiting for the save that is being written, if one is. After it nothing is in flight. */
TV_MUST_CHECK tv_status_t tv_checkpoint_finish(struct tv_trainer *trainer, int64_t *step_out);
/* DIR/step-00000100, as the metrics file names it. */
void tv_checkpoint_path(const char *folder, int64_t step, char *path_out, size_t bytes);

/* ---- loading ---- */

struct tv_checkpoint; /* opaque: a checkpoint that was found to be whole */

/* What the caller wants to know of a checkpoint once its texts are read and before its shards are, which may take long:
 * whether the run's flags fit it. Called for each that is tried, on every rank, with the same verdict on all; one that
 * is not TV_OK ends the search. What it keeps of an earlier one is void when it is called again. */
struct tv_checkpoint_trial {
    tv_status_t (*check)(void *context, struct tv_checkpoint *checkpoint); /* NULL: nothing */
    void *context;
};

/* The checkpoint that --load means, *checkpoint_out NULL: none, a fresh start. Reads every byte of it once, shards
 * divided over the ranks; rank 0 names those that it passes over, and why. Collective over world; every rank returns
 * the same. Errors: TV_INVALID (--load auto without --save...), TV_BAD_FILE (nothing that can be loaded), TV_PEER;
 * those of the trial. */
TV_MUST_CHECK tv_status_t tv_checkpoint_find(struct tv_comm *world,
                                             const struct tv_train_options *options,
                                             struct tv_checkpoint_trial trial,
                                             struct tv_checkpoint **checkpoint_out);
void tv_checkpoint_close(struct tv_checkpoint *checkpoint); /* NULL is a no-op */
/* Flags of the run that wrote it, where this one does not give its own: those that say what is trained, not where.
 * `options` borrows from the checkpoint. Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_checkpoint_inherit(const struct tv_checkpoint *checkpoint,
                                                struct tv_train_options *options);
TV_END_C
#endif
