/* train/map_arrivals.c -- where the launcher puts the ranks. */
#include "train/files.h"
#include "train/map_plan.h"
#include <stdlib.h>
#include <string.h>

/* Rank after rank to the next node that has a device left. */
static void deal_cyclic(const struct tv_topology *topology, const int *first_device,
                        struct tv_device_place *arrivals)
{
    const int num_devices = first_device[topology->num_nodes];
    int rank = 0;
    for (int device = 0; rank < num_devices; device++) {
        for (int n = 0; n < topology->num_nodes; n++) {
            if (first_device[n] + device < first_device[n + 1])
                arrivals[rank++] = (struct tv_device_place){n, device};
        }
    }
}

struct named_node {
    const char *name;
    int node;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named_node *)a)->name, ((const struct named_node *)b)->name);
}

/* The lines of a file. Names are sorted, so that many lines find their nodes fast. */
struct reader {
    const char *path;
    const struct tv_topology *topology;
    const int *first_device;
    struct named_node *names; /* [num_nodes] sorted */
    struct tv_device_place *arrivals;
    int num, line;
};

/* One line of `length` characters. */
static tv_status_t read_line(struct reader *r, const char *text, size_t length)
{
    char line[256], name[TV_TOPO_NAME], rest[2];
    long device; /* no int: a number that is too large must not become a small one */
    if (length >= sizeof(line))
        return TV_ERR(TV_BAD_FILE, "--arrival %s: line %d: %zu characters, at most %zu", r->path,
                      r->line, length, sizeof(line) - 1);
    if (memchr(text, '\0', length) != NULL)
        return TV_ERR(TV_BAD_FILE, "--arrival %s: line %d: not text", r->path, r->line);
    memcpy(line, text, length);
    line[length] = '\0';
    line[strcspn(line, "#")] = '\0';
    if (line[strspn(line, " \t\r")] == '\0')
        return TV_OK;
    if (sscanf(line, "%63s %ld %1s", name, &device, rest) != 2)
        return TV_ERR(TV_BAD_FILE, "--arrival %s: line %d: not a node and a device's number",
                      r->path, r->line);
    const struct named_node key = {name, 0};
    const struct named_node *found =
        bsearch(&key, r->names, (size_t)r->topology->num_nodes, sizeof(*r->names), by_name);
    if (found == NULL)
        return TV_ERR(TV_BAD_FILE, "--arrival %s: line %d: the topology has no node %s", r->path,
                      r->line, name);
    const int num_devices = r->first_device[found->node + 1] - r->first_device[found->node];
    if (device < 0 || device >= num_devices)
        return TV_ERR(TV_BAD_FILE, "--arrival %s: line %d: node %s has devices 0 to %d, not %ld",
                      r->path, r->line, name, num_devices - 1, device);
    if (r->num == r->first_device[r->topology->num_nodes])
        return TV_ERR(TV_BAD_FILE, "--arrival %s: line %d: the topology has only %d devices",
                      r->path, r->line, r->num);
    r->arrivals[r->num++] = (struct tv_device_place){found->node, (int)device};
    return TV_OK;
}

static tv_status_t read_lines(struct reader *r, const struct tv_file_map *map)
{
    const char *at = (const char *)map->data, *end = at + map->bytes;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t length = (size_t)((newline == NULL ? end : newline) - at);
        r->line++;
        TV_TRY(read_line(r, at, length));
        at += length + (newline != NULL);
    }
    return TV_OK;
}

static tv_status_t read_file(struct reader *r)
{
    const int num_nodes = r->topology->num_nodes;
    struct tv_file_map map;
    r->names = calloc((size_t)num_nodes, sizeof(*r->names));
    if (r->names == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d names of nodes", num_nodes);
    for (int n = 0; n < num_nodes; n++)
        r->names[n] = (struct named_node){r->topology->nodes[n].name, n};
    qsort(r->names, (size_t)num_nodes, sizeof(*r->names), by_name);
    tv_status_t status = tv_file_map(r->path, &map);
    if (status != TV_OK) {
        status = TV_ERR(status, "--arrival %s", tv_error_message());
    } else {
        status = read_lines(r, &map);
        tv_file_unmap(&map);
    }
    free(r->names);
    return status;
}

tv_status_t tv_map_arrivals_read(const char *arrival, const struct tv_topology *topology,
                                 const int *first_device, int *num_out,
                                 struct tv_device_place **arrivals_out)
{
    struct reader r = {.path = arrival, .topology = topology, .first_device = first_device};
    r.num = first_device[topology->num_nodes];
    if (strcmp(arrival, "block") != 0) {
        r.arrivals = calloc((size_t)r.num, sizeof(*r.arrivals));
        if (r.arrivals == NULL)
            return TV_ERR(TV_NO_MEMORY, "%d places", r.num);
        if (strcmp(arrival, "cyclic") == 0) {
            deal_cyclic(topology, first_device, r.arrivals);
        } else {
            r.num = 0;
            const tv_status_t status = read_file(&r);
            if (status != TV_OK) {
                free(r.arrivals);
                return status;
            }
        }
    }
    *num_out = r.num;
    *arrivals_out = r.arrivals;
    return TV_OK;
}
