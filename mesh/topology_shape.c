/* mesh/topology_shape.c -- what all readers do with the shape of a node: check it, pair GPUs with
 * NICs, take over links, and warn of devices that are unlike their peers. */
#include "mesh/topology_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tv_status_t tv_shape_check_gpus(const char *path, const struct tv_node_shape *shape)
{
    if (shape->num_gpus == 0)
        return TV_ERR(TV_INVALID,
                      "%s: no GPUs; ranks on CPUs are described by words such as \"node:1 cpu:8\"",
                      path);
    return TV_OK;
}

tv_status_t tv_shape_check(const char *path, const struct tv_node_shape *shape)
{
    if (shape->num_gpus > TV_TOPO_MAX_DEVICES || shape->num_nics > TV_TOPO_MAX_DEVICES ||
        shape->num_numas > TV_TOPO_MAX_DEVICES)
        return TV_ERR(TV_INVALID, "%s: %d GPUs, %d NICs and %d NUMA nodes, at most %d of a kind",
                      path, shape->num_gpus, shape->num_nics, shape->num_numas,
                      TV_TOPO_MAX_DEVICES);
    for (int g = 0; g < shape->num_gpus; g++) {
        for (int h = 0; h < g; h++) {
            if (shape->gpus[g].pci[0] != '\0' &&
                strcmp(shape->gpus[g].pci, shape->gpus[h].pci) == 0)
                return TV_ERR(TV_INVALID, "%s: two GPUs at PCI address %s", path,
                              shape->gpus[g].pci);
        }
    }
    return TV_OK;
}

tv_status_t tv_shape_add_numa(struct tv_node_shape *shape, int os_index, const char *cpus)
{
    int at = 0;
    while (at < shape->num_numas && shape->numas[at].os_index < os_index)
        at++;
    if (at < shape->num_numas && shape->numas[at].os_index == os_index)
        return TV_OK;
    struct tv_numa *grown = tv_topology_grown(shape->numas, shape->num_numas, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d NUMA nodes", shape->num_numas + 1);
    shape->numas = grown;
    char *copy = strdup(cpus);
    if (copy == NULL)
        return TV_ERR(TV_NO_MEMORY, "CPUs of a NUMA node");
    memmove(&grown[at + 1], &grown[at], (size_t)(shape->num_numas - at) * sizeof(*grown));
    grown[at] = (struct tv_numa){.os_index = os_index, .package = -1, .cpus = copy};
    shape->num_numas++;
    return TV_OK;
}

tv_status_t tv_shape_pair_nics(struct tv_node_shape *shape, const int *distance)
{
    int *num_taken = calloc((size_t)shape->num_nics + 1, sizeof(*num_taken));
    if (num_taken == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d NICs", shape->num_nics);
    for (int g = 0; g < shape->num_gpus; g++) {
        const int *row = distance + (size_t)g * (size_t)shape->num_nics;
        int best = -1;
        for (int n = 0; n < shape->num_nics; n++) {
            if (row[n] == TV_FAR)
                continue;
            if (best < 0 || row[n] < row[best] ||
                (row[n] == row[best] && num_taken[n] < num_taken[best]))
                best = n;
        }
        shape->gpus[g].nic = best;
        if (best >= 0)
            num_taken[best]++;
    }
    free(num_taken);
    return TV_OK;
}

tv_status_t tv_shape_set_links(struct tv_node_shape *shape, const double *rates,
                               struct tv_warnings *warnings)
{
    const int G = shape->num_gpus;
    shape->links = calloc((size_t)G * (size_t)G, sizeof(*shape->links));
    if (shape->links == NULL)
        return TV_ERR(TV_NO_MEMORY, "links of %d GPUs", G);
    shape->links_kind = TV_LINKS_MATRIX;
    double most = 0;
    for (int i = 0; i < G; i++) {
        double sum = 0;
        for (int j = 0; j < G; j++) {
            const double there = rates[i * G + j], back = rates[j * G + i];
            if (i == j)
                continue;
            shape->links[i * G + j] = there < back ? there : back;
            sum += shape->links[i * G + j];
            if (i < j && there != back)
                TV_TRY(tv_warn(warnings,
                               "GPUs %d and %d: a link of %g GB/s there and %g back, the smaller "
                               "is taken",
                               i, j, there, back));
        }
        most = sum > most ? sum : most;
    }
    if (most > 0)
        shape->gpu_gbps = most;
    return TV_OK;
}

/* The most NVLinks of a GPU: pairs that add up to more go through a switch. */
enum { MAX_NVLINKS = 18 };

static tv_status_t take_counts(struct tv_node_shape *shape, const int *num_links, double *rates,
                               double gbps_per_link, struct tv_warnings *warnings)
{
    const int G = shape->num_gpus;
    int most = 0, least = G > 1 ? INT32_MAX : 0, is_switched = 0;
    for (int i = 0; i < G; i++) {
        int sum = 0;
        for (int j = 0; j < G; j++) {
            const int num = i != j ? num_links[i * G + j] : 0;
            rates[i * G + j] = num * gbps_per_link;
            sum += num;
            most = num > most ? num : most;
            least = i != j && num < least ? num : least;
        }
        is_switched |= sum > MAX_NVLINKS;
    }
    if (is_switched && least == most)
        shape->links_kind = TV_LINKS_SWITCH;
    else
        TV_TRY(tv_shape_set_links(shape, rates, warnings));
    if (is_switched)
        shape->gpu_gbps = most * gbps_per_link;
    return TV_OK;
}

tv_status_t tv_shape_count_links(struct tv_node_shape *shape, const int *num_links,
                                 double gbps_per_link, struct tv_warnings *warnings)
{
    const size_t G = (size_t)shape->num_gpus;
    double *rates = calloc(G * G + 1, sizeof(*rates));
    if (rates == NULL)
        return TV_ERR(TV_NO_MEMORY, "links of %zu GPUs", G);
    const tv_status_t status = take_counts(shape, num_links, rates, gbps_per_link, warnings);
    free(rates);
    return status;
}

struct label {
    char text[32 + TV_TOPO_PCI];
};

/* "GPU 3 (0000:4e:00.0)", without the address where it is unknown. */
static struct label label_of(const struct tv_node_shape *shape, int gpu)
{
    struct label label;
    const char *pci = shape->gpus[gpu].pci;
    snprintf(label.text, sizeof(label.text), *pci != '\0' ? "GPU %d (%s)" : "GPU %d", gpu, pci);
    return label;
}

static int num_links(const struct tv_node_shape *shape, int gpu)
{
    int num = 0;
    for (int j = 0; j < shape->num_gpus; j++)
        num += j != gpu && shape->links[gpu * shape->num_gpus + j] > 0;
    return num;
}

static tv_status_t warn_links(const struct tv_node_shape *shape, struct tv_warnings *warnings)
{
    if (shape->links_kind == TV_LINKS_UNKNOWN && shape->num_gpus > 1)
        return tv_warn(warnings, "links between the %d GPUs unknown", shape->num_gpus);
    if (shape->links_kind != TV_LINKS_MATRIX)
        return TV_OK;
    int most = 0;
    for (int g = 0; g < shape->num_gpus; g++)
        most = num_links(shape, g) > most ? num_links(shape, g) : most;
    for (int g = 0; g < shape->num_gpus; g++) {
        if (most > 0 && num_links(shape, g) == 0)
            TV_TRY(tv_warn(warnings, "%s: no link, others have up to %d", label_of(shape, g).text,
                           most));
    }
    return TV_OK;
}

static tv_status_t warn_nics(const struct tv_node_shape *shape, struct tv_warnings *warnings)
{
    if (shape->num_nics == 0)
        return tv_warn(warnings, "no NIC found; %g GB/s to the network are assumed",
                       shape->nic_gbps);
    int num_paired = 0;
    for (int g = 0; g < shape->num_gpus; g++)
        num_paired += shape->gpus[g].nic >= 0;
    for (int g = 0; g < shape->num_gpus && num_paired > 0; g++) {
        if (shape->gpus[g].nic < 0)
            TV_TRY(tv_warn(warnings, "%s: no NIC near it, %d other GPUs have one",
                           label_of(shape, g).text, num_paired));
    }
    return TV_OK;
}

tv_status_t tv_shape_warn(const struct tv_node_shape *shape, struct tv_warnings *warnings)
{
    for (int g = 1; g < shape->num_gpus; g++) {
        if (strcmp(shape->gpus[g].model, shape->gpus[0].model) != 0)
            TV_TRY(tv_warn(warnings, "%s is \"%s\", %s is \"%s\"", label_of(shape, g).text,
                           shape->gpus[g].model, label_of(shape, 0).text, shape->gpus[0].model));
    }
    TV_TRY(warn_links(shape, warnings));
    return warn_nics(shape, warnings);
}
