/* train/trainer_internal.h -- what a rank of a run is made of. */
#ifndef TV_TRAIN_TRAINER_INTERNAL_H
#define TV_TRAIN_TRAINER_INTERNAL_H
#include "data/buckets.h"
#include "data/optimizer.h"
#include "data/samples.h"
#include "model/model.h"
#include "pipeline/executor.h"
#include "train/trainer.h"

TV_BEGIN_C
struct tv_trainer {
    const struct tv_run *run; /* borrowed */
    struct tv_comm *world;    /* borrowed; in launch order */
    struct tv_mesh *mesh;
    struct tv_mesh_coord here;

    struct tv_device *device;
    struct tv_stream *stream;
    struct tv_model *model;
    struct tv_executor *executor;
    struct tv_buckets *buckets;
    struct tv_optimizer *optimizer;
    struct tv_lr_schedule lr;

    int num_buckets;
    int *bucket_last_unit; /* [num_buckets] the bucket is complete when this unit's backward is */
    int next_bucket;       /* first bucket not started in this step */

    /* The first and last stage's copies of a tied weight; NULL when there is one copy. */
    struct tv_comm *tied;
    struct tv_local_param tied_param;

    struct tv_tokens *tokens, *valid_tokens;
    struct tv_sample_order order;
    int64_t consumed;                /* samples before the current step */
    int32_t *ids, *targets, *sample; /* [B*S], [B*S], [S+1] of the micro-batch at hand */
    int64_t *sample_ids;             /* [G/D] that this replica read in this step */
    FILE *sample_log;                /* root only, or NULL */

    /* Sums over this step's micro-batches; `eval` switches the reader to the validation file. */
    int is_eval;
    double loss_sum;
    int64_t counted;

    double flops_per_token;
    double created_at, step_started_at;     /* seconds of a monotonic clock */
    double busy_seconds, pipe_wait_seconds; /* of all walks so far */
    int64_t peak_memory;                    /* of the largest rank, as of the last look */
};

/* What the model of one stage is made from; `axis` is left empty. */
struct tv_model_args tv_trainer_model_args(const struct tv_run *run, int stage);

/* setup.c: threads of this rank's kernels, and the initial weights from a Hugging Face file or folder. */
TV_MUST_CHECK tv_status_t tv_trainer_fair_threads(struct tv_trainer *tr, int *num_threads_out);
TV_MUST_CHECK tv_status_t tv_trainer_read_weights(struct tv_trainer *tr, const char *path);

/* batch.c: fill ids and targets for one micro-batch: from the training order, or the validation file. */
TV_MUST_CHECK tv_status_t tv_batch_load(struct tv_trainer *tr, int micro);
/* Micro-batches per replica that cover every sequence of the validation file. */
int tv_batch_eval_micro(const struct tv_trainer *tr);

/* stage.c: the stage functions that the executor calls. */
struct tv_stage_functions tv_trainer_stage(struct tv_trainer *tr);

/* gather.c: one safetensors folder from the pieces of all ranks: weights (scale 1) or gradients. */
TV_MUST_CHECK tv_status_t tv_trainer_write_tensors(struct tv_trainer *tr, const char *folder,
                                                   const float *flat, double scale);
TV_END_C
#endif
