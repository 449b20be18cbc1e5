/* mesh/topology_driver_internal.h -- the GPUs that the driver of a running node lets this process
 * use, and how they are linked.
 *
 * Asked of NVML, whose library is opened when needed: neither building nor running needs it. It
 * knows devices by PCI address and ignores CUDA_VISIBLE_DEVICES, which is read here. */
#ifndef TV_MESH_TOPOLOGY_DRIVER_INTERNAL_H
#define TV_MESH_TOPOLOGY_DRIVER_INTERNAL_H
#include "mesh/topology_internal.h"

TV_BEGIN_C
struct tv_driver_gpu {
    uint64_t address; /* of tv_pci_parse */
    char model[TV_TOPO_NAME], uuid[96];
    int numa;   /* OS index of the nearest NUMA node, or -1 */
    int is_cut; /* into MIG instances, which no peer can copy to */
};
struct tv_driver {
    int num_gpus;
    struct tv_driver_gpu *gpus; /* ascending by address */
    int *num_links; /* [num_gpus, num_gpus] NVLinks, direct or by a switch; NULL: unknown */
    double gbps_per_link;
};
/* The GPUs of this node; none, with a warning that says why, where NVML is absent or fails. A GPU
 * that cannot be asked is left out, links that cannot be asked count as none, both with a warning.
 * Errors: TV_NO_MEMORY, TV_INVALID (more than TV_TOPO_MAX_DEVICES). */
TV_MUST_CHECK tv_status_t tv_driver_read(struct tv_driver *driver_out,
                                         struct tv_warnings *warnings);
void tv_driver_free(struct tv_driver *driver);
/* Index of the GPU at the address, or -1. */
int tv_driver_find(const struct tv_driver *driver, uint64_t address);

/* The GPUs that CUDA_VISIBLE_DEVICES (text; NULL: unset) leaves, in its order: numbers in PCI order
 * or beginnings of UUIDs. is_by_pci: CUDA_DEVICE_ORDER=PCI_BUS_ID. order_out [num_gpus] indices.
 * Errors: TV_INVALID, naming the variable and the word: no such GPU, one twice, a MIG instance, a
 * number where models differ and CUDA would count by speed. */
TV_MUST_CHECK tv_status_t tv_driver_visible(const struct tv_driver *driver, const char *text,
                                            int is_by_pci, int *order_out, int *num_out);
/* The same by this process's environment, without GPUs cut into MIG instances (a warning each). */
TV_MUST_CHECK tv_status_t tv_driver_read_visible(struct tv_driver *driver, int *order, int *num,
                                                 struct tv_warnings *warnings);
/* Keep the GPUs of order[num], ascending by address, and their links. */
TV_MUST_CHECK tv_status_t tv_driver_keep(struct tv_driver *driver, const int *order, int num);

/* A GPU that another process says is there; links are unknown from then on. */
TV_MUST_CHECK tv_status_t tv_driver_add(struct tv_driver *driver, uint64_t address, int *index_out);

/* This node: PCI devices, NUMA nodes and CPUs as hwloc sees them, GPUs and links as the driver does
 * where it has any, else as hwloc does. driver NULL: ask it, and leave out what CUDA_VISIBLE_DEVICES
 * hides. Errors: TV_INVALID (no GPUs; as above), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_topology_read_live(const struct tv_driver *driver,
                                                struct tv_node_read *node_out);

/* The GPUs of a list that the driver does not have are taken out of it, with a warning; the
 * driver's that it lacks are put in. */
TV_MUST_CHECK tv_status_t tv_driver_apply(const struct tv_driver *driver, struct tv_pci_list *list,
                                          struct tv_warnings *warnings);
/* The driver's links become the shape's; its GPUs are all the driver's. */
TV_MUST_CHECK tv_status_t tv_driver_links(const struct tv_driver *driver,
                                          struct tv_node_shape *shape,
                                          struct tv_warnings *warnings);
TV_END_C
#endif
