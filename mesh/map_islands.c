/* mesh/map_islands.c -- levels inside a node that constrain GPU traffic.
 *
 * Where a switch joins all GPUs there are none: sockets then matter for CPUs only. Strong links make
 * islands of GPUs that all have them to each other (the pairs of POWER8 or MI250X). Where links do
 * not join all GPUs or are unknown, what the PCIe bus says is added: a shared bridge, NUMA node,
 * package. Each level must unite whole islands of the finer one. */
#include "mesh/map_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double pcie_gbps = 25; /* one GPU over its slot: PCIe 4 x16 as measured */

void tv_map_islands_free(struct tv_map_islands *islands)
{
    free(islands->label);
    free(islands->rate);
    *islands = (struct tv_map_islands){0};
}

static double link(const struct tv_node_shape *shape, int i, int j)
{
    return shape->links_kind == TV_LINKS_MATRIX ? shape->links[i * shape->num_gpus + j] : 0;
}

/* Label each GPU with the smallest one that a path of links of at least `least` leads to. */
static void label_components(const struct tv_node_shape *shape, double least, int *label)
{
    const int num = shape->num_gpus;
    for (int i = 0; i < num; i++)
        label[i] = i;
    for (int changed = 1; changed;) {
        changed = 0;
        for (int i = 0; i < num; i++) {
            for (int j = 0; j < num; j++) {
                if (link(shape, i, j) >= least && label[j] < label[i]) {
                    label[i] = label[j];
                    changed = 1;
                }
            }
        }
    }
}

static int are_cliques(const struct tv_node_shape *shape, double least, const int *label)
{
    for (int i = 0; i < shape->num_gpus; i++) {
        for (int j = 0; j < shape->num_gpus; j++) {
            if (i != j && label[i] == label[j] && link(shape, i, j) < least)
                return 0;
        }
    }
    return 1;
}

/* Between all in one and each alone, and a union of the finer level's islands. */
static int is_level(const struct tv_map_islands *islands, const int *label)
{
    const int num = islands->num_gpus;
    const int *finer =
        islands->num_levels > 0 ? islands->label + (islands->num_levels - 1) * num : NULL;
    int has_two = 0, has_company = 0, differs = finer == NULL;
    for (int i = 0; i < num; i++) {
        has_two |= label[i] != label[0];
        has_company |= label[i] != i;
        differs = differs || finer[i] != label[i];
        if (finer != NULL && label[finer[i]] != label[i])
            return 0;
    }
    return has_two && has_company && differs;
}

/* Links out of the island at their true rate, and the bus or the NICs for what has no link. */
static double rate_out(const struct tv_node_shape *shape, const int *label, int island)
{
    const int num = shape->num_gpus;
    double most = 0, crossing = 0, size = 0;
    for (int i = 0; i < num; i++) {
        double row = 0;
        for (int j = 0; j < num; j++) {
            row += i != j ? link(shape, i, j) : 0;
            if (label[i] == island && label[j] != island)
                crossing += link(shape, i, j);
        }
        most = fmax(most, row);
        size += label[i] == island;
    }
    const double bus = most > 0 || shape->gpu_gbps <= 0 ? pcie_gbps : shape->gpu_gbps;
    const double scale = most > 0 && shape->gpu_gbps > 0 ? shape->gpu_gbps / most : 1;
    return 1e9 * (crossing * scale + size * fmax(bus, shape->nic_gbps / num));
}

static void add_level(const struct tv_node_shape *shape, const int *label,
                      struct tv_map_islands *islands)
{
    const int num = shape->num_gpus;
    if (islands->num_levels == TV_MAP_MAX_ISLAND_LEVELS || !is_level(islands, label))
        return;
    const int at = islands->num_levels++ * num;
    for (int i = 0; i < num; i++) {
        islands->label[at + i] = label[i];
        islands->rate[at + i] = rate_out(shape, label, label[i]);
    }
}

static void add_link_levels(const struct tv_node_shape *shape, int *label,
                            struct tv_map_islands *islands)
{
    double least = INFINITY;
    for (;;) {
        double next = 0; /* the strongest link below `least` */
        for (int i = 0; i < shape->num_gpus; i++) {
            for (int j = 0; j < shape->num_gpus; j++) {
                if (i != j && link(shape, i, j) < least)
                    next = fmax(next, link(shape, i, j));
            }
        }
        if (next <= 0)
            return;
        least = next;
        label_components(shape, least, label);
        if (are_cliques(shape, least, label))
            add_level(shape, label, islands);
    }
}

static void add_bus_levels(const struct tv_node_shape *shape, int *label,
                           struct tv_map_islands *islands)
{
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < shape->num_gpus; i++) {
            const int keys[] = {shape->gpus[i].pcie_switch, shape->gpus[i].numa,
                                shape->gpus[i].package};
            label[i] = i;
            for (int j = 0; j < i && label[i] == i && keys[kind] >= 0; j++) {
                const int others[] = {shape->gpus[j].pcie_switch, shape->gpus[j].numa,
                                      shape->gpus[j].package};
                if (others[kind] == keys[kind])
                    label[i] = j;
            }
        }
        add_level(shape, label, islands);
    }
}

tv_status_t tv_map_islands_create(const struct tv_node_shape *shape,
                                  struct tv_map_islands *islands_out)
{
    struct tv_map_islands islands = {.num_gpus = shape->num_gpus};
    const size_t num = (size_t)shape->num_gpus, all = TV_MAP_MAX_ISLAND_LEVELS * num;
    islands.label = calloc(all, sizeof(int));
    islands.rate = calloc(all, sizeof(double));
    int *label = calloc(num, sizeof(int));
    if (islands.label == NULL || islands.rate == NULL || label == NULL) {
        tv_map_islands_free(&islands);
        free(label);
        return TV_ERR(TV_NO_MEMORY, "mapper: islands of %d GPUs", shape->num_gpus);
    }
    if (shape->links_kind != TV_LINKS_SWITCH) {
        add_link_levels(shape, label, &islands);
        int joins_all = 1;
        label_components(shape, 1e-9, label);
        for (int i = 0; i < shape->num_gpus; i++)
            joins_all &= label[i] == 0;
        if (!joins_all)
            add_bus_levels(shape, label, &islands);
    }
    free(label);
    *islands_out = islands;
    return TV_OK;
}
