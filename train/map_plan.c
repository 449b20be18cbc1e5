/* train/map_plan.c -- reads the machines, works out the traffic, solves, and indexes the result. */
#include "train/map_plan.h"
#include "train/run_internal.h"
#include "train/traffic.h"
#include "train/zero.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int tv_map_plan_num_devices(const struct tv_map_plan *plan)
{
    return plan->first_device[plan->topology.num_nodes];
}

const struct tv_gpu *tv_map_plan_gpu(const struct tv_map_plan *plan, struct tv_device_place place)
{
    return &tv_topology_shape(&plan->topology, place.node)->gpus[place.device];
}

static tv_status_t count_devices(struct tv_map_plan *plan)
{
    const int num_nodes = plan->topology.num_nodes;
    plan->first_device = calloc((size_t)num_nodes + 1, sizeof(*plan->first_device));
    if (plan->first_device == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d nodes", num_nodes);
    for (int n = 0; n < num_nodes; n++)
        plan->first_device[n + 1] =
            plan->first_device[n] + tv_topology_shape(&plan->topology, n)->num_gpus;
    return TV_OK;
}

/* The mesh; by default as many replicas as there are devices for. */
static tv_status_t resolve_extent(const struct tv_map_options *o, struct tv_map_plan *plan)
{
    const int num_arrivals = plan->args.num_arrivals;
    const int64_t model_ranks = (int64_t)o->train.pp * o->train.tp;
    int64_t replicas = o->train.dp;
    if (replicas == 0)
        replicas = num_arrivals >= model_ranks ? num_arrivals / model_ranks : 1;
    if (model_ranks > num_arrivals / replicas)
        return TV_ERR(TV_INVALID,
                      "--pp %d x --tp %d x --dp %" PRId64 " needs %.0f devices, there %s %d",
                      o->train.pp, o->train.tp, replicas, (double)model_ranks * (double)replicas,
                      num_arrivals == 1 ? "is" : "are", num_arrivals);
    plan->args.extent = (struct tv_mesh_coord){{o->train.pp, (int)replicas, o->train.tp}};
    return TV_OK;
}

static const char *schedule_of(const struct tv_train_options *o)
{
    return o->schedule != NULL ? o->schedule : tv_schedule_default_name(o->vpp);
}

static tv_status_t resolve_chunks(const struct tv_train_options *o, int *num_chunks)
{
    const char *name = schedule_of(o);
    if (!tv_schedule_is_known(name))
        return TV_ERR(TV_INVALID, "--schedule %s is not one of %s", name, tv_schedule_names());
    *num_chunks = o->vpp != 0 ? o->vpp : tv_schedule_default_chunks(name);
    if (tv_schedule_check_chunks(name, *num_chunks) != TV_OK)
        return TV_ERR(TV_INVALID, "--vpp %d: %s", *num_chunks, tv_error_message());
    return TV_OK;
}

/* Pieces of a run that has no schedule's actions: only where layers lie matters here. */
static tv_status_t resolve_pieces(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    if (tv_recompute_parse(o->recompute, &run->recompute) != TV_OK)
        return TV_ERR(TV_INVALID, "--recompute %s is not one of none, selective, full",
                      o->recompute);
    const int P = run->extent.at[TV_PIPE], L = run->model.num_layers;
    if (run->num_chunks > L / P)
        return TV_ERR(TV_INVALID, "--pp %d, %d chunk(s) per stage: more than the model's %d layers",
                      P, run->num_chunks, L);
    const int num_pieces = P * run->num_chunks;
    run->pieces = calloc((size_t)num_pieces, sizeof(*run->pieces));
    if (run->pieces == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d pieces of the model", num_pieces);
    return tv_partition_uniform(run->model.num_layers, num_pieces, run->pieces);
}

static tv_status_t traffic_of_model(const struct tv_map_options *o, const struct tv_map_plan *plan,
                                    int num_chunks, struct tv_traffic *traffic)
{
    const int is_fp32 =
        o->precision != NULL ? strcmp(o->precision, "fp32") == 0 : plan->topology.shapes[0].is_cpu;
    const int bytes = is_fp32 ? 4 : 2;
    const struct tv_traffic_sizes sizes = {bytes, bytes, bytes};
    struct tv_run run = {
        .options = o->train, .data_format = TV_TOKENS_U16, .extent = plan->args.extent};
    run.num_chunks = num_chunks;
    tv_status_t status = tv_run_resolve_zero(&run);
    if (status == TV_OK)
        status = tv_run_resolve_model(&run);
    if (status == TV_OK)
        status = tv_run_resolve_batch(&run);
    if (status == TV_OK)
        status = resolve_pieces(&run);
    if (status == TV_OK)
        status = tv_run_traffic(&run, sizes, traffic);
    tv_run_free(&run);
    return status;
}

static tv_status_t resolve_traffic(const struct tv_map_options *o, struct tv_map_plan *plan)
{
    static const int axes[3] = {TV_TENSOR, TV_PIPE, TV_DATA}; /* as T,P,D of the flags */
    int num_chunks;
    TV_TRY(resolve_chunks(&o->train, &num_chunks));
    struct tv_traffic traffic = {.wraps_pipe = num_chunks > 1 && tv_schedule_placement(schedule_of(
                                                                     &o->train)) == TV_PLACE_LOOP};
    if (o->traffic_text == NULL)
        TV_TRY(traffic_of_model(o, plan, num_chunks, &traffic));
    for (int i = 0; i < 3; i++) {
        if (o->traffic_text != NULL)
            traffic.load[axes[i]] = o->traffic[i];
        traffic.exposed[axes[i]] = o->exposed[i];
    }
    plan->args.traffic = traffic;
    return TV_OK;
}

/* From devices to mesh ranks and back. */
static tv_status_t index_layout(struct tv_map_plan *plan)
{
    const struct tv_map *map = &plan->map;
    const int num_devices = tv_map_plan_num_devices(plan);
    plan->mesh_rank_at = malloc((size_t)num_devices * sizeof(*plan->mesh_rank_at));
    plan->places_of = calloc((size_t)map->num_ranks, sizeof(*plan->places_of));
    if (plan->mesh_rank_at == NULL || plan->places_of == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d devices", num_devices);
    for (int i = 0; i < num_devices; i++)
        plan->mesh_rank_at[i] = -1;
    for (int i = 0; i < map->num_arrivals; i++) {
        const struct tv_device_place place = map->places[i];
        if (map->mesh_rank[i] < 0)
            continue;
        plan->mesh_rank_at[plan->first_device[place.node] + place.device] = map->mesh_rank[i];
        plan->places_of[map->mesh_rank[i]] = place;
    }
    return TV_OK;
}

static tv_status_t make(const struct tv_map_options *o, struct tv_map_plan *plan)
{
    TV_TRY(tv_topology_read(o->topology, o->network, &plan->topology));
    TV_TRY(count_devices(plan));
    TV_TRY(tv_map_arrivals_read(o->arrival, &plan->topology, plan->first_device,
                                &plan->args.num_arrivals, &plan->arrivals));
    TV_TRY(resolve_extent(o, plan));
    TV_TRY(resolve_traffic(o, plan));
    plan->args.topology = &plan->topology;
    plan->args.arrivals = plan->arrivals;
    TV_TRY(tv_map_solve(&plan->args, &plan->map));
    return index_layout(plan);
}

tv_status_t tv_map_plan_make(const struct tv_map_options *options, struct tv_map_plan *plan_out)
{
    struct tv_map_plan plan = {0};
    const tv_status_t status = make(options, &plan);
    if (status != TV_OK) {
        tv_map_plan_free(&plan);
        return status;
    }
    *plan_out = plan;
    plan_out->args.topology = &plan_out->topology;
    return TV_OK;
}

void tv_map_plan_free(struct tv_map_plan *plan)
{
    tv_map_free(&plan->map);
    tv_topology_free(&plan->topology);
    free(plan->arrivals);
    free(plan->first_device);
    free(plan->mesh_rank_at);
    free(plan->places_of);
    *plan = (struct tv_map_plan){0};
}
