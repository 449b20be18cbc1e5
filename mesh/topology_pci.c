/* mesh/topology_pci.c -- PCI devices become the GPUs and NICs of a node, and which are near. */
#include "mesh/topology_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NVIDIA = 0x10de, ASPEED = 0x1a03, MATROX = 0x102b, INTEL = 0x8086 };
enum { NEAR_BY_NUMA = 2 * TV_TOPO_MAX_DEPTH }; /* farther than by any bridge */

int tv_pci_parse(const char *text, uint64_t *address_out)
{
    unsigned domain, bus, device, function;
    int length = 0;
    if (strspn(text, "0123456789abcdefABCDEF:.") != strlen(text) || strlen(text) > 24 ||
        sscanf(text, "%x:%x:%x.%x%n", &domain, &bus, &device, &function, &length) != 4 ||
        text[length] != '\0' || domain > 0xfffffff || bus > 0xff || device > 0xff || function > 0xf)
        return 0;
    *address_out = (uint64_t)domain << 24 | bus << 16 | device << 8 | function;
    return 1;
}

void tv_pci_format(uint64_t address, char pci_out[TV_TOPO_PCI])
{
    snprintf(pci_out, TV_TOPO_PCI, "%04x:%02x:%02x.%x", (unsigned)(address >> 24 & 0xfffffff),
             (unsigned)(address >> 16 & 0xff), (unsigned)(address >> 8 & 0xff),
             (unsigned)(address & 0xf));
}

/* Display controllers and accelerators, but not the video of a board's controller, nor FPGAs. */
int tv_pci_is_gpu(int class_id, int vendor)
{
    const int base = class_id >> 8;
    if (vendor == ASPEED || vendor == MATROX || (vendor == INTEL && base == 0x12))
        return 0;
    return base == 0x03 || base == 0x12;
}

tv_status_t tv_pci_append(struct tv_pci_list *list, const struct tv_pci_device *device)
{
    struct tv_pci_device *grown = tv_topology_grown(list->devices, list->num, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d PCI devices", list->num + 1);
    list->devices = grown;
    grown[list->num++] = *device;
    return TV_OK;
}

static int compare_addresses(const void *a, const void *b)
{
    const struct tv_pci_device *x = a, *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

/* Where GPUs of several vendors remain, NVIDIA's are kept. */
static tv_status_t choose_vendor(struct tv_pci_list *list, struct tv_warnings *warnings)
{
    int num_nvidia = 0, num_other = 0;
    const struct tv_pci_device *other = NULL;
    for (int i = 0; i < list->num; i++) {
        const struct tv_pci_device *device = &list->devices[i];
        if (!device->is_gpu)
            continue;
        num_nvidia += device->vendor == NVIDIA;
        num_other += device->vendor != NVIDIA;
        other = device->vendor != NVIDIA ? device : other;
    }
    if (num_nvidia == 0 || num_other == 0)
        return TV_OK;
    for (int i = 0; i < list->num; i++)
        list->devices[i].is_gpu &= list->devices[i].vendor == NVIDIA;
    char pci[TV_TOPO_PCI];
    tv_pci_format(other->address, pci);
    return tv_warn(warnings,
                   "GPUs of several vendors: %d of NVIDIA are kept, %d others are not (%s)",
                   num_nvidia, num_other, pci);
}

static double nic_rate(const struct tv_pci_device *nic)
{
    return nic->gbps > 0 ? nic->gbps : TV_GBPS_NIC;
}

/* Functions of one device (dual-port cards) are one NIC, with the rate of the faster. */
static void merge_functions(struct tv_pci_list *list)
{
    struct tv_pci_device *last = NULL;
    for (int i = 0; i < list->num; i++) {
        struct tv_pci_device *device = &list->devices[i];
        if (!device->is_nic)
            continue;
        if (last != NULL && device->address >> 8 == last->address >> 8) {
            device->is_nic = 0;
            last->gbps = device->gbps > last->gbps ? device->gbps : last->gbps;
        } else {
            last = device;
        }
    }
}

/* Keep the NICs of the fabric: InfiniBand before Ethernet, and none that are less than a quarter as
 * fast as the fastest (a board's own). */
static void choose_nics(struct tv_pci_list *list)
{
    int best = 0;
    double fastest = 0;
    for (int i = 0; i < list->num; i++) {
        const struct tv_pci_device *device = &list->devices[i];
        if (device->is_nic && device->fabric_rank > best)
            best = device->fabric_rank;
    }
    for (int i = 0; i < list->num; i++) {
        struct tv_pci_device *device = &list->devices[i];
        device->is_nic = device->is_nic && device->fabric_rank == best;
        if (device->is_nic && nic_rate(device) > fastest)
            fastest = nic_rate(device);
    }
    for (int i = 0; i < list->num; i++)
        list->devices[i].is_nic &= nic_rate(&list->devices[i]) >= fastest / 4;
    merge_functions(list);
}

/* num_below[b]: how many of the node's GPUs and NICs lie below bridge b. */
static void count_below(const struct tv_pci_list *list, int *num_below)
{
    for (int i = 0; i < list->num; i++) {
        const struct tv_pci_device *device = &list->devices[i];
        for (int b = 0; b < device->num_bridges && (device->is_gpu || device->is_nic); b++)
            num_below[device->bridges[b]]++;
    }
}

/* The lowest bridge that the device shares with another, or -1. */
static int shared_bridge(const struct tv_pci_device *device, const int *num_below)
{
    for (int b = 0; b < device->num_bridges; b++) {
        if (num_below[device->bridges[b]] > 1)
            return device->bridges[b];
    }
    return -1;
}

static tv_status_t fill(const struct tv_pci_list *list, struct tv_node_shape *shape)
{
    const size_t room = (size_t)list->num + 1;
    shape->gpus = calloc(room, sizeof(*shape->gpus));
    shape->nics = calloc(room, sizeof(*shape->nics));
    int *num_below = calloc((size_t)list->num_bridges + 1, sizeof(*num_below));
    if (shape->gpus == NULL || shape->nics == NULL || num_below == NULL) {
        free(num_below);
        return TV_ERR(TV_NO_MEMORY, "%d PCI devices", list->num);
    }
    count_below(list, num_below);
    shape->gpu_gbps = TV_GBPS_PCIE;
    for (int i = 0; i < list->num; i++) {
        const struct tv_pci_device *device = &list->devices[i];
        const int bridge = shared_bridge(device, num_below);
        if (device->is_gpu) {
            struct tv_gpu *gpu = &shape->gpus[shape->num_gpus++];
            *gpu = (struct tv_gpu){
                .numa = device->numa, .package = device->package, .pcie_switch = bridge, .nic = -1};
            tv_pci_format(device->address, gpu->pci);
            snprintf(gpu->model, sizeof(gpu->model), "%s", device->name);
        } else if (device->is_nic) {
            struct tv_nic *nic = &shape->nics[shape->num_nics++];
            *nic = (struct tv_nic){.numa = device->numa, .pcie_switch = bridge};
            nic->gbps = nic_rate(device);
            tv_pci_format(device->address, nic->pci);
            snprintf(nic->name, sizeof(nic->name), "%s", device->name);
            shape->nic_gbps += nic->gbps;
        }
    }
    if (shape->num_nics == 0)
        shape->nic_gbps = TV_GBPS_NIC;
    free(num_below);
    return TV_OK;
}

/* Give the bridges that devices share small numbers, in order of their first device; -1 where all
 * others below the bridge have a lower one in common. */
static tv_status_t number_bridges(int num_bridges, struct tv_node_shape *shape)
{
    const int num = shape->num_gpus + shape->num_nics;
    int *num_users = calloc((size_t)num_bridges + 1, sizeof(*num_users));
    int *number = calloc((size_t)num_bridges + 1, sizeof(*number));
    if (num_users == NULL || number == NULL) {
        free(num_users);
        free(number);
        return TV_ERR(TV_NO_MEMORY, "%d bridges", num_bridges);
    }
    int num_numbers = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < num; i++) {
            int *bridge = i < shape->num_gpus ? &shape->gpus[i].pcie_switch
                                              : &shape->nics[i - shape->num_gpus].pcie_switch;
            if (*bridge < 0)
                continue;
            if (pass == 0) {
                num_users[*bridge]++;
                continue;
            }
            if (num_users[*bridge] > 1 && number[*bridge] == 0)
                number[*bridge] = ++num_numbers;
            *bridge = number[*bridge] - 1;
        }
    }
    free(num_users);
    free(number);
    return TV_OK;
}

/* Steps from the GPU up to the lowest common bridge and down to the NIC; level[b] is 1 + the place
 * of bridge b above the GPU, 0 elsewhere. */
static int distance_between(const struct tv_pci_device *gpu, const struct tv_pci_device *nic,
                            const int *level)
{
    for (int b = 0; b < nic->num_bridges; b++) {
        if (level[nic->bridges[b]] > 0)
            return b + level[nic->bridges[b]] - 1;
    }
    return gpu->numa >= 0 && gpu->numa == nic->numa ? NEAR_BY_NUMA : TV_FAR;
}

/* distance [num_gpus, num_nics] */
static void fill_distances(const struct tv_pci_list *list, int *level, int *distance)
{
    for (int i = 0; i < list->num; i++) {
        const struct tv_pci_device *gpu = &list->devices[i];
        if (!gpu->is_gpu)
            continue;
        for (int b = 0; b < gpu->num_bridges; b++)
            level[gpu->bridges[b]] = b + 1;
        for (int j = 0; j < list->num; j++) {
            const struct tv_pci_device *nic = &list->devices[j];
            if (!nic->is_gpu && nic->is_nic)
                *distance++ = distance_between(gpu, nic, level);
        }
        for (int b = 0; b < gpu->num_bridges; b++)
            level[gpu->bridges[b]] = 0;
    }
}

static tv_status_t pair(const struct tv_pci_list *list, struct tv_node_shape *shape)
{
    int *level = calloc((size_t)list->num_bridges + 1, sizeof(*level));
    int *distance =
        calloc((size_t)shape->num_gpus * (size_t)shape->num_nics + 1, sizeof(*distance));
    tv_status_t status = TV_OK;
    if (level == NULL || distance == NULL) {
        status = TV_ERR(TV_NO_MEMORY, "%d GPUs and %d NICs", shape->num_gpus, shape->num_nics);
    } else {
        fill_distances(list, level, distance);
        status = tv_shape_pair_nics(shape, distance);
    }
    free(level);
    free(distance);
    return status;
}

tv_status_t tv_shape_from_pci(const char *path, struct tv_pci_list *list,
                              struct tv_node_shape *shape, struct tv_warnings *warnings)
{
    if (list->num > 0)
        qsort(list->devices, (size_t)list->num, sizeof(*list->devices), compare_addresses);
    TV_TRY(choose_vendor(list, warnings));
    choose_nics(list);
    TV_TRY(fill(list, shape));
    TV_TRY(tv_shape_check(path, shape));
    TV_TRY(number_bridges(list->num_bridges, shape));
    return pair(list, shape);
}

int tv_shape_find_gpu(const struct tv_node_shape *shape, uint64_t address)
{
    char pci[TV_TOPO_PCI];
    tv_pci_format(address, pci);
    for (int g = 0; g < shape->num_gpus; g++) {
        if (strcmp(shape->gpus[g].pci, pci) == 0)
            return g;
    }
    return -1;
}
