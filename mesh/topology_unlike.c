/* mesh/topology_unlike.c -- nodes that cannot be: of one name; and nodes that should not be: unlike
 * most others. */
#include "mesh/topology_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

tv_status_t tv_topology_check_names(const struct tv_topology *topology)
{
    const size_t num = (size_t)topology->num_nodes;
    const char **names = calloc(num + 1, sizeof(*names));
    if (names == NULL)
        return TV_ERR(TV_NO_MEMORY, "names of %zu nodes", num);
    for (size_t n = 0; n < num; n++)
        names[n] = topology->nodes[n].name;
    qsort(names, num, sizeof(*names), compare_names);
    tv_status_t status = TV_OK;
    for (size_t n = 1; n < num && status == TV_OK; n++) {
        if (strcmp(names[n - 1], names[n]) == 0)
            status = TV_ERR(TV_INVALID,
                            "topology: two nodes named %s; FILE*2 makes two nodes of one file",
                            names[n]);
    }
    free(names);
    return status;
}

static int has_gpu(const struct tv_node_shape *shape, const char *pci)
{
    for (int g = 0; g < shape->num_gpus; g++) {
        if (strcmp(shape->gpus[g].pci, pci) == 0)
            return 1;
    }
    return 0;
}

/* How `shape` differs from what most nodes are, in a few words. */
static void describe(const struct tv_node_shape *shape, const struct tv_node_shape *most,
                     char *text, size_t bytes)
{
    if (shape->num_gpus != most->num_gpus) {
        const char *missing = "";
        for (int g = 0; g < most->num_gpus && *missing == '\0'; g++)
            missing = has_gpu(shape, most->gpus[g].pci) ? "" : most->gpus[g].pci;
        snprintf(text, bytes, "%d devices, most nodes have %d%s%s", shape->num_gpus, most->num_gpus,
                 *missing != '\0' ? "; none at " : "", missing);
        return;
    }
    for (int g = 0; g < shape->num_gpus; g++) {
        const struct tv_gpu *here = &shape->gpus[g], *there = &most->gpus[g];
        if (strcmp(here->model, there->model) != 0)
            snprintf(text, bytes, "GPU %d (%s) is \"%s\", most nodes have \"%s\"", g, here->pci,
                     here->model, there->model);
        else if (here->numa != there->numa)
            snprintf(text, bytes, "GPU %d (%s) is in NUMA node %d, on most nodes in %d", g,
                     here->pci, here->numa, there->numa);
        else if (strcmp(here->pci, there->pci) != 0)
            snprintf(text, bytes, "GPU %d is at %s, on most nodes at %s", g, here->pci, there->pci);
        else if (here->nic != there->nic)
            snprintf(text, bytes, "GPU %d (%s) is near NIC %d, on most nodes near %d", g, here->pci,
                     here->nic, there->nic);
        else
            continue;
        return;
    }
    if (shape->gpu_gbps != most->gpu_gbps || shape->nic_gbps != most->nic_gbps)
        snprintf(text, bytes, "%g GB/s for a GPU and %g to the network, most nodes have %g and %g",
                 shape->gpu_gbps, shape->nic_gbps, most->gpu_gbps, most->nic_gbps);
    else
        snprintf(text, bytes, "links, NICs or NUMA nodes are not those of most nodes");
}

/* first[s], num[s]: first node of the shape, and how many there are. */
static tv_status_t warn_shapes(struct tv_topology *topology, const int *first, const int *num)
{
    int most = 0;
    for (int s = 1; s < topology->num_shapes; s++)
        most = num[s] > num[most] ? s : most;
    if (2 * num[most] <= topology->num_nodes)
        return TV_OK;
    for (int s = 0; s < topology->num_shapes; s++) {
        char text[256], others[32] = "";
        if (s == most || num[s] == 0)
            continue;
        describe(&topology->shapes[s], &topology->shapes[most], text, sizeof(text));
        if (num[s] > 1)
            snprintf(others, sizeof(others), " and %d more", num[s] - 1);
        TV_TRY(
            tv_topology_warn(topology, "%s%s: %s", topology->nodes[first[s]].name, others, text));
    }
    return TV_OK;
}

tv_status_t tv_topology_warn_unlike(struct tv_topology *topology)
{
    const size_t num_shapes = (size_t)topology->num_shapes;
    int *first = calloc(num_shapes + 1, sizeof(*first));
    int *num = calloc(num_shapes + 1, sizeof(*num));
    tv_status_t status = TV_OK;
    if (first == NULL || num == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%zu shapes of nodes", num_shapes);
    for (int n = topology->num_nodes - 1; n >= 0 && status == TV_OK; n--) {
        first[topology->nodes[n].shape] = n;
        num[topology->nodes[n].shape]++;
    }
    if (status == TV_OK && num_shapes > 1)
        status = warn_shapes(topology, first, num);
    free(first);
    free(num);
    return status;
}
