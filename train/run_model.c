/* train/run_model.c -- what model the flags describe: a preset, sizes one by one, a config.json, or a checkpoint's. */
#include "train/hf.h"
#include "train/run_internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct preset {
    const char *name;
    struct tv_model_config config;
};

static const struct preset presets[] = {
    {"gpt2",
     {.family = TV_GPT2,
      .num_layers = 12,
      .hidden_size = 768,
      .num_heads = 12,
      .vocab_size = 50257,
      .max_positions = 1024,
      .is_tied = 1}},
    {"gpt2-medium",
     {.family = TV_GPT2,
      .num_layers = 24,
      .hidden_size = 1024,
      .num_heads = 16,
      .vocab_size = 50257,
      .max_positions = 1024,
      .is_tied = 1}},
    {"gpt2-large",
     {.family = TV_GPT2,
      .num_layers = 36,
      .hidden_size = 1280,
      .num_heads = 20,
      .vocab_size = 50257,
      .max_positions = 1024,
      .is_tied = 1}},
    {"gpt2-xl",
     {.family = TV_GPT2,
      .num_layers = 48,
      .hidden_size = 1600,
      .num_heads = 25,
      .vocab_size = 50257,
      .max_positions = 1024,
      .is_tied = 1}},
    {"llama-1b",
     {.family = TV_LLAMA,
      .num_layers = 22,
      .hidden_size = 2048,
      .num_heads = 32,
      .num_kv_heads = 4,
      .ffn_size = 5632,
      .vocab_size = 32000,
      .max_positions = 2048}},
    {"small-gpt2",
     {.family = TV_GPT2,
      .num_layers = 6,
      .hidden_size = 384,
      .num_heads = 6,
      .vocab_size = 50257,
      .max_positions = 256,
      .is_tied = 1}},
    {"small-llama",
     {.family = TV_LLAMA,
      .num_layers = 8,
      .hidden_size = 512,
      .num_heads = 8,
      .num_kv_heads = 4,
      .ffn_size = 1376,
      .vocab_size = 32000,
      .max_positions = 512}},
    {"tiny-gpt2",
     {.family = TV_GPT2,
      .num_layers = 4,
      .hidden_size = 128,
      .num_heads = 4,
      .vocab_size = 256,
      .max_positions = 128,
      .is_tied = 1}},
    {"tiny-llama",
     {.family = TV_LLAMA,
      .num_layers = 4,
      .hidden_size = 128,
      .num_heads = 4,
      .num_kv_heads = 2,
      .vocab_size = 256,
      .max_positions = 128,
      .is_tied = 1}},
};

/* Flags that say something about the model's shape. */
static const char *const shape_flags[] = {"model",
                                          "preset",
                                          "num-layers",
                                          "hidden-size",
                                          "num-attention-heads",
                                          "num-query-groups",
                                          "ffn-hidden-size",
                                          "vocab-size",
                                          "max-position-embeddings",
                                          "untie-embeddings-and-output-weights",
                                          "norm-epsilon",
                                          "rotary-base"};

static const char *given_shape_flag(const struct tv_train_options *o)
{
    for (size_t i = 0; i < sizeof(shape_flags) / sizeof(shape_flags[0]); i++) {
        if (tv_train_options_has(o, shape_flags[i]))
            return shape_flags[i];
    }
    return NULL;
}

static tv_status_t find_preset(const char *name, struct tv_model_config *config)
{
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (strcmp(presets[i].name, name) == 0) {
            *config = presets[i].config;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "--preset %s is not known; see trivet train --help", name);
}

static tv_status_t set_family(const struct tv_train_options *o, struct tv_model_config *config)
{
    tv_model_family_t family;
    if (strcmp(o->model, "gpt2") == 0)
        family = TV_GPT2;
    else if (strcmp(o->model, "llama") == 0)
        family = TV_LLAMA;
    else
        return TV_ERR(TV_INVALID, "--model %s is not one of gpt2, llama", o->model);
    if (o->preset == NULL && (o->stored_model == NULL || tv_train_options_has(o, "model")))
        config->family = family;
    else if (o->preset != NULL && tv_train_options_has(o, "model") && config->family != family)
        return TV_ERR(TV_INVALID, "--preset %s is not a %s", o->preset, o->model);
    return TV_OK;
}

/* The model from the flags of its group. */
static tv_status_t model_from_flags(const struct tv_run *run, struct tv_model_config *config)
{
    const struct tv_train_options *o = &run->options;
    *config = (struct tv_model_config){.is_tied = 1};
    if (o->preset != NULL)
        TV_TRY(find_preset(o->preset, config));
    else if (o->stored_model != NULL)
        *config = *o->stored_model;
    TV_TRY(set_family(o, config));
    if (o->num_layers)
        config->num_layers = o->num_layers;
    if (o->hidden_size)
        config->hidden_size = o->hidden_size;
    if (o->num_heads)
        config->num_heads = o->num_heads;
    if (o->num_query_groups)
        config->num_kv_heads = o->num_query_groups;
    if (o->ffn_size)
        config->ffn_size = o->ffn_size;
    if (o->vocab_size)
        config->vocab_size = o->vocab_size;
    else if (run->data_format == TV_TOKENS_TEXT && config->vocab_size == 0)
        config->vocab_size = 256;
    if (o->max_positions)
        config->max_positions = o->max_positions;
    else if (config->max_positions == 0)
        config->max_positions = (int)o->seq_length;
    if (o->is_untied)
        config->is_tied = 0;
    if (o->stored_model == NULL || tv_train_options_has(o, "norm-epsilon"))
        config->norm_eps = o->norm_eps;
    if (o->stored_model == NULL || tv_train_options_has(o, "rotary-base"))
        config->rope_theta = o->rope_theta;
    if (!config->num_layers || !config->hidden_size || !config->num_heads || !config->vocab_size ||
        !config->max_positions)
        return TV_ERR(
            TV_INVALID,
            "the model's shape is not complete: give --num-layers, --hidden-size, "
            "--num-attention-heads, --vocab-size and --seq-length, or --preset, or --config");
    return TV_OK;
}

/* A folder given to --init-from brings its config.json when nothing else says what the model is. */
static const char *implied_config(const struct tv_train_options *o, char *path, size_t path_bytes)
{
    struct stat info;
    if (o->init_from == NULL || o->stored_model != NULL || given_shape_flag(o) != NULL ||
        stat(o->init_from, &info) != 0 || !S_ISDIR(info.st_mode))
        return NULL;
    snprintf(path, path_bytes, "%s/config.json", o->init_from);
    return stat(path, &info) == 0 ? path : NULL;
}

tv_status_t tv_run_resolve_model(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    char path[4096];
    const char *config_path = o->config != NULL ? o->config : implied_config(o, path, sizeof(path));
    if (config_path == NULL) {
        TV_TRY(model_from_flags(run, &run->model));
    } else {
        if (given_shape_flag(o) != NULL)
            return TV_ERR(TV_INVALID, "--config and --%s both say what the model is; give one",
                          given_shape_flag(o));
        TV_TRY(tv_hf_config_read(config_path, &run->model));
    }
    run->model.init_std = o->init_std;
    tv_model_config_defaults(&run->model);
    TV_TRY(tv_model_config_check(&run->model));
    TV_TRY(tv_model_config_check_tensor(&run->model, run->extent.at[TV_TENSOR]));
    if (run->data_format == TV_TOKENS_TEXT && run->model.vocab_size < 256)
        return TV_ERR(TV_INVALID, "text has 256 byte values, the model's vocabulary only %" PRId64,
                      run->model.vocab_size);
    if (o->label_smoothing > 0 && run->model.vocab_size < 2)
        return TV_ERR(TV_INVALID, "--label-smoothing %g over a vocabulary of one",
                      o->label_smoothing);
    if (o->mask_token >= run->model.vocab_size)
        return TV_ERR(TV_INVALID, "--mask-token %" PRId64 " is beyond the vocabulary of %" PRId64,
                      o->mask_token, run->model.vocab_size);
    if (o->eod_token >= run->model.vocab_size)
        return TV_ERR(TV_INVALID, "--eod-token %" PRId64 " is beyond the vocabulary of %" PRId64,
                      o->eod_token, run->model.vocab_size);
    return TV_OK;
}
