/* mesh/mapper.c -- from devices and arrivals to a layout, and back to ranks. */
#include "mesh/map_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The input in canonical order. */
struct input {
    const struct tv_map_args *args;
    int *base;       /* [nodes + 1] number of a node's first device in the topology */
    int num_devices; /* of the topology */
    struct tv_device_place *places; /* [arrivals] */
    int num_arrivals;
    int *arrival_of;         /* [num_devices], topology order: the rank there, or -1 */
    struct tv_map_tree tree; /* of the devices with a rank */
    struct tv_map_problem problem;
};

static void input_free(struct input *input)
{
    tv_map_problem_free(&input->problem);
    tv_map_tree_free(&input->tree);
    free(input->base);
    free(input->places);
    free(input->arrival_of);
}

static tv_status_t set_places(struct input *input)
{
    const struct tv_map_args *args = input->args;
    const struct tv_topology *topology = args->topology;
    input->num_arrivals = args->arrivals != NULL ? args->num_arrivals : input->num_devices;
    const size_t num = (size_t)(input->num_arrivals > 0 ? input->num_arrivals : 1);
    input->places = malloc(num * sizeof(*input->places));
    if (input->places == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: %zu ranks", num);
    for (int n = 0; n < topology->num_nodes && args->arrivals == NULL; n++) {
        for (int i = input->base[n]; i < input->base[n + 1]; i++)
            input->places[i] = (struct tv_device_place){n, i - input->base[n]};
    }
    if (args->arrivals != NULL && input->num_arrivals > 0)
        memcpy(input->places, args->arrivals, num * sizeof(*input->places));
    return TV_OK;
}

static tv_status_t check_places(struct input *input)
{
    const struct tv_topology *topology = input->args->topology;
    for (int i = 0; i < input->num_devices; i++)
        input->arrival_of[i] = -1;
    for (int r = 0; r < input->num_arrivals; r++) {
        const struct tv_device_place at = input->places[r];
        if (at.node < 0 || at.node >= topology->num_nodes || at.device < 0 ||
            at.device >= tv_topology_shape(topology, at.node)->num_gpus)
            return TV_ERR(TV_INVALID, "rank %d is on device %d of node %d, which is not there", r,
                          at.device, at.node);
        int *arrival = &input->arrival_of[input->base[at.node] + at.device];
        if (*arrival >= 0)
            return TV_ERR(TV_INVALID, "ranks %d and %d are both on device %d of %s", *arrival, r,
                          at.device, topology->nodes[at.node].name);
        *arrival = r;
    }
    return TV_OK;
}

static tv_status_t check_extent(const struct input *input)
{
    const struct tv_mesh_coord extent = input->args->extent;
    double needed = 1;
    for (int a = 0; a < TV_NUM_AXES; a++) {
        if (extent.at[a] < 1)
            return TV_ERR(TV_INVALID, "the %s axis has %d ranks, and needs at least 1",
                          tv_mesh_axis_name((enum tv_mesh_axis)a), extent.at[a]);
        needed *= extent.at[a];
    }
    if (needed > input->num_arrivals)
        return TV_ERR(TV_INVALID,
                      "a mesh of pipe=%d x data=%d x tensor=%d needs %.0f devices, there are %d",
                      extent.at[TV_PIPE], extent.at[TV_DATA], extent.at[TV_TENSOR], needed,
                      input->num_arrivals);
    return TV_OK;
}

static tv_status_t make_tree(struct input *input)
{
    unsigned char *is_available = malloc((size_t)input->num_devices);
    if (is_available == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: %d devices", input->num_devices);
    for (int i = 0; i < input->num_devices; i++)
        is_available[i] = input->arrival_of[i] >= 0;
    const tv_status_t status =
        tv_map_tree_create(input->args->topology, is_available, &input->tree);
    free(is_available);
    return status;
}

static tv_status_t fill(struct input *input)
{
    const struct tv_topology *topology = input->args->topology;
    input->base = calloc((size_t)topology->num_nodes + 1, sizeof(*input->base));
    if (input->base == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: %d nodes", topology->num_nodes);
    for (int n = 0; n < topology->num_nodes; n++)
        input->base[n + 1] = input->base[n] + tv_topology_shape(topology, n)->num_gpus;
    input->num_devices = input->base[topology->num_nodes];
    TV_TRY(set_places(input));
    TV_TRY(check_extent(input));
    input->arrival_of = malloc((size_t)input->num_devices * sizeof(*input->arrival_of));
    if (input->arrival_of == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: %d devices", input->num_devices);
    TV_TRY(check_places(input));
    TV_TRY(make_tree(input));
    return tv_map_problem_create(&input->tree, input->args->extent, &input->args->traffic,
                                 &input->problem);
}

static tv_status_t input_create(const struct tv_map_args *args, struct input *input_out)
{
    struct input input = {.args = args};
    const tv_status_t status = fill(&input);
    if (status != TV_OK) {
        input_free(&input);
        return status;
    }
    *input_out = input;
    input_out->problem.tree = &input_out->tree;
    return TV_OK;
}

static int arrival_at(const struct input *input, int i)
{
    const struct tv_map_device *device = &input->tree.devices[i];
    return input->arrival_of[input->base[device->node] + device->device];
}

/* The first ranks take the cells in their own order. */
static void identity_layout(const struct input *input, int *cell_of)
{
    for (int i = 0; i < input->tree.num_devices; i++) {
        const int rank = arrival_at(input, i);
        cell_of[i] = rank < input->problem.num_cells ? rank : -1;
    }
}

/* Identity, and the costliest order of the axes over canonical order. */
static void compare(const struct input *input, int *cell_of, struct tv_map_best *best,
                    struct tv_map *map)
{
    struct tv_map_score score;
    identity_layout(input, cell_of);
    tv_map_score_of(&input->problem, cell_of, &score);
    map->identity = score.cost;
    map->worst = score.cost;
    map->identity_split_tensor_groups = tv_map_split_groups(&input->problem, cell_of);
    tv_map_offer(&input->problem, cell_of, best);
    for (int k = 0; k < 6; k++) {
        tv_map_row_major(&input->problem, tv_map_orders[k], cell_of);
        tv_map_score_of(&input->problem, cell_of, &score);
        if (score.cost.total > map->worst.total)
            map->worst = score.cost;
        tv_map_offer(&input->problem, cell_of, best);
    }
}

static void set_bound(const struct input *input, struct tv_map *map)
{
    double axis[TV_NUM_AXES];
    for (int a = 0; a < TV_NUM_AXES; a++)
        axis[a] = tv_map_axis_bound(&input->problem, (enum tv_mesh_axis)a);
    map->lower_bound = tv_map_total(&input->args->traffic, axis);
    if (map->lower_bound >= map->chosen.total * (1 - 1e-12))
        map->is_exact = 1;
    if (map->is_exact)
        map->lower_bound = map->chosen.total;
}

static tv_status_t set_ranks(const struct input *input, const int *cell_of, struct tv_map *map)
{
    map->num_arrivals = input->num_arrivals;
    map->num_ranks = input->problem.num_cells;
    map->num_unused = input->num_devices - map->num_ranks;
    const size_t num = (size_t)map->num_arrivals;
    map->places = malloc(num * sizeof(*map->places));
    map->mesh_rank = malloc(num * sizeof(*map->mesh_rank));
    map->unused = malloc(((size_t)map->num_unused + 1) * sizeof(*map->unused));
    if (map->places == NULL || map->mesh_rank == NULL || map->unused == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: %zu ranks", num);
    memcpy(map->places, input->places, num * sizeof(*map->places));
    for (int i = 0; i < input->tree.num_devices; i++)
        map->mesh_rank[arrival_at(input, i)] = cell_of[i];
    int num_unused = 0;
    for (int n = 0; n < input->args->topology->num_nodes; n++) {
        for (int i = input->base[n]; i < input->base[n + 1]; i++) {
            if (input->arrival_of[i] < 0 || map->mesh_rank[input->arrival_of[i]] < 0)
                map->unused[num_unused++] = (struct tv_device_place){n, i - input->base[n]};
        }
    }
    return TV_OK;
}

static tv_status_t solve(struct input *input, int *cell_of, struct tv_map_best *best,
                         struct tv_map *map)
{
    tv_map_mark_suspicious(input->args->topology, &input->tree);
    TV_TRY(tv_map_search_sound(&input->problem, best, &map->is_exact));
    compare(input, cell_of, best, map);
    TV_TRY(tv_map_arrange(input->args->topology, &input->problem, best));
    map->chosen = best->score.cost;
    map->split_tensor_groups = tv_map_split_groups(&input->problem, best->cell_of);
    set_bound(input, map);
    TV_TRY(set_ranks(input, best->cell_of, map));
    return tv_map_warn(input->args->topology, &input->problem, best->cell_of, map);
}

tv_status_t tv_map_solve(const struct tv_map_args *args, struct tv_map *map_out)
{
    struct input input;
    TV_TRY(input_create(args, &input));
    struct tv_map map = {0};
    struct tv_map_best best = {0};
    int *cell_of = malloc((size_t)input.tree.num_devices * sizeof(*cell_of));
    tv_status_t status = cell_of != NULL ? tv_map_best_create(input.tree.num_devices, &best)
                                         : TV_ERR(TV_NO_MEMORY, "mapper: layout of %d devices",
                                                  input.tree.num_devices);
    if (status == TV_OK)
        status = solve(&input, cell_of, &best, &map);
    free(cell_of);
    tv_map_best_free(&best);
    input_free(&input);
    if (status != TV_OK) {
        tv_map_free(&map);
        return status;
    }
    *map_out = map;
    return TV_OK;
}

void tv_map_free(struct tv_map *map)
{
    for (int i = 0; i < map->num_warnings; i++)
        free(map->warnings[i]);
    free(map->warnings);
    free(map->places);
    free(map->mesh_rank);
    free(map->unused);
    *map = (struct tv_map){0};
}

/* Each cell once, and nothing else but -1. */
static tv_status_t check_ranks(const struct input *input, const int *mesh_rank)
{
    int *seen = input->problem.count;
    tv_status_t status = TV_OK;
    int num = 0;
    for (int r = 0; r < input->num_arrivals && status == TV_OK; r++) {
        if (mesh_rank[r] < -1 || mesh_rank[r] >= input->problem.num_cells)
            status = TV_ERR(TV_INVALID, "rank %d has mesh rank %d of %d", r, mesh_rank[r],
                            input->problem.num_cells);
        else if (mesh_rank[r] >= 0 && seen[mesh_rank[r]]++ > 0)
            status = TV_ERR(TV_INVALID, "mesh rank %d is given twice", mesh_rank[r]);
        else
            num += mesh_rank[r] >= 0;
    }
    if (status == TV_OK && num < input->problem.num_cells)
        status = TV_ERR(TV_INVALID, "%d of %d mesh ranks are given", num, input->problem.num_cells);
    memset(seen, 0, (size_t)input->problem.num_cells * sizeof(*seen));
    return status;
}

tv_status_t tv_map_evaluate(const struct tv_map_args *args, const int *mesh_rank,
                            struct tv_map_cost *cost_out, int *split_tensor_groups_out)
{
    struct input input;
    TV_TRY(input_create(args, &input));
    int *cell_of = malloc((size_t)input.tree.num_devices * sizeof(*cell_of));
    tv_status_t status = cell_of != NULL ? check_ranks(&input, mesh_rank)
                                         : TV_ERR(TV_NO_MEMORY, "mapper: layout of %d devices",
                                                  input.tree.num_devices);
    if (status == TV_OK) {
        struct tv_map_score score;
        for (int i = 0; i < input.tree.num_devices; i++)
            cell_of[i] = mesh_rank[arrival_at(&input, i)];
        tv_map_score_of(&input.problem, cell_of, &score);
        *cost_out = score.cost;
        *split_tensor_groups_out = tv_map_split_groups(&input.problem, cell_of);
    }
    free(cell_of);
    input_free(&input);
    return status;
}
