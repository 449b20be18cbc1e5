/* train/metrics_start.c -- the first two lines: what the run is, and which rank sits where. */
#include "train/metrics.h"
#include "train/run.h"
#include <jansson.h>
#include <string.h>

static json_t *model_json(const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    const struct tv_model_config *c = &run->model;
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:i, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "family",
        tv_model_family_name(c->family), "num_layers", c->num_layers, "hidden_size", c->hidden_size,
        "num_attention_heads", c->num_heads, "num_query_groups", c->num_kv_heads, "ffn_hidden_size",
        c->ffn_size, "vocab_size", (json_int_t)c->vocab_size, "max_position_embeddings",
        c->max_positions, "tied", c->is_tied, "norm_epsilon", tv_metrics_number(c->norm_eps),
        "rotary_base", tv_metrics_number(c->rope_theta), "init_method_std",
        tv_metrics_number(c->init_std), "attention_dropout",
        tv_metrics_number(o->attention_dropout), "hidden_dropout",
        tv_metrics_number(o->hidden_dropout), "label_smoothing",
        tv_metrics_number(o->label_smoothing));
}

static json_t *optimizer_json(const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    return json_pack(
        "{s:o, s:o, s:I, s:I, s:s, s:o, s:o, s:o, s:o, s:o}", "lr", tv_metrics_number(o->lr),
        "min_lr", tv_metrics_number(o->min_lr), "lr_warmup_iters", (json_int_t)o->warmup_iters,
        "lr_decay_iters", (json_int_t)run->decay_iters, "lr_decay_style", o->lr_decay_style,
        "weight_decay", tv_metrics_number(o->weight_decay), "adam_beta1",
        tv_metrics_number(o->beta1), "adam_beta2", tv_metrics_number(o->beta2), "adam_eps",
        tv_metrics_number(o->adam_eps), "clip_grad", tv_metrics_number(o->clip_grad));
}

static json_t *data_json(const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    return json_pack("{s:s?, s:s, s:s?, s:I, s:b, s:I}", "data", o->data, "data_format",
                     tv_tokens_format_name(run->data_format), "valid_data", o->valid_data,
                     "eval_interval", (json_int_t)o->eval_interval, "shuffle", run->shuffle,
                     "mask_token", (json_int_t)o->mask_token);
}

/* First unit and number of units of each position. */
static json_t *units_json(const struct tv_run *run)
{
    json_t *units = json_array();
    for (int p = 0; p < run->extent.at[TV_PIPE] * run->num_chunks; p++)
        json_array_append_new(units, json_pack("[i, i]", run->pieces[p].first, run->pieces[p].num));
    return units;
}

/* Every default filled in. */
static json_t *config_json(const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    return json_pack("{s:i, s:i, s:i, s:b, s:i, s:s, s:s, s:s?, s:o, s:s, s:i, s:I, s:I, s:I, s:I, "
                     "s:I, s:s, s:s?, "
                     "s:o, s:o, s:o}",
                     "pp", run->extent.at[TV_PIPE], "dp", run->extent.at[TV_DATA], "tp",
                     run->extent.at[TV_TENSOR], "sequence_parallel", o->is_sequence_parallel, "vpp",
                     run->num_chunks, "schedule", run->schedule.name, "partition", o->partition,
                     "stage_layout", o->stage_layout, "units", units_json(run), "recompute",
                     tv_recompute_name(run->recompute), "num_micro_batches", run->num_micro,
                     "micro_batch_size", (json_int_t)run->micro_batch, "global_batch_size",
                     (json_int_t)run->global_batch, "seq_length", (json_int_t)run->seq_length,
                     "train_iters", (json_int_t)run->train_iters, "seed", (json_int_t)o->seed,
                     "device", run->device_kind == TV_DEVICE_CPU ? "cpu" : "cuda", "init_from",
                     o->init_from, "model", model_json(run), "optimizer", optimizer_json(run),
                     "data", data_json(run));
}

static tv_status_t placement_of(const struct tv_run *run, int num_ranks,
                                struct tv_placement *placement_out)
{
    const char *word = run->options.placement;
    if (strcmp(word, "identity") == 0)
        return tv_placement_identity(num_ranks, placement_out);
    return tv_placement_read(word, num_ranks, placement_out);
}

/* Coordinates [p, d, t] of each rank, in launch order. */
static json_t *placement_json(const struct tv_run *run, const struct tv_placement *placement)
{
    json_t *coordinates = json_array();
    for (int rank = 0; rank < placement->num_ranks; rank++) {
        const struct tv_mesh_coord at = tv_mesh_coord_of(run->extent, placement->place_of[rank]);
        json_array_append_new(
            coordinates, json_pack("[i, i, i]", at.at[TV_PIPE], at.at[TV_DATA], at.at[TV_TENSOR]));
    }
    return json_pack("{s:s, s:o}", "placement", run->options.placement, "coordinates", coordinates);
}

tv_status_t tv_metrics_start(struct tv_metrics *metrics, const struct tv_run *run)
{
    struct tv_placement placement;
    const int num_ranks =
        run->extent.at[TV_PIPE] * run->extent.at[TV_DATA] * run->extent.at[TV_TENSOR];
    if (metrics == NULL)
        return TV_OK;
    TV_TRY(tv_metrics_object(metrics, "config", config_json(run)));
    TV_TRY(placement_of(run, num_ranks, &placement));
    json_t *fields = placement_json(run, &placement);
    tv_placement_destroy(&placement);
    return tv_metrics_object(metrics, "placement", fields);
}
