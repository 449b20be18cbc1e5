/* train/trainer.h -- one rank of a training run: the place where the pipeline, data and tensor axes meet.
 *
 * All functions are called by all ranks of the mesh together. A failure of one rank is returned there; the others would
 * wait for it, so the program ends the job (tv_comm_abort). */
#ifndef TV_TRAIN_TRAINER_H
#define TV_TRAIN_TRAINER_H
#include "train/account.h"
#include "train/stop.h"

TV_BEGIN_C
struct tv_trainer; /* opaque */

/* What a step did; the same on every rank. */
struct tv_step_report {
    int64_t step, counted_tokens, global_batch, consumed_samples;
    double loss;      /* mean over counted tokens, before the update */
    double grad_norm; /* before clipping */
    int is_skipped;   /* --skip-bad-steps: loss and norm are NaN, no weight was changed */
    tv_stop_t stop;   /* what any rank was told before this step's end */
    double lr;
    double step_seconds, tokens_per_second, model_flops_per_second;
    double bubble_fraction; /* 1 - busy / window, over all ranks; 0 for pp 1 */
    double idle_warmup, idle_wait,
        idle_drain;            /* the bubble by cause, as fractions of the windows of all ranks */
    int64_t peak_memory_bytes; /* of the largest rank */
    struct tv_mesh_account account; /* with --metrics; else zeros */
};

/* The same on every rank. */
struct tv_eval_loss {
    double loss; /* mean over counted tokens; 0 without any */
    int64_t counted_tokens;
};
struct tv_eval_report {
    struct tv_eval_loss all; /* tokens of all files */
    int num_files;
    struct tv_eval_loss files[TV_OPTION_LIST_MAX];
    const char *names[TV_OPTION_LIST_MAX]; /* as --valid-data says; borrowed from the options */
};

/* Shares of a stage's time in all steps, 0..1, the mean of its ranks; what is missing to 1 is everything else. */
struct tv_stage_report {
    double compute;
    double warmup, wait,
        drain;           /* for the pipeline: before the first action, between, after the last */
    double tensor, data; /* for peers of these axes */
    double optimizer;
    int64_t peak_memory_bytes; /* of its largest rank */
};
struct tv_pipeline_report {
    int num_stages;
    struct tv_stage_report *stages; /* [P], owned */
    double measured_bubble;         /* of all steps */
    double
        predicted_bubble; /* of the schedule with the mean times of this run's actions, sends free */
    double window_seconds;         /* of a step's pipeline, the mean of all but the first */
    double profile_window_seconds; /* what the simulator makes of the profile; 0 without one */
    struct tv_account_report account;
};

/* Opens and closes the files of --data and --valid-data, where that takes no time: one rank, before longer work.
 * Errors: as tv_corpus_open. */
TV_MUST_CHECK tv_status_t tv_trainer_try_data(const struct tv_run *run);
/* Builds mesh, model, optimizer, files. `world` and `run` are borrowed. Every rank returns the same status.
 * Errors: TV_INVALID, TV_BAD_FILE, TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_trainer_create(struct tv_comm *world, const struct tv_run *run,
                                            struct tv_trainer **trainer_out);
void tv_trainer_destroy(struct tv_trainer *trainer);

/* One optimizer step; `step` counts from 1.
 * Errors: TV_NUMERIC (before weights are touched, on every rank), TV_PEER, TV_IO (dumps). */
TV_MUST_CHECK tv_status_t tv_train_step(struct tv_trainer *trainer, int64_t step,
                                        struct tv_step_report *report_out);
/* Loss per counted token over every sample of the validation files, each exactly once. */
TV_MUST_CHECK tv_status_t tv_train_eval(struct tv_trainer *trainer,
                                        struct tv_eval_report *report_out);
/* Write the current weights as a Hugging Face folder, by mesh rank 0. */
TV_MUST_CHECK tv_status_t tv_trainer_export(struct tv_trainer *trainer, const char *folder);
TV_MUST_CHECK tv_status_t tv_trainer_pipeline_report(struct tv_trainer *trainer,
                                                     struct tv_pipeline_report *report_out);
void tv_pipeline_report_free(struct tv_pipeline_report *report);

struct tv_corpus;
const struct tv_corpus *tv_trainer_data(const struct tv_trainer *trainer); /* what --data names */
int tv_trainer_is_root(const struct tv_trainer *trainer); /* mesh rank 0: prints and writes files */
TV_END_C
#endif
