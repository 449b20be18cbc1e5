/* mesh/topology_nccl.c -- a node from the system XML that NCCL and RCCL write
 * (NCCL_TOPO_DUMP_FILE) and clouds ship: <cpu> holds a tree of <pci>, which hold <gpu> and <nic>;
 * links of a GPU are <nvlink> or <xgmi> with a target and a count.
 * Source: NCCL 2.28, src/graph/xml.cc. */
#include "mesh/topology_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NVSWITCH_CLASS = 0x068000, OUTSIDE = -1 };
#define HIDDEN_SWITCH "fffffff:" /* starts the target that NCCL writes in a VM */

struct link {
    uint64_t from, to;
    int is_switch;
    double gbps;
};

struct reader {
    const char *path;
    struct tv_pci_list list;               /* every <pci>, and NICs that are not below one */
    int open[TV_TOPO_MAX_DEPTH], num_open; /* indices into list of the <pci> around */
    int numa;                              /* of the <cpu> around, or OUTSIDE */
    int has_gpu_elements;
    double nvlink_gbps; /* of one link of the <gpu> around */
    int num_links;
    struct link *links;
    struct tv_node_shape *shape;
    struct tv_warnings *warnings;
};

/* GB/s of one NVLink, one direction, by compute capability (sm="90"). */
static double nvlink_gbps(const char *sm)
{
    const int capability = sm != NULL ? atoi(sm) : 0;
    if (capability >= 100)
        return 50;
    return capability == 60 ? 20 : 25;
}
#define XGMI_GBPS 50.0 /* one link of an MI250X */

static tv_status_t required(const struct reader *reader, const char *element,
                            const char **attributes, const char *name, int line,
                            const char **value_out)
{
    *value_out = tv_xml_attribute(attributes, name);
    if (*value_out == NULL)
        return TV_ERR(TV_BAD_FILE, "%s:%d: <%s> without %s", reader->path, line, element, name);
    return TV_OK;
}

static int hex_attribute(const char **attributes, const char *name)
{
    const char *text = tv_xml_attribute(attributes, name);
    return text != NULL ? (int)(strtol(text, NULL, 16) & 0xffffff) : 0;
}

/* "0000ffff,ffffffff", highest CPUs first, as "0-47". */
static char *list_cpus(const char *mask)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        return NULL;
    const char *separator = "";
    int first = -1, cpu = 0;
    for (const char *at = mask + strlen(mask); at-- > mask;) {
        if (*at == ',')
            continue;
        const char digit[2] = {*at, '\0'};
        const long bits = strtol(digit, NULL, 16);
        for (int b = 0; b < 4; b++, cpu++) {
            const int is_set = (bits >> b & 1) != 0;
            if (is_set && first < 0)
                first = cpu;
            const int ends_before = !is_set && first >= 0,
                      ends_here = is_set && at == mask && b == 3;
            if (!ends_before && !ends_here)
                continue;
            const int last = ends_here ? cpu : cpu - 1;
            fprintf(out, last > first ? "%s%d-%d" : "%s%d", separator, first, last);
            separator = ",";
            first = -1;
        }
    }
    return fclose(out) == 0 ? text : NULL;
}

static tv_status_t open_cpu(struct reader *reader, const char **attributes)
{
    const char *numa = tv_xml_attribute(attributes, "numaid");
    const char *affinity = tv_xml_attribute(attributes, "affinity");
    reader->numa = numa != NULL ? atoi(numa) : OUTSIDE;
    if (reader->numa < 0)
        return TV_OK;
    if (reader->shape->num_numas == TV_TOPO_MAX_DEVICES)
        return TV_ERR(TV_INVALID, "%s: more than %d <cpu>", reader->path, TV_TOPO_MAX_DEVICES);
    char *cpus = list_cpus(affinity != NULL ? affinity : "");
    if (cpus == NULL)
        return TV_ERR(TV_NO_MEMORY, "CPUs of a NUMA node");
    const tv_status_t status = tv_shape_add_numa(reader->shape, reader->numa, cpus);
    free(cpus);
    return status;
}

static tv_status_t open_pci(struct reader *reader, const char **attributes, int line)
{
    const char *busid;
    TV_TRY(required(reader, "pci", attributes, "busid", line, &busid));
    struct tv_pci_device device = {.class_id = hex_attribute(attributes, "class") >> 8,
                                   .vendor = hex_attribute(attributes, "vendor"),
                                   .numa = reader->numa,
                                   .package = -1};
    if (!tv_pci_parse(busid, &device.address))
        return TV_ERR(TV_BAD_FILE, "%s:%d: \"%s\" is not a PCI address", reader->path, line, busid);
    for (int i = reader->num_open - 1; i >= 0; i--)
        device.bridges[device.num_bridges++] = reader->open[i];
    device.is_gpu = tv_pci_is_gpu(device.class_id, device.vendor);
    device.is_nic = device.class_id >> 8 == 0x02;
    device.fabric_rank = device.class_id == 0x0207;
    reader->open[reader->num_open++] = reader->list.num;
    return tv_pci_append(&reader->list, &device);
}

/* The <pci> around, or NULL. */
static struct tv_pci_device *around(struct reader *reader)
{
    return reader->num_open > 0 ? &reader->list.devices[reader->open[reader->num_open - 1]] : NULL;
}

static tv_status_t open_gpu(struct reader *reader, const char **attributes, int line)
{
    struct tv_pci_device *device = around(reader);
    if (device == NULL)
        return TV_ERR(TV_BAD_FILE, "%s:%d: a <gpu> outside of <pci>", reader->path, line);
    device->is_gpu = 1;
    reader->has_gpu_elements = 1;
    reader->nvlink_gbps = nvlink_gbps(tv_xml_attribute(attributes, "sm"));
    return TV_OK;
}

/* <net>: speed in Mbit/s. */
static tv_status_t open_net(struct reader *reader, const char **attributes)
{
    struct tv_pci_device *device = around(reader);
    const char *name = tv_xml_attribute(attributes, "name");
    const char *speed = tv_xml_attribute(attributes, "speed");
    if (device == NULL) /* virtual NICs; without an address they cannot be told apart or placed */
        return tv_warn(reader->warnings, "NIC %s has no PCI address and is left out",
                       name != NULL ? name : "without name");
    device->is_nic = 1;
    device->fabric_rank = 2; /* NCCL lists what it can use */
    if (name != NULL && device->name[0] == '\0')
        snprintf(device->name, sizeof(device->name), "%s", name);
    const double gbps = speed != NULL ? strtod(speed, NULL) / 8000 : 0;
    if (gbps > device->gbps && gbps < 1e6)
        device->gbps = gbps;
    return TV_OK;
}

static tv_status_t open_link(struct reader *reader, const char *element, const char **attributes,
                             int line)
{
    const struct tv_pci_device *device = around(reader);
    const char *target, *count;
    TV_TRY(required(reader, element, attributes, "target", line, &target));
    TV_TRY(required(reader, element, attributes, "count", line, &count));
    const int num = atoi(count);
    struct link link = {.is_switch = hex_attribute(attributes, "tclass") == NVSWITCH_CLASS};
    link.is_switch |= strncmp(target, HIDDEN_SWITCH, strlen(HIDDEN_SWITCH)) == 0;
    if (device == NULL || (!link.is_switch && !tv_pci_parse(target, &link.to)) || num < 1 ||
        num > 1024)
        return TV_ERR(TV_BAD_FILE, "%s:%d: <%s target=\"%s\" count=\"%s\"> is no link of a GPU",
                      reader->path, line, element, target, count);
    link.from = device->address;
    link.gbps = num * (strcmp(element, "xgmi") == 0 ? XGMI_GBPS : reader->nvlink_gbps);
    struct link *grown = tv_topology_grown(reader->links, reader->num_links, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d links", reader->num_links + 1);
    reader->links = grown;
    grown[reader->num_links++] = link;
    return TV_OK;
}

static tv_status_t on_start(void *context, const char *element, const char **attributes, int line)
{
    struct reader *reader = context;
    if (strcmp(element, "cpu") == 0)
        return open_cpu(reader, attributes);
    if (strcmp(element, "pci") == 0)
        return open_pci(reader, attributes, line);
    if (strcmp(element, "gpu") == 0)
        return open_gpu(reader, attributes, line);
    if (strcmp(element, "net") == 0)
        return open_net(reader, attributes);
    if (strcmp(element, "nvlink") == 0 || strcmp(element, "xgmi") == 0)
        return open_link(reader, element, attributes, line);
    return TV_OK;
}

static void on_end(void *context, const char *element)
{
    struct reader *reader = context;
    if (strcmp(element, "pci") == 0)
        reader->num_open--;
    if (strcmp(element, "cpu") == 0)
        reader->numa = OUTSIDE;
}

/* rates [num_gpus, num_gpus] of direct links; to_switch [num_gpus]: GB/s to NVSwitches. */
static void sum_links(const struct reader *reader, double *rates, double *to_switch)
{
    const struct tv_node_shape *shape = reader->shape;
    for (int i = 0; i < reader->num_links; i++) {
        const struct link *link = &reader->links[i];
        const int from = tv_shape_find_gpu(shape, link->from);
        const int to = tv_shape_find_gpu(shape, link->to);
        if (from < 0)
            continue;
        if (link->is_switch)
            to_switch[from] += link->gbps;
        else if (to >= 0)
            rates[from * shape->num_gpus + to] += link->gbps;
    }
}

static tv_status_t take_links(const struct reader *reader, double *rates, double *to_switch)
{
    struct tv_node_shape *shape = reader->shape;
    const int G = shape->num_gpus;
    int num_switched = 0;
    double slowest = 0;
    sum_links(reader, rates, to_switch);
    for (int g = 0; g < G; g++) {
        if (to_switch[g] == 0)
            continue;
        slowest = num_switched == 0 || to_switch[g] < slowest ? to_switch[g] : slowest;
        num_switched++;
    }
    if (num_switched == 0)
        return tv_shape_set_links(shape, rates, reader->warnings);
    shape->gpu_gbps = slowest;
    if (num_switched == G) {
        shape->links_kind = TV_LINKS_SWITCH;
        return TV_OK;
    }
    /* Some GPUs lost their links to the switch: the others still reach one another. */
    for (int i = 0; i < G * G; i++) {
        if (to_switch[i / G] > 0 && to_switch[i % G] > 0)
            rates[i] = slowest;
    }
    TV_TRY(tv_shape_set_links(shape, rates, reader->warnings));
    shape->gpu_gbps = slowest;
    return TV_OK;
}

static tv_status_t finish(struct reader *reader)
{
    struct tv_node_shape *shape = reader->shape;
    reader->list.num_bridges = reader->list.num;
    TV_TRY(tv_shape_from_pci(reader->path, &reader->list, shape, reader->warnings));
    TV_TRY(tv_shape_check_gpus(reader->path, shape));
    if (!reader->has_gpu_elements) /* written by hand for NCCL, which finds the links itself */
        return tv_shape_warn(shape, reader->warnings);
    const size_t G = (size_t)shape->num_gpus;
    double *rates = calloc(G * G + G, sizeof(*rates));
    if (rates == NULL)
        return TV_ERR(TV_NO_MEMORY, "links of %zu GPUs", G);
    const tv_status_t status = take_links(reader, rates, rates + G * G);
    free(rates);
    TV_TRY(status);
    return tv_shape_warn(shape, reader->warnings);
}

tv_status_t tv_topology_parse_nccl(const struct tv_text *text, struct tv_node_read *node_out)
{
    struct tv_node_read node = {0};
    struct reader reader = {
        .path = text->path, .numa = OUTSIDE, .shape = &node.shape, .warnings = &node.warnings};
    tv_status_t status = tv_xml_read(
        text, &(struct tv_xml_walk){.context = &reader, .start = on_start, .end = on_end});
    if (status == TV_OK)
        status = finish(&reader);
    free(reader.list.devices);
    free(reader.links);
    if (status != TV_OK) {
        tv_node_read_free(&node);
        return status;
    }
    *node_out = node;
    return TV_OK;
}
