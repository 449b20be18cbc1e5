/* train/run.c -- from flags to a run: model, mesh, batch, schedule, in the order in which a user would
 * find mistakes. */
#include "train/run.h"
#include "data/samples.h"
#include "train/corpus.h"
#include "train/corpus_words.h"
#include "train/files.h"
#include "train/place.h"
#include "train/run_device.h"
#include "train/run_internal.h"
#include "train/zero.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *tv_precision_name(tv_dtype_t dtype)
{
    return dtype == TV_BF16 ? "bf16" : "fp32";
}

static tv_status_t resolve_grad_precision(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    const int is_bf16 = strcmp(o->grad_reduce_dtype, tv_precision_name(TV_BF16)) == 0;
    if (!is_bf16 && strcmp(o->grad_reduce_dtype, tv_precision_name(TV_F32)) != 0)
        return TV_ERR(TV_INVALID, "--grad-reduce-dtype %s is not one of fp32, bf16",
                      o->grad_reduce_dtype);
    if (o->is_grad_reduce_bf16 && tv_train_options_has(o, "grad-reduce-dtype") && !is_bf16)
        return TV_ERR(TV_INVALID, "--grad-reduce-in-bf16 and --grad-reduce-dtype %s contradict",
                      o->grad_reduce_dtype);
    run->grad_dtype = is_bf16 || o->is_grad_reduce_bf16 ? TV_BF16 : TV_F32;
    return TV_OK;
}

enum { MAX_RANKS = 1 << 20 }; /* of a dry run */

static tv_status_t resolve_mesh(struct tv_run *run, int num_ranks)
{
    const struct tv_train_options *o = &run->options;
    const int64_t model_ranks = (int64_t)o->pp * o->tp;
    int64_t replicas = o->dp;
    if (replicas == 0)
        replicas = num_ranks == 0 ? 1 : num_ranks / model_ranks;
    if (num_ranks == 0 && model_ranks > MAX_RANKS / replicas)
        return TV_ERR(TV_INVALID, "--pp %d x --tp %d x --dp %" PRId64 ": at most %d ranks", o->pp,
                      o->tp, replicas, MAX_RANKS);
    if (num_ranks == 0)
        num_ranks = (int)(model_ranks * replicas);
    if (replicas == 0 || model_ranks * replicas != num_ranks) {
        if (o->dp != 0)
            return TV_ERR(TV_INVALID,
                          "--pp %d x --tp %d x --dp %d needs %" PRId64 " ranks, there are %d",
                          o->pp, o->tp, o->dp, model_ranks * o->dp, num_ranks);
        return TV_ERR(TV_INVALID,
                      "--pp %d x --tp %d = %" PRId64
                      " does not divide the %d rank(s); start a multiple of it",
                      o->pp, o->tp, model_ranks, num_ranks);
    }
    run->extent = (struct tv_mesh_coord){{o->pp, (int)replicas, o->tp}};
    if (replicas == 1)
        run->grad_dtype = TV_F32;
    TV_TRY(tv_mesh_check(run->extent, num_ranks));
    return tv_run_resolve_zero(run);
}

static tv_status_t resolve_length(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    if (o->train_iters == 0 && !o->is_dry_run)
        return TV_ERR(TV_INVALID, "--train-iters is required");
    run->train_iters = o->train_iters;
    run->decay_iters = o->decay_iters >= 0 ? o->decay_iters : o->train_iters;
    return TV_OK;
}

tv_status_t tv_run_resolve_batch(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    const int D = run->extent.at[TV_DATA];
    run->micro_batch = o->micro_batch;
    run->global_batch = o->global_batch ? o->global_batch : o->micro_batch * D;
    run->seq_length = o->seq_length ? o->seq_length : run->model.max_positions;
    if (run->seq_length > run->model.max_positions)
        return TV_ERR(TV_INVALID,
                      "--seq-length %" PRId64 " is longer than the model's context of %d",
                      run->seq_length, run->model.max_positions);
    if (run->micro_batch * run->seq_length > INT32_MAX)
        return TV_ERR(TV_INVALID,
                      "--micro-batch-size %" PRId64 " x --seq-length %" PRId64
                      " is more than 2^31 tokens",
                      run->micro_batch, run->seq_length);
    const int T = run->extent.at[TV_TENSOR];
    if (o->is_sequence_parallel && run->micro_batch * run->seq_length % T != 0)
        return TV_ERR(TV_INVALID,
                      "--sequence-parallel cuts the rows of a micro-batch over --tp %d: "
                      "--micro-batch-size %" PRId64 " x --seq-length %" PRId64
                      " is not a multiple of it",
                      T, run->micro_batch, run->seq_length);
    int64_t num_micro;
    if (tv_samples_check_batch(run->global_batch, run->micro_batch, D, &num_micro) != TV_OK) {
        const int64_t step = run->micro_batch * D;
        return TV_ERR(
            TV_INVALID,
            "--global-batch-size %" PRId64 " is not a multiple of --micro-batch-size %" PRId64
            " x %d replica(s) (--dp): %" PRId64 " would be",
            run->global_batch, run->micro_batch, D, (run->global_batch + step - 1) / step * step);
    }
    if (num_micro > 1 << 20)
        return TV_ERR(TV_INVALID,
                      "--global-batch-size %" PRId64 " makes %" PRId64
                      " micro-batches a step; at most %d",
                      run->global_batch, num_micro, 1 << 20);
    run->num_micro = (int)num_micro;
    run->ramp = (struct tv_batch_ramp){.final = run->global_batch};
    if (o->rampup_batch != NULL && tv_batch_ramp_parse(o->rampup_batch, run->global_batch,
                                                       run->micro_batch * D, &run->ramp) != TV_OK)
        return TV_ERR(TV_INVALID, "--rampup-batch-size: %s", tv_error_message());
    return TV_OK;
}

/* Bytes are counted in 64 bits: sizes with which no count of them is near the end of that. */
static tv_status_t check_sizes(const struct tv_run *run)
{
    const struct tv_model_config *c = &run->model;
    const double H = c->hidden_size, F = c->ffn_size, L = c->num_layers, V = (double)c->vocab_size;
    const double rows = (double)(run->micro_batch * run->seq_length);
    const double weights = L * (4 * H * H + 3 * H * F) + 2 * V * H;
    const double floats = L * (12 * H + 4 * F + 2 * c->num_heads) + 2 * V;
    if (16 * weights + 4 * rows * run->num_micro * floats > 0x1p61)
        return TV_ERR(TV_INVALID,
                      "the model and a step of --global-batch-size %" PRId64
                      " x --seq-length %" PRId64 " tokens are too large to be counted in bytes",
                      run->global_batch, run->seq_length);
    return TV_OK;
}

static tv_status_t check_placement(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    if (strcmp(o->bind, "auto") != 0 && strcmp(o->bind, "none") != 0)
        return TV_ERR(TV_INVALID, "--bind %s is not one of auto, none", o->bind);
    run->is_bound = strcmp(o->bind, "auto") == 0;
    return TV_OK;
}

/* What is written, and is not what is read or also written. */
static tv_status_t check_files_with(const struct tv_train_options *o,
                                    const struct tv_corpus_words *data,
                                    const struct tv_corpus_words *valid)
{
    const struct tv_flag_file fixed[] = {{"metrics", o->metrics, 1},
                                         {"trace", o->trace, 1},
                                         {"log-sample-ids", o->log_sample_ids, 1},
                                         {"save-profile", o->save_profile, 1},
                                         {"export-hf", o->export_hf, 1},
                                         {"dump-grads", o->dump_grads, 1},
                                         {"config", o->config, 0},
                                         {"load-profile", o->load_profile, 0},
                                         {"args", o->args_file, 0}};
    int num = sizeof(fixed) / sizeof(fixed[0]);
    struct tv_flag_file *files =
        calloc((size_t)(num + data->num_paths + valid->num_paths), sizeof(*files));
    if (files == NULL)
        return TV_ERR(TV_NO_MEMORY, "the names of %d files", data->num_paths + valid->num_paths);
    memcpy(files, fixed, sizeof(fixed));
    for (int i = 0; i < data->num_paths; i++)
        files[num++] = (struct tv_flag_file){"data", data->paths[i], 0};
    for (int i = 0; i < valid->num_paths; i++)
        files[num++] = (struct tv_flag_file){"valid-data", valid->paths[i], 0};
    const tv_status_t status = tv_files_check_apart(num, files);
    free(files);
    return status;
}

static tv_status_t check_files(const struct tv_train_options *o)
{
    struct tv_corpus_words data = {0}, valid = {0};
    tv_status_t status = TV_OK;
    if (o->data.num > 0)
        status = tv_corpus_words_parse("data", &o->data, &data);
    if (status == TV_OK && o->valid_data.num > 0)
        status = tv_corpus_words_parse("valid-data", &o->valid_data, &valid);
    if (status == TV_OK)
        status = check_files_with(o, &data, &valid);
    tv_corpus_words_free(&data);
    tv_corpus_words_free(&valid);
    return status;
}

/* Random tokens have neither files nor documents. */
static tv_status_t check_mock_data(const struct tv_train_options *o)
{
    static const char *const others[] = {"data", "data-format", "valid-data"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (tv_train_options_has(o, others[i]))
            return TV_ERR(TV_INVALID, "--mock-data is in place of files: give it or --%s",
                          others[i]);
    }
    if (strcmp(o->samples_cross_documents, "off") == 0)
        return TV_ERR(TV_INVALID,
                      "--samples-cross-documents off: --mock-data has no documents; leave it on");
    return TV_OK;
}

static tv_status_t check_data(const struct tv_train_options *o)
{
    const char *needs_eod = o->masks_eod_loss          ? "eod-mask-loss"
                            : o->resets_position_ids   ? "reset-position-ids"
                            : o->resets_attention_mask ? "reset-attention-mask"
                                                       : NULL;
    if (o->data.num == 0 && !o->is_mock_data && !o->is_dry_run)
        return TV_ERR(TV_INVALID, "--data is required");
    if (o->is_mock_data)
        TV_TRY(check_mock_data(o));
    if (strcmp(o->samples_cross_documents, "on") != 0 &&
        strcmp(o->samples_cross_documents, "off") != 0)
        return TV_ERR(TV_INVALID, "--samples-cross-documents %s is not one of on, off",
                      o->samples_cross_documents);
    if (needs_eod != NULL && o->eod_token < 0)
        return TV_ERR(TV_INVALID, "--%s needs --eod-token, the id that ends a document", needs_eod);
    return TV_OK;
}

static tv_status_t check_words(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    tv_log_level_t level;
    TV_TRY(tv_log_level_parse(o->log_level, &level));
    if (strcmp(o->shuffle, "on") != 0 && strcmp(o->shuffle, "off") != 0)
        return TV_ERR(TV_INVALID, "--shuffle %s is not one of on, off", o->shuffle);
    run->shuffle = strcmp(o->shuffle, "on") == 0;
    TV_TRY(tv_run_resolve_device(run));
    TV_TRY(check_placement(run));
    TV_TRY(check_data(o));
    if (tv_train_options_has(o, "eval-interval") && o->valid_data.num == 0)
        return TV_ERR(TV_INVALID, "--eval-interval needs --valid-data");
    if (o->is_json && !o->is_dry_run)
        return TV_ERR(TV_INVALID, "--json belongs to --dry-run");
    if (tv_train_options_has(o, "trace-steps") && o->trace == NULL)
        return TV_ERR(TV_INVALID, "--trace-steps %" PRId64 " needs --trace FILE", o->trace_steps);
    return check_files(o);
}

tv_status_t tv_run_resolve(const struct tv_train_options *options, int num_ranks,
                           struct tv_run *run_out)
{
    struct tv_run run = {.options = *options, .data_format = TV_TOKENS_U16};
    if (run.options.attention_dropout < 0)
        run.options.attention_dropout = options->dropout;
    if (run.options.hidden_dropout < 0)
        run.options.hidden_dropout = options->dropout;
    if (options->is_mock_data)
        run.data_format = TV_TOKENS_U32;
    tv_status_t status = check_words(&run);
    if (status == TV_OK)
        status = resolve_grad_precision(&run);
    if (status == TV_OK && options->data.num > 0)
        status = tv_corpus_format("data", &options->data, options->data_format, &run.data_format);
    if (status == TV_OK)
        status = resolve_mesh(&run, num_ranks);
    if (status == TV_OK)
        status = tv_run_resolve_model(&run);
    if (status == TV_OK)
        status = resolve_length(&run);
    if (status == TV_OK)
        status = tv_run_resolve_batch(&run);
    if (status == TV_OK)
        status = check_sizes(&run);
    if (status == TV_OK)
        status = tv_run_resolve_optimizer(&run);
    if (status == TV_OK)
        status = tv_run_resolve_pipeline(&run);
    if (status != TV_OK) {
        tv_run_free(&run);
        return status;
    }
    *run_out = run;
    return TV_OK;
}

void tv_run_free(struct tv_run *run)
{
    tv_schedule_destroy(&run->schedule);
    free(run->pieces);
    free(run->chunk_slots);
    free(run->chunk_works);
    free(run->stage_splits);
    free(run->message_bytes);
    run->pieces = NULL;
    tv_run_place_free(run->place);
    run->place = NULL;
    run->chunk_slots = run->chunk_works = run->stage_splits = NULL;
    run->message_bytes = NULL;
}
