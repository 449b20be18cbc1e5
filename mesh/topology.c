/* mesh/topology.c -- SPEC[,SPEC...] and a network file become one topology. */
#include "mesh/topology_driver_internal.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Compare two runs of digits as numbers of any length; moves both behind their run. */
static int compare_numbers(const char **a, const char **b)
{
    while (**a == '0')
        (*a)++;
    while (**b == '0')
        (*b)++;
    const size_t a_digits = strspn(*a, "0123456789"), b_digits = strspn(*b, "0123456789");
    const int order =
        a_digits != b_digits ? (a_digits < b_digits ? -1 : 1) : strncmp(*a, *b, a_digits);
    *a += a_digits;
    *b += b_digits;
    return order;
}

int tv_natural_order(const char *a, const char *b)
{
    const char *x = a, *y = b;
    while (*x != '\0' && *y != '\0') {
        if (isdigit((unsigned char)*x) && isdigit((unsigned char)*y)) {
            const int order = compare_numbers(&x, &y);
            if (order != 0)
                return order;
        } else if (*x != *y) {
            return (unsigned char)*x < (unsigned char)*y ? -1 : 1;
        } else {
            x++;
            y++;
        }
    }
    if (*x != *y)
        return *x == '\0' ? -1 : 1;
    return strcmp(a, b); /* "n07" and "n7" are two names */
}

const struct tv_node_shape *tv_topology_shape(const struct tv_topology *topology, int node)
{
    return &topology->shapes[topology->nodes[node].shape];
}

int tv_topology_num_devices(const struct tv_topology *topology)
{
    int num = 0;
    for (int n = 0; n < topology->num_nodes; n++)
        num += tv_topology_shape(topology, n)->num_gpus;
    return num;
}

/* One SPEC that is a file: "PATH[#SECTION][*COUNT]". */
struct file_spec {
    char *path;          /* cut out of the copy of SPEC */
    const char *section; /* NULL: none */
    int count;
};

static tv_status_t parse_file_spec(char *spec, struct file_spec *file_out)
{
    *file_out = (struct file_spec){.path = spec, .count = 1};
    char *star = strrchr(spec, '*');
    if (star != NULL) {
        char *end;
        const long count = strtol(star + 1, &end, 10);
        if (!isdigit((unsigned char)star[1]) || *end != '\0' || count < 1 ||
            count > TV_TOPO_MAX_NODES)
            return TV_ERR(TV_INVALID, "topology: %s: not a count from 1 to %d behind the *", spec,
                          TV_TOPO_MAX_NODES);
        *star = '\0';
        file_out->count = (int)count;
    }
    char *hash = strrchr(spec, '#');
    if (hash != NULL && strchr(hash, '/') == NULL) {
        *hash = '\0';
        file_out->section = hash + 1;
    }
    return TV_OK;
}

/* Nodes of one shape; `name` of a single node where the file says it. */
static tv_status_t add_nodes(struct tv_topology *topology, int count, const char *name, int shape)
{
    for (int i = 0; i < count; i++) {
        char generated[TV_TOPO_NAME];
        snprintf(generated, sizeof(generated), "node%d", topology->num_nodes);
        TV_TRY(tv_topology_add_node(topology, name != NULL ? name : generated, shape));
    }
    return TV_OK;
}

/* What is read so far. Warnings wait for the names of nodes, which a network may change. */
struct pending {
    int first_node, last_node;
    struct tv_warnings warnings;
};
struct reading {
    struct tv_topology *topology;
    int is_generated; /* no file named a node */
    int num_pending;
    struct pending *pending;
};

static tv_status_t keep_warnings(struct reading *reading, int first_node,
                                 struct tv_warnings *warnings)
{
    struct pending *grown =
        tv_topology_grown(reading->pending, reading->num_pending, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "warnings");
    reading->pending = grown;
    grown[reading->num_pending++] = (struct pending){.first_node = first_node,
                                                     .last_node = reading->topology->num_nodes - 1,
                                                     .warnings = *warnings};
    *warnings = (struct tv_warnings){0};
    return TV_OK;
}

/* A reader's warnings, with the name of the node, or of the first and the last. */
static tv_status_t add_warnings(struct tv_topology *topology, const struct pending *pending)
{
    const char *first = topology->nodes[pending->first_node].name;
    const char *last = topology->nodes[pending->last_node].name;
    for (int w = 0; w < pending->warnings.num; w++) {
        const char *text = pending->warnings.sentences[w];
        if (pending->last_node > pending->first_node)
            TV_TRY(tv_topology_warn(topology, "%s to %s: %s", first, last, text));
        else
            TV_TRY(tv_topology_warn(topology, "%s: %s", first, text));
    }
    return TV_OK;
}

static tv_status_t add_read_node(struct reading *reading, int count, struct tv_node_read *node)
{
    struct tv_topology *topology = reading->topology;
    const int first = topology->num_nodes;
    const int has_name = count == 1 && node->name[0] != '\0';
    int shape;
    TV_TRY(tv_topology_add_shape(topology, &node->shape, &shape));
    TV_TRY(add_nodes(topology, count, has_name ? node->name : NULL, shape));
    reading->is_generated = reading->is_generated && !has_name;
    return keep_warnings(reading, first, &node->warnings);
}

static tv_status_t read_file(const struct file_spec *file, struct tv_node_read *node)
{
    struct tv_text text;
    TV_TRY(tv_text_read(file->path, &text));
    const tv_status_t status = tv_topology_parse_node(&text, file->section, node);
    free(text.data);
    return status;
}

static tv_status_t add_file(struct reading *reading, char *spec)
{
    struct file_spec file;
    TV_TRY(parse_file_spec(spec, &file));
    struct tv_node_read node = {0};
    tv_status_t status = strcmp(file.path, TV_TOPO_LIVE) == 0 && file.section == NULL
                             ? tv_topology_read_live(NULL, &node)
                             : read_file(&file, &node);
    if (status == TV_OK)
        status = add_read_node(reading, file.count, &node);
    tv_node_read_free(&node);
    return status;
}

static tv_status_t add_words(struct tv_topology *topology, const char *words)
{
    int count, index;
    struct tv_node_shape shape;
    TV_TRY(tv_topology_parse_words(words, &count, &shape));
    TV_TRY(tv_topology_add_shape(topology, &shape, &index));
    return add_nodes(topology, count, NULL, index);
}

static tv_status_t add_spec(struct reading *reading, char *spec)
{
    spec += strspn(spec, " \t");
    for (size_t length = strlen(spec); length > 0 && strchr(" \t", spec[length - 1]) != NULL;)
        spec[--length] = '\0';
    if (*spec == '\0')
        return TV_ERR(TV_INVALID, "topology: an empty description between commas");
    if (tv_topology_is_words(spec))
        return add_words(reading->topology, spec);
    return add_file(reading, spec);
}

static tv_status_t read_all(struct reading *reading, char *specs, const char *network)
{
    struct tv_topology *topology = reading->topology;
    for (char *next = specs; next != NULL;) {
        char *spec = strsep(&next, ",");
        TV_TRY(add_spec(reading, spec));
    }
    int64_t num_devices = 0;
    for (int n = 0; n < topology->num_nodes; n++)
        num_devices += tv_topology_shape(topology, n)->num_gpus;
    if (num_devices > INT_MAX)
        return TV_ERR(TV_INVALID, "topology: more than %d devices", INT_MAX);
    TV_TRY(tv_topology_check_names(topology));
    if (network != NULL)
        TV_TRY(tv_topology_read_network(topology, network, reading->is_generated));
    for (int i = 0; i < reading->num_pending; i++)
        TV_TRY(add_warnings(topology, &reading->pending[i]));
    return tv_topology_warn_unlike(topology);
}

tv_status_t tv_topology_read(const char *spec, const char *network,
                             struct tv_topology *topology_out)
{
    char *copy = strdup(spec);
    if (copy == NULL)
        return TV_ERR(TV_NO_MEMORY, "topology: %zu bytes of description", strlen(spec));
    struct tv_topology topology = {0};
    struct reading reading = {.topology = &topology, .is_generated = 1};
    const tv_status_t status = read_all(&reading, copy, network);
    for (int i = 0; i < reading.num_pending; i++)
        tv_warnings_free(&reading.pending[i].warnings);
    free(reading.pending);
    free(copy);
    if (status != TV_OK) {
        tv_topology_free(&topology);
        return status;
    }
    *topology_out = topology;
    return TV_OK;
}
