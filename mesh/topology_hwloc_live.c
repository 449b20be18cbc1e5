/* mesh/topology_hwloc_live.c -- the node that this process runs on: hwloc's view joined with the driver's. */
#include "mesh/topology_hwloc_internal.h"
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Without GPUs that are cut into MIG instances. order [num]. */
static tv_status_t leave_out_cut(const struct tv_driver *driver, int *order, int *num,
                                 struct tv_warnings *warnings)
{
    int num_kept = 0;
    for (int i = 0; i < *num; i++) {
        char pci[TV_TOPO_PCI];
        const struct tv_driver_gpu *gpu = &driver->gpus[order[i]];
        tv_pci_format(gpu->address, pci);
        if (gpu->is_cut)
            TV_TRY(tv_warn(warnings,
                           "GPU %d (%s) is cut into MIG instances, which peers cannot "
                           "copy to; it is left out",
                           order[i], pci));
        else
            order[num_kept++] = order[i];
    }
    *num = num_kept;
    return TV_OK;
}

tv_status_t tv_driver_read_visible(struct tv_driver *driver, int *order, int *num,
                                   struct tv_warnings *warnings)
{
    const char *by = getenv("CUDA_DEVICE_ORDER");
    TV_TRY(tv_driver_visible(driver, getenv("CUDA_VISIBLE_DEVICES"),
                             by != NULL && strcmp(by, "PCI_BUS_ID") == 0, order, num));
    return leave_out_cut(driver, order, num, warnings);
}

/* The driver's GPUs that this process may use. */
static tv_status_t keep_visible(struct tv_driver *driver, struct tv_warnings *warnings)
{
    int num;
    int *order = calloc((size_t)driver->num_gpus + 1, sizeof(*order));
    if (order == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d GPUs", driver->num_gpus);
    tv_status_t status = tv_driver_read_visible(driver, order, &num, warnings);
    if (status == TV_OK)
        status = tv_driver_keep(driver, order, num);
    free(order);
    if (status == TV_OK && num == 0)
        status = TV_ERR(TV_INVALID, "this node's driver has GPUs, but none that this process may "
                                    "use whole (CUDA_VISIBLE_DEVICES, MIG)");
    return status;
}

static tv_status_t read_node(hwloc_topology_t topology, const struct tv_driver *driver,
                             struct tv_node_read *node)
{
    TV_TRY(tv_hwloc_prepare(topology));
    if (hwloc_topology_load(topology) != 0)
        return TV_ERR(TV_INVALID, "hwloc cannot read this machine");
    (void)gethostname(node->name, sizeof(node->name) - 1);
    return tv_hwloc_to_shape(topology, "this node", 1, driver, &node->shape, &node->warnings);
}

static tv_status_t read_with(const struct tv_driver *driver, struct tv_node_read *node)
{
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0)
        return TV_ERR(TV_NO_MEMORY, "a topology of hwloc");
    const tv_status_t status = read_node(topology, driver, node);
    hwloc_topology_destroy(topology);
    return status;
}

static tv_status_t ask_and_read(struct tv_node_read *node)
{
    struct tv_driver asked;
    TV_TRY(tv_driver_read(&asked, &node->warnings));
    const int has_driver = asked.num_gpus > 0;
    tv_status_t status = has_driver ? keep_visible(&asked, &node->warnings) : TV_OK;
    if (status == TV_OK)
        status = read_with(has_driver ? &asked : NULL, node);
    if (status == TV_INVALID && !has_driver && node->warnings.num > 0)
        status = TV_ERR(status, "%s (%s)", tv_error_message(), node->warnings.sentences[0]);
    tv_driver_free(&asked);
    return status;
}

tv_status_t tv_topology_read_live(const struct tv_driver *driver, struct tv_node_read *node_out)
{
    struct tv_node_read node = {0};
    const tv_status_t status = driver != NULL ? read_with(driver, &node) : ask_and_read(&node);
    if (status != TV_OK) {
        tv_node_read_free(&node);
        return status;
    }
    *node_out = node;
    return TV_OK;
}
