/* train/train_options.h -- the flags of `trivet train`. Names are Megatron-LM's where they exist.
 * */
#ifndef TV_TRAIN_TRAIN_OPTIONS_H
#define TV_TRAIN_TRAIN_OPTIONS_H
#include "train/options.h"

TV_BEGIN_C
struct tv_model_config; /* model/config.h */

/* Values as given; 0 or NULL where the default depends on others (run.c fills them). Strings are
 * borrowed from argv or from given.args_text. */
struct tv_train_options {
    /* mesh */
    int pp, tp, dp; /* dp 0: inferred */
    int is_sequence_parallel;
    int zero_stage, zero_group; /* group 0: as many as fit */
    int is_tensor_overlapped, is_grad_reduce_late;
    int local_ranks;
    const char *placement, *network, *topology, *bind;
    int probe_links;
    /* schedule */
    const char *schedule; /* NULL: 1f1b, or interleaved when vpp > 1 */
    int vpp;              /* chunks per stage; 0: the schedule's own */
    int slot_limit;       /* 0: none */
    const char *partition, *stage_layout, *recompute;
    const char *save_profile, *load_profile;
    double memory_limit_mib; /* of a rank, for --partition profile; 0: none */
    /* batch */
    int64_t micro_batch, global_batch, seq_length,
        train_iters; /* global 0: micro x D; seq 0: the model's context */
    const char *rampup_batch;
    /* model */
    const char *model, *preset, *config;
    int num_layers, hidden_size, num_heads, num_query_groups, ffn_size, max_positions;
    int64_t vocab_size;
    int is_untied;
    double init_std, norm_eps, rope_theta;
    double dropout, attention_dropout, hidden_dropout; /* -1: `dropout` holds */
    double label_smoothing;
    /* optimizer */
    const char *optimizer;
    double lr, min_lr, weight_decay, beta1, beta2, adam_eps, clip_grad;
    double sgd_momentum, lion_beta1, lion_beta2, muon_momentum;
    double decoupled_lr, decoupled_min_lr; /* as lr, min_lr unless given */
    int64_t warmup_iters, decay_iters;     /* decay -1: train_iters */
    double warmup_fraction, warmup_init;
    const char *lr_decay_style, *wsd_decay_style;
    int64_t wsd_decay_iters;
    int64_t skip_bad_steps;
    const char *precision, *grad_reduce_dtype;
    int is_grad_reduce_bf16;
    int64_t seed;
    /* data */
    struct tv_option_list data, valid_data; /* num 0: not given */
    const char *data_format, *shuffle, *samples_cross_documents;
    int64_t eod_token; /* -1: none */
    int masks_eod_loss, resets_position_ids, resets_attention_mask;
    int is_mock_data;
    int64_t eval_interval;
    int64_t mask_token; /* -1: none */
    /* run */
    const char *device, *comm, *init_from, *metrics, *export_hf, *dump_grads, *log_sample_ids;
    const char *save, *load;     /* NULL: neither */
    int64_t save_interval, keep; /* 0: at the end alone; all */
    int is_save_async, is_finetune, is_optimizer_fresh, is_rng_fresh;
    int is_rate_own,
        is_rate_stored; /* learning rates of this run's flags alone, or of the checkpoint */
    const char *trace, *args_file, *log_level;
    int64_t trace_steps; /* the last ones */
    double timeout_seconds;
    double exit_after_minutes; /* 0: no limit */
    int64_t log_interval;
    int num_threads; /* 0: a fair share of the allowed cores */
    int is_dry_run, is_json, is_deterministic, wants_help;

    struct tv_options_given given;
    const struct tv_model_config
        *stored_model; /* of the checkpoint that is loaded, borrowed; or NULL */
};
extern const struct tv_option_table tv_train_option_table;

/* argv[0] is skipped. On TV_OK `options` is filled and owns given.args_text. Errors: those of
 * tv_options_parse. */
TV_MUST_CHECK tv_status_t tv_train_options_parse(int argc, char **argv,
                                                 struct tv_train_options *options);
void tv_train_options_free(struct tv_train_options *options);
/* Take a flag back. */
TV_MUST_CHECK tv_status_t tv_train_options_reset(struct tv_train_options *options,
                                                 const char *name);
/* Was the flag with this name (without dashes) given? */
int tv_train_options_has(const struct tv_train_options *options, const char *name);
void tv_train_options_help(FILE *out);
TV_END_C
#endif
