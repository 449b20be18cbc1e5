/* train/run.h -- a training run with every default filled in and every check made that needs no rank: what the flags
 * mean. */
#ifndef TV_TRAIN_RUN_H
#define TV_TRAIN_RUN_H
#include "mesh/mesh.h"
#include "model/model.h"
#include "pipeline/partition.h"
#include "pipeline/schedule.h"
#include "train/tokens.h"
#include "train/train_options.h"

TV_BEGIN_C
struct tv_run {
    struct tv_train_options options; /* as given, with a schedule; owned by the caller */
    struct tv_mesh_coord extent;
    struct tv_model_config model;
    tv_device_kind_t device_kind;
    tv_tokens_format_t data_format;
    int64_t seq_length, micro_batch, global_batch, train_iters, decay_iters;
    int num_micro; /* micro-batches per step and replica, m */
    int shuffle;
    int num_chunks; /* pieces of the model per stage, v */
    tv_recompute_t recompute;
    struct tv_schedule schedule;  /* owned, checked */
    struct tv_unit_range *pieces; /* [P v] units by position; owned */
    int has_split;                /* pieces are filled: --partition profile waits for the ranks */
};

/* num_ranks: size of the world; for a dry run without a launcher 0: whatever the mesh needs. Reads --config (or the
 * config.json of --init-from) from disk. Errors: TV_INVALID, TV_UNSUPPORTED, TV_BAD_FILE, with the flag, the value and
 * what would work. */
TV_MUST_CHECK tv_status_t tv_run_resolve(const struct tv_train_options *options, int num_ranks,
                                         struct tv_run *run_out);
void tv_run_free(struct tv_run *run);

/* The stage that holds a unit. */
int tv_run_stage_of_unit(const struct tv_run *run, int unit);
/* What the model of one stage is made from; `axis` is left empty. chunks [v]: room that the result points to. */
struct tv_model_args tv_run_model_args(const struct tv_run *run, int stage,
                                       struct tv_model_chunk *chunks);
/* Elements of a message between two stages: B S C, and 1/T of that under sequence parallelism. */
int64_t tv_run_message_count(const struct tv_run *run);
TV_END_C
#endif
