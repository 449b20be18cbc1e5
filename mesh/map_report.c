/* mesh/map_report.c -- devices that look wrong, and what a layout has to be warned about. What the
 * topology itself warns of (unknown links, GPUs without a NIC near, unlike nodes) is in
 * tv_topology.warnings. */
#include "mesh/map_internal.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 4 };

static int has_link(const struct tv_node_shape *shape, int i)
{
    for (int j = 0; j < shape->num_gpus; j++) {
        if (i != j && shape->links[i * shape->num_gpus + j] > 0)
            return 1;
    }
    return 0;
}

/* No link where a peer has one. */
static int is_unlinked(const struct tv_node_shape *shape, int i)
{
    if (shape->links_kind != TV_LINKS_MATRIX || has_link(shape, i))
        return 0;
    for (int j = 0; j < shape->num_gpus; j++) {
        if (has_link(shape, j))
            return 1;
    }
    return 0;
}

static const struct tv_gpu *gpu_of(const struct tv_topology *topology,
                                   const struct tv_map_device *device)
{
    return &tv_topology_shape(topology, device->node)->gpus[device->device];
}

/* The model of more than half of the devices, if there is one (Boyer and Moore's majority vote: the
 * only one that can win survives the first pass). */
static const char *majority_model(const struct tv_topology *topology,
                                  const struct tv_map_tree *tree)
{
    const char *model = "";
    int votes = 0, num = 0;
    for (int i = 0; i < tree->num_devices; i++) {
        const char *own = gpu_of(topology, &tree->devices[i])->model;
        if (votes == 0)
            model = own;
        votes += strcmp(own, model) == 0 ? 1 : -1;
    }
    for (int i = 0; i < tree->num_devices; i++)
        num += strcmp(gpu_of(topology, &tree->devices[i])->model, model) == 0;
    return num > tree->num_devices / 2 ? model : "";
}

void tv_map_mark_suspicious(const struct tv_topology *topology, struct tv_map_tree *tree)
{
    const char *model = majority_model(topology, tree);
    for (int i = 0; i < tree->num_devices; i++) {
        struct tv_map_device *device = &tree->devices[i];
        const char *own = gpu_of(topology, device)->model;
        device->is_suspicious =
            is_unlinked(tv_topology_shape(topology, device->node), device->device) ||
            (model[0] != '\0' && own[0] != '\0' && strcmp(own, model) != 0);
    }
}

static tv_status_t warn(struct tv_map *map, const char *format, ...) TV_PRINTF(2, 3);
static tv_status_t warn(struct tv_map *map, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    char **warnings = realloc(map->warnings, ((size_t)map->num_warnings + 1) * sizeof(*warnings));
    if (warnings == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: a warning");
    map->warnings = warnings;
    warnings[map->num_warnings] = strdup(text);
    if (warnings[map->num_warnings] == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: a warning");
    map->num_warnings++;
    return TV_OK;
}

/* The largest divisor of T of which enough groups fit into nodes and domains whole. */
static int tensor_that_fits(const struct tv_map_problem *problem)
{
    const struct tv_map_tree *tree = problem->tree;
    for (int T = problem->extent.at[TV_TENSOR]; T > 1; T--) {
        if (problem->extent.at[TV_TENSOR] % T != 0)
            continue;
        int num_groups = 0, size = 0;
        for (int i = 0; i < tree->num_devices; i++) {
            size++;
            if (i + 1 == tree->num_devices || tree->devices[i].unit != tree->devices[i + 1].unit) {
                num_groups += size / T;
                size = 0;
            }
        }
        if (num_groups >= problem->num_cells / T)
            return T;
    }
    return 1;
}

static tv_status_t warn_split(const struct tv_map_problem *problem, struct tv_map *map)
{
    const int T = problem->extent.at[TV_TENSOR], fits = tensor_that_fits(problem);
    if (map->split_tensor_groups == 0)
        return TV_OK;
    if (fits == T)
        return warn(map,
                    "%d of %d tensor groups leave their node or NVLink domain, though all would "
                    "fit: for this traffic that costs less",
                    map->split_tensor_groups, problem->num_cells / T);
    return warn(map,
                "%d of %d tensor groups leave their node or NVLink domain: tensor=%d does not fit "
                "into the nodes, tensor=%d would",
                map->split_tensor_groups, problem->num_cells / T, T, fits);
}

/* One sentence for all unused devices of a node. */
static tv_status_t warn_unused(const struct tv_topology *topology, struct tv_map *map)
{
    int num_nodes = 0;
    char list[400] = "";
    for (int i = 0; i < map->num_unused;) {
        const int node = map->unused[i].node, first = i;
        while (i < map->num_unused && map->unused[i].node == node)
            i++;
        const size_t used = strlen(list);
        if (num_nodes++ < MAX_LISTED)
            snprintf(list + used, sizeof(list) - used, "%s%s (%d, from device %d)",
                     used > 0 ? ", " : "", topology->nodes[node].name, i - first,
                     map->unused[first].device);
    }
    if (num_nodes == 0)
        return TV_OK;
    return warn(map, "%d devices are unused: %s%s", map->num_unused, list,
                num_nodes > MAX_LISTED ? ", ..." : "");
}

/* Devices that look wrong and have a rank all the same. */
static tv_status_t warn_suspicious(const struct tv_topology *topology,
                                   const struct tv_map_tree *tree, const int *cell_of,
                                   struct tv_map *map)
{
    int num = 0;
    for (int i = 0; i < tree->num_devices; i++) {
        const struct tv_map_device *device = &tree->devices[i];
        if (!device->is_suspicious || cell_of[i] < 0 || num++ >= MAX_LISTED)
            continue;
        const struct tv_gpu *gpu = gpu_of(topology, device);
        TV_TRY(warn(map, "%s device %d (%s) has a rank, but %s", topology->nodes[device->node].name,
                    device->device, gpu->pci,
                    is_unlinked(tv_topology_shape(topology, device->node), device->device)
                        ? "no link where its peers have one"
                        : "another model than most"));
    }
    return num > MAX_LISTED
               ? warn(map, "%d more devices that look wrong have a rank", num - MAX_LISTED)
               : TV_OK;
}

/* Tensor groups inside a node with links whose members have no ring of them. */
static tv_status_t warn_unlinked_groups(const struct tv_topology *topology,
                                        const struct tv_map_problem *problem, struct tv_map *map,
                                        const int *cell_of)
{
    const struct tv_map_tree *tree = problem->tree;
    const int T = problem->extent.at[TV_TENSOR];
    int num = 0, example = -1;
    for (int i = 0; i < tree->num_devices; i++) {
        if (cell_of[i] >= 0)
            problem->device_of[cell_of[i]] = i;
    }
    for (int first = 0; first < problem->num_cells && T > 1; first += T) {
        if (!tv_map_lacks_links(topology, tree, problem->device_of + first, T))
            continue;
        example = num++ == 0 ? first : example;
    }
    if (num == 0)
        return TV_OK;
    const struct tv_map_device *device = &tree->devices[problem->device_of[example]];
    return warn(map, "%d tensor groups have no ring of links, the first on %s from device %d", num,
                topology->nodes[device->node].name, device->device);
}

tv_status_t tv_map_warn(const struct tv_topology *topology, const struct tv_map_problem *problem,
                        const int *cell_of, struct tv_map *map)
{
    TV_TRY(warn_split(problem, map));
    TV_TRY(warn_unlinked_groups(topology, problem, map, cell_of));
    TV_TRY(warn_suspicious(topology, problem->tree, cell_of, map));
    return warn_unused(topology, map);
}
