/* train/metrics_start.c -- the first two lines: what the run is, and which rank sits where. */
#include "train/metrics.h"
#include "train/place.h"
#include <jansson.h>

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
    const struct tv_lr_schedule *lr = &run->lr[TV_LR_BODY];
    const struct tv_lr_schedule *decoupled = &run->lr[TV_LR_VOCABULARY];
    return json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:I, s:s, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o, "
        "s:o, s:o, s:o, s:I}",
        "optimizer", o->optimizer, "lr", tv_metrics_number(lr->lr), "min_lr",
        tv_metrics_number(lr->min_lr), "decoupled_lr", tv_metrics_number(decoupled->lr),
        "decoupled_min_lr", tv_metrics_number(decoupled->min_lr), "lr_warmup_iters",
        (json_int_t)lr->warmup_steps, "lr_warmup_init", tv_metrics_number(lr->warmup_init),
        "lr_decay_iters", (json_int_t)lr->decay_steps, "lr_decay_style", o->lr_decay_style,
        "lr_wsd_decay_iters", (json_int_t)lr->wsd_decay_steps, "lr_wsd_decay_style",
        o->wsd_decay_style, "weight_decay", tv_metrics_number(o->weight_decay), "adam_beta1",
        tv_metrics_number(o->beta1), "adam_beta2", tv_metrics_number(o->beta2), "adam_eps",
        tv_metrics_number(o->adam_eps), "sgd_momentum", tv_metrics_number(o->sgd_momentum),
        "lion_beta1", tv_metrics_number(o->lion_beta1), "lion_beta2",
        tv_metrics_number(o->lion_beta2), "muon_momentum", tv_metrics_number(o->muon_momentum),
        "clip_grad", tv_metrics_number(o->clip_grad), "skip_bad_steps",
        (json_int_t)o->skip_bad_steps);
}

static json_t *data_json(const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    return json_pack(
        "{s:o, s:b, s:s, s:o, s:I, s:b, s:I, s:I, s:s?, s:b, s:b, s:b}", "data",
        tv_metrics_texts(&o->data), "mock_data", o->is_mock_data, "data_format",
        tv_tokens_format_name(run->data_format), "valid_data", tv_metrics_texts(&o->valid_data),
        "eval_interval", (json_int_t)o->eval_interval, "shuffle", run->shuffle, "mask_token",
        (json_int_t)o->mask_token, "eod_token", (json_int_t)o->eod_token, "samples_cross_documents",
        o->samples_cross_documents, "eod_mask_loss", o->masks_eod_loss, "reset_position_ids",
        o->resets_position_ids, "reset_attention_mask", o->resets_attention_mask);
}

/* First unit and number of units of each position. */
static json_t *units_json(const struct tv_run *run)
{
    json_t *units = json_array();
    for (int p = 0; p < run->extent.at[TV_PIPE] * run->num_chunks; p++)
        json_array_append_new(units, json_pack("[i, i]", run->pieces[p].first, run->pieces[p].num));
    return units;
}

json_t *tv_config_json(const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    return json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:b, s:i, s:s, s:s, s:s?, s:o, s:s, s:i, s:I, s:I, s:s?, s:I, "
        "s:I, s:I, "
        "s:s, s:s, s:s, s:o, s:o, s:o, s:o}",
        "pp", run->extent.at[TV_PIPE], "dp", run->extent.at[TV_DATA], "tp",
        run->extent.at[TV_TENSOR], "zero_stage", run->zero_stage, "zero_group_size",
        run->zero_group, "sequence_parallel", o->is_sequence_parallel, "vpp", run->num_chunks,
        "schedule", run->schedule.name, "partition", o->stage_layout ? "layout" : o->partition,
        "stage_layout", o->stage_layout, "units", units_json(run), "recompute",
        tv_recompute_name(run->recompute), "num_micro_batches", run->num_micro, "micro_batch_size",
        (json_int_t)run->micro_batch, "global_batch_size", (json_int_t)run->global_batch,
        "rampup_batch_size", o->rampup_batch, "seq_length", (json_int_t)run->seq_length,
        "train_iters", (json_int_t)run->train_iters, "seed", (json_int_t)o->seed, "device",
        run->device_kind == TV_DEVICE_CPU ? "cpu" : "cuda", "precision",
        tv_precision_name(run->dtype), "grad_reduce_dtype", tv_precision_name(run->grad_dtype),
        "init_from", tv_metrics_text(o->init_from), "model", model_json(run), "optimizer",
        optimizer_json(run), "data", data_json(run));
}

/* Coordinates [p, d, t] of each rank, in launch order. */
static json_t *coordinates_json(const struct tv_run *run, int num_ranks)
{
    json_t *coordinates = json_array();
    for (int rank = 0; rank < num_ranks; rank++) {
        const int place = run->place != NULL ? run->place->placement.place_of[rank] : rank;
        const struct tv_mesh_coord at = tv_mesh_coord_of(run->extent, place);
        json_array_append_new(
            coordinates, json_pack("[i, i, i]", at.at[TV_PIPE], at.at[TV_DATA], at.at[TV_TENSOR]));
    }
    return coordinates;
}

static json_t *cost_json(const struct tv_map_cost *cost)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "total", tv_metrics_number(cost->total), "tensor",
                     tv_metrics_number(cost->axis[TV_TENSOR]), "pipeline",
                     tv_metrics_number(cost->axis[TV_PIPE]), "data",
                     tv_metrics_number(cost->axis[TV_DATA]));
}

/* Where each rank runs, in launch order: the node's name, and the CPUs as the kernel says them. */
static json_t *ranks_json(const struct tv_run_place *place)
{
    json_t *ranks = json_array();
    for (int rank = 0; rank < place->placement.num_ranks; rank++) {
        const struct tv_binding *binding = &place->bindings[rank];
        json_t *fields = json_pack("{s:s, s:s, s:s, s:s}", "node",
                                   place->nodes.names[place->nodes.node_of[rank]], "binding",
                                   tv_bind_kind_name(binding->kind), "cpus", binding->cpus,
                                   "memory", binding->memory);
        if (place->gpus != NULL)
            json_object_set_new(fields, "gpu", json_string(place->gpus[rank]));
        json_array_append_new(ranks, fields);
    }
    return ranks;
}

/* As --probe-links measured them, by tier. */
static json_t *links_json(const struct tv_link_rates *rates)
{
    json_t *links = json_object();
    for (int tier = 0; tier < TV_NUM_TIERS; tier++) {
        if (rates->gbps[tier] > 0)
            json_object_set_new(links, tv_tier_name((tv_tier_t)tier),
                                json_pack("{s:f, s:f}", "latency_seconds", rates->seconds[tier],
                                          "gbps", rates->gbps[tier]));
    }
    return links;
}

static json_t *placement_json(const struct tv_run *run, int num_ranks)
{
    const struct tv_run_place *place = run->place;
    json_t *fields = json_pack("{s:o, s:o}", "placement", tv_metrics_text(run->options.placement),
                               "coordinates", coordinates_json(run, num_ranks));
    if (place == NULL)
        return fields;
    json_object_set_new(fields, "ranks", ranks_json(place));
    json_object_set_new(fields, "predicted_seconds",
                        json_pack("{s:o, s:o, s:i}", "chosen", cost_json(&place->chosen),
                                  "identity", cost_json(&place->identity), "split_tensor_groups",
                                  place->split_tensor_groups));
    if (place->rates.gbps[TV_TIER_NODE] > 0 || place->rates.gbps[TV_TIER_NETWORK] > 0)
        json_object_set_new(fields, "links", links_json(&place->rates));
    return fields;
}

tv_status_t tv_metrics_start(struct tv_metrics *metrics, const struct tv_run *run)
{
    const int num_ranks =
        run->extent.at[TV_PIPE] * run->extent.at[TV_DATA] * run->extent.at[TV_TENSOR];
    if (metrics == NULL)
        return TV_OK;
    TV_TRY(tv_metrics_object(metrics, "config", tv_config_json(run)));
    return tv_metrics_object(metrics, "placement", placement_json(run, num_ranks));
}
