/* mesh/topology_hwloc.c -- a node as libhwloc sees it: PCI devices, NUMA nodes, where they are.
 *
 * Parents are walked by hand: hwloc_get_common_ancestor_obj of hwloc 2.9 crashes on I/O objects. */
#include "mesh/topology_hwloc_internal.h"
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tv_status_t tv_hwloc_prepare(struct hwloc_topology *topology)
{
    if (hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) != 0 ||
        hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) != 0)
        return TV_ERR(TV_INTERNAL, "hwloc: cannot keep PCI devices");
    return TV_OK;
}

static int is_empty(hwloc_const_bitmap_t set)
{
    return set == NULL || hwloc_bitmap_iszero(set);
}

/* GPU memory (POWER9, Grace) and memory expanders show as NUMA nodes without CPUs or with those of
 * several others, memory of another kind as nodes with the CPUs of an earlier one: ranks live on
 * neither. */
static int is_home(hwloc_topology_t topology, hwloc_obj_t numa)
{
    if (is_empty(numa->cpuset))
        return 0;
    hwloc_obj_t other = NULL;
    int is_earlier = 1;
    while ((other = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, other)) != NULL) {
        if (other == numa)
            is_earlier = 0;
        else if (!is_empty(other->cpuset) && hwloc_bitmap_isincluded(other->cpuset, numa->cpuset) &&
                 (is_earlier || !hwloc_bitmap_isequal(other->cpuset, numa->cpuset)))
            return 0;
    }
    return 1;
}

/* OS index of the only object of a type with CPUs in the set; -1 when there are several or none. */
static int only_index(hwloc_topology_t topology, hwloc_obj_type_t type, hwloc_const_bitmap_t set)
{
    int index = -1;
    hwloc_obj_t object = NULL;
    while ((object = hwloc_get_next_obj_by_type(topology, type, object)) != NULL) {
        if (is_empty(set) || object->cpuset == NULL ||
            !hwloc_bitmap_intersects(object->cpuset, set) ||
            (type == HWLOC_OBJ_NUMANODE && !is_home(topology, object)))
            continue;
        if (index >= 0)
            return -1;
        index = (int)(object->os_index & INT32_MAX);
    }
    return index;
}

static tv_status_t fill_numa(hwloc_topology_t topology, hwloc_obj_t object, struct tv_numa *numa)
{
    *numa = (struct tv_numa){.os_index = (int)(object->os_index & INT32_MAX),
                             .package = only_index(topology, HWLOC_OBJ_PACKAGE, object->cpuset)};
    hwloc_bitmap_t usable = hwloc_bitmap_alloc();
    if (usable != NULL &&
        hwloc_bitmap_and(usable, object->cpuset, hwloc_topology_get_allowed_cpuset(topology)) == 0)
        hwloc_bitmap_list_asprintf(&numa->cpus, usable);
    hwloc_bitmap_free(usable);
    return numa->cpus != NULL ? TV_OK : TV_ERR(TV_NO_MEMORY, "CPUs of a NUMA node");
}

static tv_status_t fill_numas(hwloc_topology_t topology, const char *what,
                              struct tv_node_shape *shape)
{
    const int num = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    if (num > TV_TOPO_MAX_DEVICES)
        return TV_ERR(TV_INVALID, "%s: %d NUMA nodes, at most %d", what, num, TV_TOPO_MAX_DEVICES);
    shape->numas = calloc((size_t)num + 1, sizeof(*shape->numas));
    if (shape->numas == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d NUMA nodes", num);
    hwloc_obj_t object = NULL;
    while ((object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, object)) != NULL) {
        if (is_home(topology, object))
            TV_TRY(fill_numa(topology, object, &shape->numas[shape->num_numas++]));
    }
    return TV_OK;
}

/* The name: a GPU's model from the OS devices on it, a NIC's own name ("mlx5_0" before "ib0"). */
static void name_device(hwloc_obj_t pci, struct tv_pci_device *device)
{
    const char *name = hwloc_obj_get_info_by_name(pci, "PCIDevice");
    int rank = 0;
    for (hwloc_obj_t child = pci->io_first_child; child != NULL; child = child->next_sibling) {
        if (child->type != HWLOC_OBJ_OS_DEVICE)
            continue;
        const char *model = hwloc_obj_get_info_by_name(child, "GPUModel");
        const int is_fabric = child->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
        const int is_network = child->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK;
        if (device->is_gpu && model != NULL)
            name = model;
        if (device->is_nic && (is_fabric || (is_network && rank == 0)))
            name = child->name;
        rank |= device->is_nic && is_fabric;
    }
    device->fabric_rank = device->class_id == 0x0207 ? 2 : rank;
    if (name != NULL)
        snprintf(device->name, sizeof(device->name), "%s", name);
    else
        snprintf(device->name, sizeof(device->name), "%04x:%04x",
                 (unsigned)pci->attr->pcidev.vendor_id, (unsigned)pci->attr->pcidev.device_id);
}

/* Bridges above the device, as far as there is room, and the count of bridge numbers. */
static void list_bridges(hwloc_obj_t pci, struct tv_pci_device *device, int *num_bridges)
{
    for (hwloc_obj_t at = pci->parent; at != NULL && device->num_bridges < TV_TOPO_MAX_DEPTH;
         at = at->parent) {
        if (at->type != HWLOC_OBJ_BRIDGE)
            continue;
        const int number = (int)at->logical_index;
        device->bridges[device->num_bridges++] = number;
        *num_bridges = number >= *num_bridges ? number + 1 : *num_bridges;
    }
}

static tv_status_t add_device(hwloc_topology_t topology, hwloc_obj_t pci, struct tv_pci_list *list)
{
    const struct hwloc_pcidev_attr_s *attr = &pci->attr->pcidev;
    struct tv_pci_device device = {.class_id = attr->class_id, .vendor = attr->vendor_id};
    device.is_gpu = tv_pci_is_gpu(device.class_id, device.vendor);
    device.is_nic = device.class_id >> 8 == 0x02;
    if (!device.is_gpu && !device.is_nic)
        return TV_OK;
    device.address = (uint64_t)attr->domain << 24 | (uint64_t)attr->bus << 16 |
                     (uint64_t)attr->dev << 8 | attr->func;
    hwloc_obj_t place = hwloc_get_non_io_ancestor_obj(topology, pci);
    device.numa = only_index(topology, HWLOC_OBJ_NUMANODE, place->complete_cpuset);
    device.package = only_index(topology, HWLOC_OBJ_PACKAGE, place->complete_cpuset);
    /* The slot bounds a NIC; an idle GPU's slot reports less than it can. */
    device.gbps = attr->linkspeed > 0 && attr->linkspeed < TV_GBPS_NIC ? attr->linkspeed : 0;
    name_device(pci, &device);
    list_bridges(pci, &device, &list->num_bridges);
    return tv_pci_append(list, &device);
}

static tv_status_t warn_homeless(const struct tv_pci_list *list, struct tv_warnings *warnings)
{
    for (int i = 0; i < list->num; i++) {
        char address[TV_TOPO_PCI];
        if (!list->devices[i].is_gpu || list->devices[i].numa >= 0)
            continue;
        tv_pci_format(list->devices[i].address, address);
        TV_TRY(tv_warn(warnings, "GPU %s: nothing says in which NUMA node it is", address));
    }
    return TV_OK;
}

static tv_status_t warn_unusable(const struct tv_node_shape *shape, struct tv_warnings *warnings)
{
    for (int g = 0; g < shape->num_gpus; g++) {
        for (int k = 0; k < shape->num_numas; k++) {
            const struct tv_numa *numa = &shape->numas[k];
            if (numa->os_index == shape->gpus[g].numa && numa->cpus[0] == '\0')
                TV_TRY(tv_warn(warnings, "GPU %d (%s): no CPU of its NUMA node %d may be used", g,
                               shape->gpus[g].pci, numa->os_index));
        }
    }
    return TV_OK;
}

static tv_status_t fill_shape(hwloc_topology_t topology, const char *what, int needs_gpus,
                              const struct tv_driver *driver, struct tv_node_shape *shape,
                              struct tv_warnings *warnings)
{
    TV_TRY(fill_numas(topology, what, shape));
    struct tv_pci_list list = {0};
    tv_status_t status = TV_OK;
    hwloc_obj_t pci = NULL;
    while (status == TV_OK && (pci = hwloc_get_next_pcidev(topology, pci)) != NULL)
        status = add_device(topology, pci, &list);
    if (status == TV_OK && driver != NULL)
        status = tv_driver_apply(driver, &list, warnings);
    if (status == TV_OK)
        status = warn_homeless(&list, warnings);
    if (status == TV_OK)
        status = tv_shape_from_pci(what, &list, shape, warnings);
    free(list.devices);
    TV_TRY(status);
    if (shape->num_gpus == 0)
        return needs_gpus ? tv_shape_check_gpus(what, shape) : TV_OK;
    TV_TRY(driver != NULL ? tv_driver_links(driver, shape, warnings)
                          : tv_hwloc_read_links(topology, shape, warnings));
    TV_TRY(warn_unusable(shape, warnings));
    return tv_shape_warn(shape, warnings);
}

tv_status_t tv_hwloc_to_shape(struct hwloc_topology *topology, const char *what, int needs_gpus,
                              const struct tv_driver *driver, struct tv_node_shape *shape_out,
                              struct tv_warnings *warnings)
{
    struct tv_node_shape shape = {0};
    const tv_status_t status = fill_shape(topology, what, needs_gpus, driver, &shape, warnings);
    if (status != TV_OK) {
        tv_node_shape_free(&shape);
        return status;
    }
    *shape_out = shape;
    return TV_OK;
}

static tv_status_t load(hwloc_topology_t topology, const struct tv_text *text,
                        struct tv_node_read *node)
{
    TV_TRY(tv_hwloc_prepare(topology));
    if (hwloc_topology_set_xmlbuffer(topology, text->data, (int)text->bytes + 1) != 0 ||
        hwloc_topology_load(topology) != 0)
        return TV_ERR(TV_BAD_FILE, "%s: libhwloc %s cannot import it", text->path, HWLOC_VERSION);
    const char *name = hwloc_obj_get_info_by_name(hwloc_get_root_obj(topology), "HostName");
    snprintf(node->name, sizeof(node->name), "%s", name != NULL ? name : "");
    return tv_hwloc_to_shape(topology, text->path, 1, NULL, &node->shape, &node->warnings);
}

tv_status_t tv_topology_parse_hwloc(const struct tv_text *text, struct tv_node_read *node_out)
{
    hwloc_topology_t topology;
    TV_TRY(tv_hwloc_check_xml(text));
    if (hwloc_topology_init(&topology) != 0)
        return TV_ERR(TV_NO_MEMORY, "%s: a topology of hwloc", text->path);
    struct tv_node_read node = {0};
    const tv_status_t status = load(topology, text, &node);
    hwloc_topology_destroy(topology);
    if (status != TV_OK) {
        tv_node_read_free(&node);
        return status;
    }
    *node_out = node;
    return TV_OK;
}
