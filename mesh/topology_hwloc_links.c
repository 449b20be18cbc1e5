/* mesh/topology_hwloc_links.c -- who is linked with whom, from hwloc's bandwidth matrices (MB/s).
 *
 * Members of a matrix are GPUs, CPU packages (POWER8) and NVSwitches; the diagonal means nothing.
 * Rates depend on hwloc's version as well: 2.9 says 50 GB/s for each link of NVLink 3 and 4, which
 * is twice what they do, so known GPUs bound them. Sources: hwloc 2.9 to 2.12, topology-nvml.c. */
#include "mesh/topology_hwloc_internal.h"
#include <hwloc.h>
#include <hwloc/distances.h>
#include <stdlib.h>
#include <string.h>

/* GB/s of all NVLinks of a GPU, one direction. */
static const struct {
    const char *model;
    double gbps;
} full_rates[] = {{"P100", 80},  {"V100", 150}, {"A100", 300}, {"H100", 450},
                  {"H200", 450}, {"B200", 900}, {"B300", 900}};

static double full_rate(const char *model)
{
    for (size_t i = 0; i < sizeof(full_rates) / sizeof(full_rates[0]); i++) {
        if (strstr(model, full_rates[i].model) != NULL)
            return full_rates[i].gbps;
    }
    return 0;
}

/* The GPU that a member of a matrix belongs to, or -1. */
static int gpu_of(hwloc_obj_t member, const struct tv_node_shape *shape)
{
    for (; member != NULL; member = member->parent) {
        if (member->type != HWLOC_OBJ_PCI_DEVICE)
            continue;
        const struct hwloc_pcidev_attr_s *attr = &member->attr->pcidev;
        return tv_shape_find_gpu(shape, (uint64_t)attr->domain << 24 | (uint64_t)attr->bus << 16 |
                                            (uint64_t)attr->dev << 8 | attr->func);
    }
    return -1;
}

/* rates [num_gpus, num_gpus], GB/s, from a matrix of all its members. */
static void take_rates(const struct hwloc_distances_s *matrix, const struct tv_node_shape *shape,
                       double *rates)
{
    for (unsigned i = 0; i < matrix->nbobjs; i++) {
        const int from = gpu_of(matrix->objs[i], shape);
        for (unsigned j = 0; j < matrix->nbobjs && from >= 0; j++) {
            const int to = gpu_of(matrix->objs[j], shape);
            if (to >= 0 && to != from)
                rates[from * shape->num_gpus + to] =
                    (double)matrix->values[(size_t)i * matrix->nbobjs + j] * 1e-3;
        }
    }
}

/* 1 when all pairs have the same rate, above 0. */
static int is_flat(const double *rates, int G)
{
    for (int i = 0; i < G * G; i++) {
        if (i % (G + 1) != 0 && rates[i] != rates[1])
            return 0;
    }
    return G > 1 && rates[1] > 0;
}

static void bound_rates(struct tv_node_shape *shape)
{
    const double full = full_rate(shape->gpus[0].model);
    if (full == 0 || shape->gpu_gbps <= full)
        return;
    const double factor = full / shape->gpu_gbps;
    for (int i = 0; shape->links != NULL && i < shape->num_gpus * shape->num_gpus; i++)
        shape->links[i] *= factor;
    shape->gpu_gbps = full;
}

/* NVLink: GPUs that reach one another through NVSwitches are all linked. TRANSITIVE_CLOSURE of
 * hwloc 2.9 reports success and zeroes the links where there is no switch, so it only runs after
 * MERGE_SWITCH_PORTS found one. */
static tv_status_t take_nvlink(hwloc_topology_t topology, struct hwloc_distances_s *matrix,
                               struct tv_node_shape *shape, double *rates,
                               struct tv_warnings *warnings)
{
    const int has_switch =
        hwloc_distances_transform(topology, matrix, HWLOC_DISTANCES_TRANSFORM_MERGE_SWITCH_PORTS,
                                  NULL, 0) == 0 &&
        hwloc_distances_transform(topology, matrix, HWLOC_DISTANCES_TRANSFORM_TRANSITIVE_CLOSURE,
                                  NULL, 0) == 0;
    take_rates(matrix, shape, rates);
    if (has_switch && is_flat(rates, shape->num_gpus)) {
        shape->links_kind = TV_LINKS_SWITCH;
        shape->gpu_gbps = rates[1];
    } else {
        TV_TRY(tv_shape_set_links(shape, rates, warnings));
    }
    bound_rates(shape);
    return TV_OK;
}

static struct hwloc_distances_s *find_matrix(hwloc_topology_t topology, const char *name)
{
    unsigned num = 1;
    struct hwloc_distances_s *matrix = NULL;
    if (hwloc_distances_get_by_name(topology, name, &num, &matrix, 0) != 0 || num == 0)
        return NULL;
    return matrix;
}

static tv_status_t read_matrix(hwloc_topology_t topology, struct tv_node_shape *shape,
                               double *rates, struct tv_warnings *warnings)
{
    struct hwloc_distances_s *nvlink = find_matrix(topology, "NVLinkBandwidth");
    if (nvlink != NULL) {
        const tv_status_t status = take_nvlink(topology, nvlink, shape, rates, warnings);
        hwloc_distances_release(topology, nvlink);
        return status;
    }
    struct hwloc_distances_s *xgmi = find_matrix(topology, "XGMIBandwidth");
    if (xgmi == NULL)
        return TV_OK;
    take_rates(xgmi, shape, rates);
    hwloc_distances_release(topology, xgmi);
    /* RSMI says 100 GB/s for every pair of an MI250X, whose pairs have 4, 2, 1 or no links. */
    if (is_flat(rates, shape->num_gpus))
        return tv_warn(warnings, "the XGMI matrix has one rate for all pairs, which says nothing");
    return tv_shape_set_links(shape, rates, warnings);
}

tv_status_t tv_hwloc_read_links(struct hwloc_topology *topology, struct tv_node_shape *shape,
                                struct tv_warnings *warnings)
{
    const size_t G = (size_t)shape->num_gpus;
    double *rates = calloc(G * G, sizeof(*rates));
    if (rates == NULL)
        return TV_ERR(TV_NO_MEMORY, "links of %zu GPUs", G);
    const tv_status_t status = read_matrix(topology, shape, rates, warnings);
    free(rates);
    return status;
}
