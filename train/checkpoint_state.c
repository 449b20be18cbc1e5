/* train/checkpoint_state.c -- state.json: how far training is, of what model, and under which flags; and how a run
 * that goes on takes those over. */
#include "train/checkpoint_internal.h"
#include "train/metrics.h"
#include "train/trainer_internal.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Flags that a later run takes over where it does not give its own. Not here: what says where and how to train (mesh,
 * schedule, files), and --train-iters. The model's shape goes over as a whole. */
static const struct {
    const char *name;
    const char *instead; /* a flag which says the same in another way, or NULL */
    int is_rate;         /* of the learning rate */
} inherited[] = {
    {"micro-batch-size", NULL, 0},
    {"global-batch-size", NULL, 0},
    {"rampup-batch-size", NULL, 0},
    {"seq-length", NULL, 0},
    {"dropout", NULL, 0},
    {"attention-dropout", NULL, 0},
    {"hidden-dropout", NULL, 0},
    {"label-smoothing", NULL, 0},
    {"optimizer", NULL, 0},
    {"lr", NULL, 1},
    {"min-lr", NULL, 1},
    {"lr-warmup-iters", "lr-warmup-fraction", 1},
    {"lr-warmup-fraction", "lr-warmup-iters", 1},
    {"lr-warmup-init", NULL, 1},
    {"lr-decay-iters", NULL, 1},
    {"lr-decay-style", NULL, 1},
    {"lr-wsd-decay-iters", NULL, 1},
    {"lr-wsd-decay-style", NULL, 1},
    {"decoupled-lr", NULL, 1},
    {"decoupled-min-lr", NULL, 1},
    {"weight-decay", NULL, 0},
    {"adam-beta1", NULL, 0},
    {"adam-beta2", NULL, 0},
    {"adam-eps", NULL, 0},
    {"sgd-momentum", NULL, 0},
    {"lion-beta1", NULL, 0},
    {"lion-beta2", NULL, 0},
    {"muon-momentum", NULL, 0},
    {"clip-grad", NULL, 0},
    {"skip-bad-steps", NULL, 0},
    {"seed", NULL, 0},
    {"mask-token", NULL, 0},
    {"eod-token", NULL, 0},
    {"eod-mask-loss", NULL, 0},
    {"reset-position-ids", NULL, 0},
    {"reset-attention-mask", NULL, 0},
    {"samples-cross-documents", NULL, 0},
    {"shuffle", NULL, 0},
};
enum { NUM_INHERITED = sizeof(inherited) / sizeof(inherited[0]) };

/* ---- what is written ---- */

/* The flags that were given, as they would be typed. */
static json_t *flags_json(const struct tv_train_options *options)
{
    char text[PATH_MAX];
    json_t *flags = json_object();
    for (int i = 0; i < NUM_INHERITED; i++) {
        if (tv_train_options_has(options, inherited[i].name) &&
            tv_options_text(&tv_train_option_table, options, inherited[i].name, text, sizeof(text)))
            json_object_set_new(flags, inherited[i].name, tv_metrics_text(text));
    }
    return flags;
}

/* Defaults that hang on other flags, which a later run may not have. */
static json_t *resolved_json(const struct tv_run *run)
{
    char batch[32], decay[32];
    snprintf(batch, sizeof(batch), "%" PRId64, run->global_batch);
    snprintf(decay, sizeof(decay), "%" PRId64, run->decay_iters);
    return json_pack("{s:s, s:s}", "global-batch-size", batch, "lr-decay-iters", decay);
}

tv_status_t tv_saved_state_make(const struct tv_trainer *tr, int64_t step, char **text_out)
{
    const struct tv_run *run = tr->run;
    json_t *json = tv_checkpoint_json_new();
    json_t *more = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:o, s:o}", "step", (json_int_t)step,
        "consumed_samples", (json_int_t)tr->consumed, "seed", (json_int_t)run->options.seed,
        "num_updates", (json_int_t)tr->num_updates, "bad_steps_in_a_row",
        (json_int_t)tr->bad_steps.in_a_row, "num_samples",
        (json_int_t)tv_corpus_num_samples(tr->data), "seq_length", (json_int_t)run->seq_length,
        "optimizer", run->options.optimizer, "flags", flags_json(&run->options), "resolved",
        resolved_json(run), "config", tv_config_json(run));
    if (json != NULL && more != NULL && json_object_update(json, more) == 0)
        *text_out = json_dumps(json, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    else
        *text_out = NULL;
    json_decref(json);
    json_decref(more);
    return *text_out != NULL ? TV_OK : TV_ERR(TV_NO_MEMORY, "%s: its text", TV_STATE_NAME);
}

/* ---- what is read ---- */

static tv_status_t parse_sizes(const char *path, const json_t *json, struct tv_model_config *c)
{
    const struct {
        const char *key;
        int *value;
    } sizes[] = {
        {"num_layers", &c->num_layers},         {"hidden_size", &c->hidden_size},
        {"num_attention_heads", &c->num_heads}, {"num_query_groups", &c->num_kv_heads},
        {"ffn_hidden_size", &c->ffn_size},      {"max_position_embeddings", &c->max_positions}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int64_t size = 0;
        TV_TRY(tv_member_int(path, "model", json, sizes[i].key, 1, INT32_MAX, &size));
        *sizes[i].value = (int)size;
    }
    TV_TRY(tv_member_int(path, "model", json, "vocab_size", 1, INT32_MAX, &c->vocab_size));
    TV_TRY(tv_member_real(path, "model", json, "norm_epsilon", &c->norm_eps));
    TV_TRY(tv_member_real(path, "model", json, "rotary_base", &c->rope_theta));
    return tv_member_real(path, "model", json, "init_method_std", &c->init_std);
}

static tv_status_t parse_model(const char *path, const json_t *state, struct tv_model_config *c)
{
    json_t *config, *model;
    const char *family = NULL;
    TV_TRY(tv_member_object(path, state, "config", &config));
    TV_TRY(tv_member_object(path, config, "model", &model));
    TV_TRY(tv_member_text(path, "model", model, "family", &family));
    for (c->family = TV_GPT2; strcmp(tv_model_family_name(c->family), family) != 0; c->family++) {
        if (c->family == TV_LLAMA)
            return TV_ERR(TV_BAD_FILE, "%s: model: the family '%s' is not known", path, family);
    }
    const json_t *tied = json_object_get(model, "tied");
    if (!json_is_boolean(tied))
        return TV_ERR(TV_BAD_FILE, "%s: model: \"tied\" is missing or not true or false", path);
    c->is_tied = json_is_true(tied);
    return parse_sizes(path, model, c);
}

static tv_status_t parse_all(const char *path, struct tv_saved_state *s)
{
    const int64_t most = INT64_MAX / 4;
    const json_t *json = s->json;
    json_t *flags;
    TV_TRY(tv_member_int(path, "state", json, "step", 0, most, &s->step));
    TV_TRY(tv_member_int(path, "state", json, "consumed_samples", 0, most, &s->consumed));
    TV_TRY(tv_member_int(path, "state", json, "num_updates", 0, s->step, &s->num_updates));
    TV_TRY(tv_member_int(path, "state", json, "bad_steps_in_a_row", 0, s->step, &s->bad_in_a_row));
    TV_TRY(tv_member_int(path, "state", json, "num_samples", 1, most, &s->num_samples));
    TV_TRY(tv_member_int(path, "state", json, "seq_length", 1, INT32_MAX, &s->seq_length));
    TV_TRY(tv_member_text(path, "state", json, "optimizer", &s->optimizer));
    TV_TRY(tv_member_object(path, json, "flags", &flags));
    TV_TRY(tv_member_object(path, json, "resolved", &flags));
    return parse_model(path, json, &s->model);
}

tv_status_t tv_saved_state_parse(const char *path, const char *text, size_t bytes,
                                 struct tv_saved_state *state_out)
{
    struct tv_saved_state state = {0};
    tv_status_t status = tv_checkpoint_json(path, text, bytes, &state.json);
    if (status == TV_OK)
        status = parse_all(path, &state);
    if (status != TV_OK) {
        tv_saved_state_free(&state);
        return status;
    }
    *state_out = state;
    return TV_OK;
}

void tv_saved_state_free(struct tv_saved_state *state)
{
    json_decref(state->json);
    memset(state, 0, sizeof(*state));
}

/* ---- what a run takes over ---- */

/* What was given, or else what it came to. */
static const char *stored_text(const struct tv_saved_state *state, int i, int is_resolved)
{
    const char *name = inherited[i].name;
    const char *given =
        json_string_value(json_object_get(json_object_get(state->json, "flags"), name));
    if (given != NULL || !is_resolved)
        return given;
    return json_string_value(json_object_get(json_object_get(state->json, "resolved"), name));
}

/* Does this run have its own for it? */
static int has_own(const struct tv_train_options *options, int i)
{
    return tv_train_options_has(options, inherited[i].name) ||
           (inherited[i].instead != NULL && tv_train_options_has(options, inherited[i].instead));
}

/* --use-checkpoint-opt_param-scheduler: the rates as they were, whatever this run's flags say. */
static tv_status_t take_rate(const struct tv_saved_state *state, int i,
                             struct tv_train_options *options)
{
    const char *text = stored_text(state, i, 1);
    if (text != NULL)
        return tv_options_give(&tv_train_option_table, &options->given, options, inherited[i].name,
                               text);
    return tv_train_options_reset(options, inherited[i].name);
}

tv_status_t tv_checkpoint_inherit(const struct tv_checkpoint *checkpoint,
                                  struct tv_train_options *options)
{
    const struct tv_train_options own = *options; /* flags given by this run */
    const struct tv_saved_state *state = &checkpoint->state;
    options->stored_model = &state->model;
    for (int i = 0; i < NUM_INHERITED && !own.is_finetune; i++) {
        tv_status_t status = TV_OK;
        const int is_batch = strcmp(inherited[i].name, "global-batch-size") == 0;
        const char *text = stored_text(state, i, is_batch);
        if (inherited[i].is_rate && own.is_rate_stored)
            status = take_rate(state, i, options);
        else if (!(inherited[i].is_rate && own.is_rate_own) && text != NULL && !has_own(&own, i))
            status = tv_options_give(&tv_train_option_table, &options->given, options,
                                     inherited[i].name, text);
        if (status != TV_OK)
            return TV_ERR(TV_BAD_FILE, "%s/%s: %s", checkpoint->path, TV_STATE_NAME,
                          tv_error_message());
    }
    return TV_OK;
}
