/* train/trainer_internal.h -- what a rank of a run is made of. */
#ifndef TV_TRAIN_TRAINER_INTERNAL_H
#define TV_TRAIN_TRAINER_INTERNAL_H
#include "data/bad_steps.h"
#include "data/buckets.h"
#include "data/optimizer.h"
#include "data/samples.h"
#include "model/model.h"
#include "pipeline/executor.h"
#include "train/corpus.h"
#include "train/store.h"
#include "train/trainer.h"
#include "train/zero.h"

TV_BEGIN_C
/* Where a rank's time went, in seconds. window: the pipeline's, from the first rank's start to the last one's end; it
 * is warm-up, busy, wait and drain. wait: between the first action and the last, for messages or for a core. */
struct tv_rank_time {
    double window, busy, warmup, wait, drain;
    double steps, optimizer; /* whole steps; their optimizer */
};

/* Sums over the walks so far of one chunk's actions by kind. */
struct tv_action_costs {
    double seconds[TV_ACT_BACKWARD_WEIGHT + 1];
    int64_t count[TV_ACT_BACKWARD_WEIGHT + 1];
};

/* What a step does behind the walk. */
enum { TV_PHASE_GRADIENTS, TV_PHASE_SUMS, TV_PHASE_OPTIMIZER, TV_NUM_PHASES };

struct tv_saver;

struct tv_trainer {
    const struct tv_run *run; /* borrowed */
    struct tv_comm *world;    /* borrowed; in launch order */
    struct tv_mesh *mesh;
    struct tv_mesh_coord here;

    struct tv_device *device;
    struct tv_stream *stream;
    struct tv_model *model;
    struct tv_zero_groups zero;
    struct tv_sharding sharding;
    struct tv_store *store; /* has weights and gradients from ZeRO stage 2 on, else NULL */
    struct tv_stored_weights weights; /* this rank's, which the model computes with */
    /* fp32, of this rank: weights that the optimizer updates, and their gradients. params are the weights themselves,
     * or where those are bf16 their masters, of what this rank owns: tv_trainer_publish_params rounds them. Files,
     * and whoever else wants the values of weights, read and write params. */
    struct tv_weight_array params, grads;
    struct tv_buffer masters;          /* what params are in then */
    struct tv_grad_piece *grad_pieces; /* [sharding.num_pieces] of what it owns */
    /* Of the current batch, which grows with --rampup-batch-size. */
    int64_t global_batch;
    const struct tv_schedule *schedule;  /* the run's, or the one below */
    struct tv_schedule smaller_schedule; /* owned */
    struct tv_executor *executor;
    struct tv_buckets *buckets;
    struct tv_optimizer *optimizer;
    struct tv_bad_steps bad_steps;
    struct tv_saver *saver; /* --save, or NULL; train/checkpoint.h */
    int64_t num_updates;    /* steps so far that were not skipped */

    unsigned char *
        branches_done; /* [L + 2] bit b: the unit's gradients of this step from branch b on are complete */

    int embedding_stage, head_stage;
    /* The copies of a tied weight on those two stages; NULL when there is one copy. */
    struct tv_comm *tied;
    int tied_local; /* index of the weight */

    struct tv_corpus *data;
    int num_valid;
    struct tv_corpus *valid[TV_OPTION_LIST_MAX], *evaluated; /* the one that is read now */
    int64_t consumed;                                        /* samples before the current step */
    int32_t *ids, *targets, *sample; /* [B*S], [B*S], [S+1] of the micro-batch at hand */
    int32_t *positions, *first_keys; /* [B*S]: where its documents start */
    int64_t *sample_ids;             /* [G/D] that this replica read in this step */
    FILE *sample_log;                /* root only, or NULL */

    int64_t step; /* of training, from 1; 0 while validation files are read */
    /* Sums over this step's micro-batches. */
    double loss_sum;
    int64_t counted;

    double flops_per_token;
    double created_at, step_started_at;          /* seconds of a monotonic clock */
    double clock_offset;                         /* to rank 0's clock */
    struct tv_rank_time time;                    /* of all steps so far */
    double settled_window;                       /* sum of all steps' windows but the first's */
    struct tv_action_time phases[TV_NUM_PHASES]; /* of the last step */
    struct tv_action_costs *costs;               /* [v] what this rank's actions took so far */
    int64_t num_walks;
    double compute_seconds;              /* of the last walk, without waits for other ranks */
    double window_started;               /* of the last step, on rank 0's clock */
    int64_t peak_memory;                 /* of the largest rank, as of the last look */
    struct tv_rank_account account;      /* of this step, or the counters before it */
    double exposed_sum[TV_NUM_ACCOUNTS]; /* of all steps so far */
    double *account_rows;                /* of all ranks, as of the last look */
};

/* trainer.c: the device's kernels of a dtype, or a table around them that counts in run->kernel_times. */
TV_MUST_CHECK tv_status_t tv_trainer_kernels(const struct tv_trainer *tr, tv_dtype_t dtype,
                                             const struct tv_kernels **kernels_out);

/* setup.c: the initial weights, from a Hugging Face file or folder, or of the seed (path NULL). */
TV_MUST_CHECK tv_status_t tv_trainer_fill_weights(struct tv_trainer *tr, const char *path);

/* setup.c: after params have changed: the stored weights of what this rank owns, then of all it computes with. The
 * optimizer does the first part itself. Collective over the data axis. */
TV_MUST_CHECK tv_status_t tv_trainer_publish_params(struct tv_trainer *tr);
TV_MUST_CHECK tv_status_t tv_trainer_gather_weights(struct tv_trainer *tr);

/* ramp.c: schedule and executor of the next step's batch; nothing to do where it is the last one's. Collective over
 * the pipe axis. */
TV_MUST_CHECK tv_status_t tv_trainer_fit_batch(struct tv_trainer *tr);
/* The status as it is. Where this rank has run out of memory, its sentence then says which rank that is and what is in
 * use; one that begins with a rank or a stage is another's, which has said so. */
TV_MUST_CHECK tv_status_t tv_trainer_own(const struct tv_trainer *tr, tv_status_t status);

/* measure.c: the pipeline's window of this walk on rank 0's clock, begin and end, and the wish to stop that any rank
 * has (collective over the mesh); this rank's share of the window by cause; and the addition of it, and of each
 * action's time, to what is known so far. */
TV_MUST_CHECK tv_status_t tv_trainer_window(struct tv_trainer *tr,
                                            const struct tv_executor_report *walk,
                                            double window_out[2], tv_stop_t *stop_out);
struct tv_rank_time tv_trainer_walk_time(const struct tv_trainer *tr,
                                         const struct tv_executor_report *walk,
                                         const double window[2]);
void tv_trainer_note_walk(struct tv_trainer *tr, const struct tv_rank_time *walk);

/* account.c: counts from start to end of a step; the sum over the ranks (collective over the mesh, after end); and that
 * of the whole run, after the last step. */
TV_MUST_CHECK tv_status_t tv_trainer_create_account(struct tv_trainer *tr);
void tv_trainer_start_account(struct tv_trainer *tr);
void tv_trainer_end_account(struct tv_trainer *tr);
/* Seconds since the start that this rank waited for peers of the tensor and data axes, as actions of the walk do. */
double tv_trainer_waited_in_actions(const struct tv_trainer *tr);
TV_MUST_CHECK tv_status_t tv_trainer_sum_account(struct tv_trainer *tr,
                                                 struct tv_mesh_account *sum_out);
TV_MUST_CHECK tv_status_t tv_trainer_account_report(struct tv_trainer *tr,
                                                    struct tv_account_report *report_out);

/* batch.c: fill ids, targets and starts of documents for one micro-batch: from the training order, or the validation
 * file at hand. */
TV_MUST_CHECK tv_status_t tv_batch_load(struct tv_trainer *tr, int micro);
/* Micro-batches per replica that cover every sample of the validation file at hand. */
int tv_batch_eval_micro(const struct tv_trainer *tr);
/* Targets of the loaded micro-batch that count. */
int64_t tv_batch_counted(const struct tv_trainer *tr);

/* stage.c: the stage functions that the executor calls; begin_pass before each walk, with step 0 for an evaluation. */
void tv_trainer_begin_pass(struct tv_trainer *tr, int64_t step);
struct tv_stage_functions tv_trainer_stage(struct tv_trainer *tr);
/* stage.c: what the rank does between the actions, for the sentence of a wait that has no end. */
void tv_trainer_say_phase(struct tv_trainer *tr, const char *phase);

/* gather.c: one safetensors folder from the pieces of all ranks: weights (scale 1) or gradients. */
TV_MUST_CHECK tv_status_t tv_trainer_write_tensors(struct tv_trainer *tr, const char *folder,
                                                   const struct tv_weight_array *array,
                                                   double scale);
TV_END_C
#endif
