/* train/place.c -- nodes, CPUs, devices, then the layout: chosen by one rank, checked by all. */
#include "train/place.h"
#include "base/log.h"
#include "mesh/discover.h"
#include "train/split.h"
#include "train/traffic.h"
#include <stdlib.h>
#include <string.h>

static const double probe_seconds = 1;

/* What a step sends. Before a profile has split the model, the split by FLOPs stands in for it. */
static tv_status_t find_traffic(const struct tv_run *run, struct tv_traffic *traffic_out)
{
    const int weight = (int)tv_dtype_bytes(run->dtype),
              gradient = (int)tv_dtype_bytes(run->grad_dtype);
    const struct tv_traffic_sizes sizes = {.activation = weight,
                                           .gradient = gradient,
                                           .gathered = run->zero_stage > 0 ? weight : gradient};
    if (run->has_split)
        return tv_run_traffic(run, sizes, traffic_out);
    struct tv_run guess = *run;
    guess.options.memory_limit_mib = 0;
    guess.pieces =
        calloc((size_t)run->extent.at[TV_PIPE] * (size_t)run->num_chunks, sizeof(*guess.pieces));
    if (guess.pieces == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d stages", run->extent.at[TV_PIPE]);
    tv_status_t status = tv_run_split(&guess, TV_PARTITION_FLOPS, NULL);
    if (status == TV_OK)
        status = tv_run_traffic(&guess, sizes, traffic_out);
    free(guess.pieces);
    return status;
}

/* ---- the layout, on rank 0 ---- */

static void say_warnings(char *const *warnings, int num)
{
    for (int i = 0; i < num; i++)
        tv_log(TV_LOG_WARN, "%s", warnings[i]);
}

static tv_status_t solve(const struct tv_map_args *args, int *mesh_rank, struct tv_run_place *place)
{
    struct tv_map map = {0};
    TV_TRY(tv_map_solve(args, &map));
    say_warnings(args->topology->warnings, args->topology->num_warnings);
    say_warnings(map.warnings, map.num_warnings);
    memcpy(mesh_rank, map.mesh_rank, (size_t)args->num_arrivals * sizeof(*mesh_rank));
    place->chosen = map.chosen;
    place->identity = map.identity;
    place->split_tensor_groups = map.split_tensor_groups;
    tv_map_free(&map);
    return TV_OK;
}

/* A placement that was asked for, beside identity. */
static tv_status_t evaluate(const struct tv_map_args *args, const char *file, int *mesh_rank,
                            struct tv_run_place *place)
{
    const int num_ranks = args->num_arrivals;
    struct tv_placement given;
    for (int r = 0; r < num_ranks; r++)
        mesh_rank[r] = r;
    TV_TRY(tv_map_evaluate(args, mesh_rank, &place->identity, &place->split_tensor_groups));
    place->chosen = place->identity;
    if (file == NULL)
        return TV_OK;
    TV_TRY(tv_placement_read(file, num_ranks, &given));
    memcpy(mesh_rank, given.place_of, (size_t)num_ranks * sizeof(*mesh_rank));
    tv_placement_destroy(&given);
    return tv_map_evaluate(args, mesh_rank, &place->chosen, &place->split_tensor_groups);
}

/* Words or files in place of what is found. */
static int has_given_topology(const struct tv_run *run)
{
    const char *spec = run->options.topology;
    return spec != NULL && strcmp(spec, TV_TOPO_LIVE) != 0;
}

/* Node i of --topology stands for the i-th node found, and holds its ranks. */
static tv_status_t check_given(const struct tv_topology *given, const struct tv_nodes *nodes,
                               const struct tv_device_place *arrivals, int num_ranks)
{
    if (given->num_nodes != nodes->num_nodes)
        return TV_ERR(TV_INVALID, "--topology has %d node(s), the ranks are on %d",
                      given->num_nodes, nodes->num_nodes);
    for (int r = 0; r < num_ranks; r++) {
        const int n = arrivals[r].node, num = tv_topology_shape(given, n)->num_gpus;
        if (arrivals[r].device >= num)
            return TV_ERR(TV_INVALID, "--topology has %d device(s) on node %d, %s has more ranks",
                          num, n, nodes->names[n]);
    }
    return TV_OK;
}

static tv_status_t choose_on(const struct tv_run *run, const struct tv_topology *topology,
                             const struct tv_device_place *arrivals, int num_ranks, int *mesh_rank,
                             struct tv_run_place *place)
{
    const char *name = run->options.placement;
    struct tv_map_args args = {.topology = topology,
                               .extent = run->extent,
                               .num_arrivals = num_ranks,
                               .arrivals = arrivals};
    TV_TRY(find_traffic(run, &args.traffic));
    if (strcmp(name, "auto") == 0)
        return solve(&args, mesh_rank, place);
    return evaluate(&args, strcmp(name, "identity") == 0 ? NULL : name, mesh_rank, place);
}

static tv_status_t choose(const struct tv_run *run, const struct tv_topology *found,
                          const struct tv_device_place *arrivals, int num_ranks, int *mesh_rank,
                          struct tv_run_place *place)
{
    struct tv_topology given = {0};
    if (!has_given_topology(run))
        return choose_on(run, found, arrivals, num_ranks, mesh_rank, place);
    TV_TRY(tv_topology_read(run->options.topology, run->options.network, &given));
    tv_status_t status = check_given(&given, &place->nodes, arrivals, num_ranks);
    tv_links_apply(&place->rates, &given);
    if (status == TV_OK)
        status = choose_on(run, &given, arrivals, num_ranks, mesh_rank, place);
    tv_topology_free(&given);
    return status;
}

/* ---- told to all ---- */

static tv_status_t tell(struct tv_comm *world, int *mesh_rank, struct tv_run_place *place)
{
    const int num_ranks = tv_comm_size(world);
    TV_TRY(tv_comm_broadcast_now(world, mesh_rank, num_ranks, TV_I32, 0));
    TV_TRY(tv_comm_broadcast_now(world, &place->chosen, (int64_t)sizeof(place->chosen), TV_U8, 0));
    TV_TRY(
        tv_comm_broadcast_now(world, &place->identity, (int64_t)sizeof(place->identity), TV_U8, 0));
    TV_TRY(tv_comm_broadcast_now(world, &place->split_tensor_groups, 1, TV_I32, 0));
    TV_TRY(tv_placement_check_alike(world, num_ranks, mesh_rank));
    return tv_placement_create(num_ranks, mesh_rank, &place->placement);
}

static tv_status_t choose_and_tell(struct tv_comm *world, const struct tv_run *run,
                                   const struct tv_topology *topology,
                                   const struct tv_device_place *arrivals,
                                   struct tv_run_place *place)
{
    int first_failed;
    tv_status_t status = TV_OK;
    int *mesh_rank = calloc((size_t)tv_comm_size(world), sizeof(*mesh_rank));
    if (mesh_rank == NULL)
        status = TV_ERR(TV_NO_MEMORY, "placement of %d ranks", tv_comm_size(world));
    if (status == TV_OK && tv_comm_rank(world) == 0)
        status = choose(run, topology, arrivals, tv_comm_size(world), mesh_rank, place);
    status = tv_comm_agree(world, status, &first_failed);
    if (status == TV_OK)
        status = tell(world, mesh_rank, place);
    free(mesh_rank);
    return status;
}

static tv_status_t note_gpus(const struct tv_topology *topology,
                             const struct tv_device_place *arrivals, int num_ranks,
                             struct tv_run_place *place)
{
    place->gpus = calloc((size_t)num_ranks, sizeof(*place->gpus));
    if (place->gpus == NULL)
        return TV_ERR(TV_NO_MEMORY, "GPUs of %d ranks", num_ranks);
    for (int r = 0; r < num_ranks; r++)
        memcpy(place->gpus[r],
               tv_topology_shape(topology, arrivals[r].node)->gpus[arrivals[r].device].pci,
               sizeof(place->gpus[r]));
    return TV_OK;
}

/* The machines and who is where; owned. */
struct found {
    struct tv_machine machine;
    struct tv_topology topology;
    struct tv_device_place *arrivals; /* [ranks] */
    int uses_gpus;
};

/* GPUs by their addresses: where they are asked for, and for a run on GPUs where all ranks can look for them. */
static tv_status_t find_gpu_use(struct tv_comm *world, const struct tv_run *run, int *uses_out)
{
    const int is_live = run->options.topology != NULL && !has_given_topology(run);
    int uses = is_live || (run->device_kind == TV_DEVICE_CUDA && run->options.topology == NULL &&
                           tv_gpu_has_driver());
    TV_TRY(tv_comm_all_reduce_now(world, &uses, 1, TV_I32, TV_MIN));
    *uses_out = uses;
    return TV_OK;
}

/* NCCL is for one rank on each GPU; through the host any number works. */
static int may_share_gpus(const struct tv_run *run)
{
    return run->device_kind == TV_DEVICE_CUDA && run->move != TV_MOVE_NCCL;
}

static tv_status_t discover(struct tv_comm *world, const struct tv_run *run, int position,
                            struct tv_run_place *place, struct found *found)
{
    const struct tv_discover_args args = {.nodes = &place->nodes,
                                          .machine = &found->machine,
                                          .place = position,
                                          .network =
                                              has_given_topology(run) ? NULL : run->options.network,
                                          .uses_gpus = found->uses_gpus,
                                          .may_share_gpus = may_share_gpus(run)};
    int first_failed;
    tv_status_t status = TV_OK;
    found->arrivals = calloc((size_t)tv_comm_size(world), sizeof(*found->arrivals));
    if (found->arrivals == NULL)
        status = TV_ERR(TV_NO_MEMORY, "places of %d ranks", tv_comm_size(world));
    TV_TRY(tv_comm_agree(world, status, &first_failed));
    TV_TRY(tv_topology_discover(world, &args, &found->topology, found->arrivals));
    if (args.uses_gpus)
        status = note_gpus(&found->topology, found->arrivals, tv_comm_size(world), place);
    return tv_comm_agree(world, status, &first_failed);
}

/* Two ranks on one device. */
static int find_sharers(const struct tv_device_place *at, int num_ranks, int *a_out, int *b_out)
{
    for (int b = 1; b < num_ranks; b++) {
        for (int a = 0; a < b; a++) {
            if (at[a].node != at[b].node || at[a].device != at[b].device)
                continue;
            *a_out = a;
            *b_out = b;
            return 1;
        }
    }
    return 0;
}

/* Ranks that share GPUs move tensors through host memory: they are laid out by their places on CPUs instead. */
static void leave_shared_gpus(struct tv_comm *world, const struct tv_run_place *place,
                              struct found *found)
{
    int a, b;
    if (!find_sharers(found->arrivals, tv_comm_size(world), &a, &b))
        return;
    if (tv_comm_rank(world) == 0) {
        say_warnings(found->topology.warnings, found->topology.num_warnings);
        tv_log(TV_LOG_INFO,
               "ranks %d and %d share GPU %s of %s: tensors move through host memory, and ranks "
               "are laid out by their CPUs",
               a, b, place->gpus[a], place->nodes.names[found->arrivals[a].node]);
    }
    tv_topology_free(&found->topology);
    found->topology = (struct tv_topology){0};
    free(found->arrivals);
    found->arrivals = NULL;
    found->uses_gpus = 0;
}

static void found_free(struct found *found)
{
    tv_machine_free(&found->machine);
    tv_topology_free(&found->topology);
    free(found->arrivals);
}

/* ---- this rank ---- */

/* Where each rank may run, for the metrics. */
static tv_status_t gather_bindings(struct tv_comm *world, const struct tv_binding *mine,
                                   struct tv_run_place *place)
{
    struct tv_request *request = NULL;
    int first_failed;
    tv_status_t status = TV_OK;
    place->bindings = calloc((size_t)tv_comm_size(world), sizeof(*place->bindings));
    if (place->bindings == NULL)
        status = TV_ERR(TV_NO_MEMORY, "bindings of %d ranks", tv_comm_size(world));
    TV_TRY(tv_comm_agree(world, status, &first_failed));
    TV_TRY(tv_comm_all_gather(world, mine, place->bindings, (int64_t)sizeof(*mine), TV_U8, NULL,
                              &request));
    return tv_request_wait(&request);
}

/* GPUs are found before ranks are bound near them, places on CPUs afterwards. */
static tv_status_t find_place(struct tv_comm *world, const struct tv_run *run, struct found *found,
                              struct tv_run_place *place)
{
    struct tv_binding binding;
    int first_failed, numa = -1;
    TV_TRY(find_gpu_use(world, run, &found->uses_gpus));
    TV_TRY(tv_nodes_find(world, NULL, &place->nodes));
    TV_TRY(tv_comm_agree(world, tv_machine_share(&place->nodes, NULL, &found->machine),
                         &first_failed));
    if (found->uses_gpus) {
        TV_TRY(discover(world, run, 0, place, found));
        const struct tv_device_place here = found->arrivals[tv_comm_rank(world)];
        numa = tv_topology_shape(&found->topology, here.node)->gpus[here.device].numa;
        leave_shared_gpus(world, place, found);
    }
    TV_TRY(tv_bind(world, &place->nodes, &found->machine, run->is_bound, numa, &binding));
    TV_TRY(gather_bindings(world, &binding, place));
    if (run->options.probe_links)
        TV_TRY(tv_links_measure(world, &place->nodes, probe_seconds, &place->rates));
    if (!found->uses_gpus)
        TV_TRY(discover(world, run, binding.place, place, found));
    tv_links_apply(&place->rates, &found->topology);
    return choose_and_tell(world, run, &found->topology, found->arrivals, place);
}

tv_status_t tv_run_find_place(struct tv_comm *world, struct tv_run *run)
{
    struct found found = {0};
    int first_failed;
    struct tv_run_place *place = calloc(1, sizeof(*place));
    tv_status_t status = TV_OK;
    if (place == NULL)
        status = TV_ERR(TV_NO_MEMORY, "place: %zu bytes", sizeof(*place));
    status = tv_comm_agree(world, status, &first_failed);
    if (status == TV_OK && place != NULL)
        status = find_place(world, run, &found, place);
    found_free(&found);
    if (place != NULL)
        tv_nodes_free_groups(&place->nodes);
    if (status != TV_OK) {
        tv_run_place_free(place);
        return status;
    }
    run->place = place;
    return TV_OK;
}

tv_status_t tv_run_mesh_nodes(const struct tv_run *run, int **node_of_out)
{
    *node_of_out = NULL;
    if (run->place == NULL)
        return TV_OK;
    const struct tv_placement *placement = &run->place->placement;
    int *node_of = calloc((size_t)placement->num_ranks, sizeof(*node_of));
    if (node_of == NULL)
        return TV_ERR(TV_NO_MEMORY, "nodes of %d ranks", placement->num_ranks);
    for (int r = 0; r < placement->num_ranks; r++)
        node_of[placement->place_of[r]] = run->place->nodes.node_of[r];
    *node_of_out = node_of;
    return TV_OK;
}

void tv_run_place_free(struct tv_run_place *place)
{
    if (place == NULL)
        return;
    tv_placement_destroy(&place->placement);
    tv_nodes_free(&place->nodes);
    free(place->bindings);
    free(place->gpus);
    free(place);
}
