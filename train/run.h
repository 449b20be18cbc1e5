/* train/run.h -- a training run with every default filled in and every check made that needs no rank: what the flags
 * mean. */
#ifndef TV_TRAIN_RUN_H
#define TV_TRAIN_RUN_H
#include "data/batch_ramp.h"
#include "data/learning_rate.h"
#include "data/optimizer.h"
#include "kernels/timed.h"
#include "mesh/mesh.h"
#include "model/model.h"
#include "pipeline/partition.h"
#include "pipeline/schedule.h"
#include "train/tokens.h"
#include "train/train_options.h"

TV_BEGIN_C
/* How long each sort of unit takes on a rank (train/profile.h). */
struct tv_unit_times {
    double forward, backward_input, backward_weight; /* seconds of one micro-batch */
};
enum tv_unit_sort { TV_UNIT_EMBEDDING, TV_UNIT_LAYER, TV_UNIT_HEAD, TV_NUM_UNIT_SORTS };
struct tv_profile {
    struct tv_unit_times of[TV_NUM_UNIT_SORTS];
    int num_threads; /* of each rank while it was measured; 0: unknown */
};

struct tv_checkpoint;
struct tv_run_place;

/* How device memory moves: NCCL where each rank has a GPU of its own, NCCL, or through the host. */
typedef enum { TV_MOVE_AUTO, TV_MOVE_NCCL, TV_MOVE_HOST } tv_move_t;

struct tv_run {
    struct tv_train_options options; /* as given, with a schedule; owned by the caller */
    struct tv_mesh_coord extent;
    struct tv_model_config model;
    tv_device_kind_t device_kind;
    tv_move_t move;                 /* --comm */
    tv_tokens_format_t data_format; /* text when all of --data is; else of the first that is not */
    int64_t seq_length, micro_batch, global_batch, train_iters, decay_iters;
    int is_bound; /* --bind auto */
    struct tv_optimizer_config optimizer;
    struct tv_lr_schedule lr[TV_NUM_LR_GROUPS];
    struct tv_batch_ramp ramp; /* ends at global_batch */
    int num_micro;             /* micro-batches per step and replica, m; the most with a ramp */
    int shuffle;
    int zero_stage;        /* 0 where there is nobody to share with */
    int zero_group;        /* replicas that share, consecutive ones; 1 at stage 0; train/zero.h */
    tv_dtype_t dtype;      /* --precision: of weights, activations and their messages */
    int uses_tf32;         /* --precision tf32: GPUs round the factors of fp32 products */
    tv_dtype_t grad_dtype; /* of gradients on the data axis; fp32 where there is one replica */
    int num_chunks;        /* pieces of the model per stage, v */
    tv_recompute_t recompute;
    struct tv_schedule schedule; /* owned, checked; of num_micro micro-batches */
    /* What the schedules of all batches of the ramp need: by stage * v + chunk [P v], by stage [P]; owned. */
    int *chunk_slots, *chunk_works;
    int *stage_splits; /* [P], owned: some backward comes in two parts */
    int64_t *message_bytes;
    struct tv_unit_range *pieces; /* [P v] units by position; owned */
    int has_split;                /* pieces are filled: --partition profile waits for the ranks */
    int has_profile;              /* the split was made from it */
    struct tv_profile profile;
    struct tv_kernel_times
        *kernel_times; /* what kernels are counted in; borrowed; NULL: they are not */
    struct tv_checkpoint *checkpoint; /* to go on from, borrowed (train/checkpoint.h); or NULL */
    struct tv_run_place *place;       /* train/place.h; NULL until the ranks have found it; owned */
};

/* num_ranks: size of the world; for a dry run without a launcher 0: whatever the mesh needs. Reads --config (or the
 * config.json of --init-from) from disk. Errors: TV_INVALID, TV_UNSUPPORTED, TV_BAD_FILE, with the flag, the value and
 * what would work. */
TV_MUST_CHECK tv_status_t tv_run_resolve(const struct tv_train_options *options, int num_ranks,
                                         struct tv_run *run_out);
void tv_run_free(struct tv_run *run);

/* The schedule of a batch of the ramp. Errors: those of tv_schedule_build. */
TV_MUST_CHECK tv_status_t tv_run_build_schedule(const struct tv_run *run, int num_micro,
                                                struct tv_schedule *schedule_out);
/* The stage that holds a unit. */
int tv_run_stage_of_unit(const struct tv_run *run, int unit);
/* What a model of the run with these chunks is made from; `axis` is left empty. */
struct tv_model_args tv_run_args_of(const struct tv_run *run, int num_chunks,
                                    const struct tv_model_chunk *chunks);
/* The same for one stage. chunks [v]: room that the result points to. */
struct tv_model_args tv_run_model_args(const struct tv_run *run, int stage,
                                       struct tv_model_chunk *chunks);
/* Does the optimizer treat this weight as a whole matrix (muon: the matrices of layers)? */
int tv_run_is_matrix(const struct tv_run *run, const struct tv_param *param);
/* "fp32", "bf16". */
const char *tv_precision_name(tv_dtype_t dtype);
/* Elements of a message between two stages: B S C, and 1/T of that under sequence parallelism. */
int64_t tv_run_message_count(const struct tv_run *run);
/* Of a rank's stream of kernels: tv_stream_reserve. */
int64_t tv_run_workspace_bytes(const struct tv_run *run);
TV_END_C
#endif
