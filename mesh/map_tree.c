/* mesh/map_tree.c -- the tree of cuts of a topology: root > switches > NVLink domains > nodes >
 * islands > devices.
 *
 * Only levels that constrain GPU traffic are vertices: an NVLink domain takes the place of its
 * nodes (and of switches that cut through it), and a vertex with one child is one with it, at the
 * smaller rate. Children stand in the natural order of their first node's name. O(devices). */
#include "mesh/map_internal.h"
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROOT = 0 };

/* The root, then switches, domains and nodes, in one numbering. */
struct group {
    int parent, first_child, last_child, next;
    int is_seen;
    double rate, nic_rate; /* of the cut; of the NICs below */
    double latency;        /* out of the nodes below, the greatest */
};
struct builder {
    const struct tv_topology *topology;
    const unsigned char *is_available;
    int first_domain, first_node, num_groups;
    struct group *groups;
    int *base;                     /* [nodes] number of the node's first device */
    struct tv_map_islands *shapes; /* [shapes] */
    struct tv_map_tree tree;
};

static double node_rate(const struct tv_node_shape *shape)
{
    return 1e9 * (shape->nic_gbps > 0 ? shape->nic_gbps : TV_MAP_NIC_GBPS);
}

static int switch_group(int leaf)
{
    return leaf < 0 ? ROOT : 1 + leaf;
}

static int depth_of(const struct group *groups, int g)
{
    int depth = 0;
    for (; g != ROOT; g = groups[g].parent)
        depth++;
    return depth;
}

static int common_ancestor(const struct group *groups, int a, int b)
{
    int depth_a = depth_of(groups, a), depth_b = depth_of(groups, b);
    while (a != b) {
        if (depth_a >= depth_b) {
            a = groups[a].parent;
            depth_a--;
        } else {
            b = groups[b].parent;
            depth_b--;
        }
    }
    return a;
}

static void set_groups(struct builder *builder)
{
    const struct tv_topology *topology = builder->topology;
    struct group *groups = builder->groups;
    for (int g = 0; g < builder->num_groups; g++)
        groups[g] = (struct group){-1, -1, -1, -1, 0, 0, 0, 0};
    for (int s = 0; s < topology->num_switches; s++) {
        groups[1 + s].parent = switch_group(topology->switches[s].parent);
        groups[1 + s].rate = topology->switches[s].uplink_gbps * 1e9;
    }
    for (int n = 0; n < topology->num_nodes; n++) {
        const struct tv_node *node = &topology->nodes[n];
        const double rate = node_rate(&topology->shapes[node->shape]);
        const double latency = topology->shapes[node->shape].nic_seconds;
        const int leaf = switch_group(node->leaf);
        int parent = leaf;
        groups[builder->first_node + n].rate = rate;
        groups[builder->first_node + n].latency = latency;
        if (node->domain >= 0) { /* below the switch that all its nodes share */
            parent = builder->first_domain + node->domain;
            groups[parent].rate += rate;
            groups[parent].latency = fmax(groups[parent].latency, latency);
            groups[parent].parent = groups[parent].parent < 0
                                        ? leaf
                                        : common_ancestor(groups, groups[parent].parent, leaf);
        }
        groups[builder->first_node + n].parent = parent;
        for (int g = leaf; g != ROOT; g = groups[g].parent) {
            groups[g].nic_rate += rate;
            groups[g].latency = fmax(groups[g].latency, latency);
        }
    }
    for (int g = 1; g < builder->first_domain; g++)
        groups[g].rate = groups[g].rate > 0 ? groups[g].rate : groups[g].nic_rate;
}

struct name_order {
    const char *name;
    int node;
};

static int by_name(const void *a, const void *b)
{
    const struct name_order *x = a, *y = b;
    const int order = tv_natural_order(x->name, y->name);
    return order != 0 ? order : x->node - y->node;
}

/* Nodes enter in natural order, so that children do too. */
static tv_status_t link_children(struct builder *builder)
{
    const struct tv_topology *topology = builder->topology;
    struct name_order *order = malloc((size_t)topology->num_nodes * sizeof(*order));
    if (order == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: order of %d nodes", topology->num_nodes);
    for (int n = 0; n < topology->num_nodes; n++)
        order[n] = (struct name_order){topology->nodes[n].name, n};
    qsort(order, (size_t)topology->num_nodes, sizeof(*order), by_name);
    struct group *groups = builder->groups;
    for (int i = 0; i < topology->num_nodes; i++) {
        int g = builder->first_node + order[i].node;
        for (; g != ROOT && !groups[g].is_seen; g = groups[g].parent) {
            struct group *parent = &groups[groups[g].parent];
            groups[g].is_seen = 1;
            if (parent->last_child < 0)
                parent->first_child = g;
            else
                groups[parent->last_child].next = g;
            parent->last_child = g;
        }
    }
    free(order);
    return TV_OK;
}

static void add_vertex(struct tv_map_tree *tree, double rate, double latency)
{
    tree->vertices[tree->num_vertices++] =
        (struct tv_map_vertex){.begin = tree->num_devices, .rate = rate, .latency = latency};
}

static void add_device(struct builder *builder, int n, int device)
{
    struct tv_map_tree *tree = &builder->tree;
    const struct tv_node *node = &builder->topology->nodes[n];
    const struct tv_node_shape *shape = &builder->topology->shapes[node->shape];
    const double gbps = shape->gpu_gbps > 0 ? shape->gpu_gbps : TV_MAP_GPU_GBPS;
    add_vertex(tree, gbps * 1e9, shape->gpu_seconds);
    tree->devices[tree->num_devices] = (struct tv_map_device){
        .node = n,
        .device = device,
        .unit = node->domain >= 0 ? builder->first_domain + node->domain : builder->first_node + n,
        .origin = tree->num_devices};
    tree->num_devices++;
    tree->vertices[tree->num_vertices - 1].end = tree->num_devices;
}

/* The vertex at `at` has got its devices; without any it is taken back. */
static void close_vertex(struct tv_map_tree *tree, int at)
{
    tree->vertices[at].end = tree->num_devices;
    if (tree->vertices[at].begin == tree->num_devices)
        tree->num_vertices = at;
}

/* Devices of the island of `first` at level + 1 (the whole node at the top), by island. */
static void emit_islands(struct builder *builder, int n, int level, int first)
{
    const struct tv_node_shape *shape = tv_topology_shape(builder->topology, n);
    const struct tv_map_islands *islands = &builder->shapes[builder->topology->nodes[n].shape];
    const int num = shape->num_gpus;
    const int *outer = level + 1 < islands->num_levels ? islands->label + (level + 1) * num : NULL;
    const int *own = level >= 0 ? islands->label + level * num : NULL;
    for (int i = first; i < num; i++) {
        if (outer != NULL && outer[i] != first)
            continue;
        if (own == NULL) {
            if (builder->is_available[builder->base[n] + i])
                add_device(builder, n, i);
        } else if (own[i] == i) {
            const int at = builder->tree.num_vertices;
            add_vertex(&builder->tree, islands->rate[level * num + i], shape->gpu_seconds);
            emit_islands(builder, n, level - 1, i);
            close_vertex(&builder->tree, at);
        }
    }
}

static void emit_node(struct builder *builder, int n)
{
    const struct tv_node *node = &builder->topology->nodes[n];
    const int num_levels = builder->shapes[node->shape].num_levels;
    if (node->domain < 0) {
        emit_islands(builder, n, num_levels - 1, 0);
        return;
    }
    for (int i = 0; i < builder->topology->shapes[node->shape].num_gpus; i++) {
        if (builder->is_available[builder->base[n] + i])
            add_device(builder, n, i);
    }
}

static void emit_group(struct builder *builder, int g)
{
    const int at = builder->tree.num_vertices, n = g - builder->first_node;
    const int is_in_domain = n >= 0 && builder->topology->nodes[n].domain >= 0;
    if (!is_in_domain)
        add_vertex(&builder->tree, builder->groups[g].rate, builder->groups[g].latency);
    if (n >= 0)
        emit_node(builder, n);
    for (int child = builder->groups[g].first_child; child >= 0;
         child = builder->groups[child].next)
        emit_group(builder, child);
    if (!is_in_domain)
        close_vertex(&builder->tree, at);
}

/* Drop children that hold all of their parent's devices, then number parents, ends and depths. */
void tv_map_tree_number(struct tv_map_tree *tree, int merges)
{
    struct tv_map_vertex *vertices = tree->vertices;
    int num = 0;
    for (int v = 0; v < tree->num_vertices; v++) {
        const int repeats = num > 0 && vertices[v].begin == vertices[num - 1].begin &&
                            vertices[v].end == vertices[num - 1].end;
        if (merges && repeats) {
            vertices[num - 1].rate = fmin(vertices[num - 1].rate, vertices[v].rate);
            vertices[num - 1].latency = fmax(vertices[num - 1].latency, vertices[v].latency);
        } else {
            vertices[num++] = vertices[v];
        }
    }
    tree->num_vertices = num;
    int open = -1; /* the vertex whose subtree is being read */
    for (int v = 0; v < num; v++) {
        while (open >= 0 && vertices[open].end <= vertices[v].begin) {
            vertices[open].next = v;
            open = vertices[open].parent;
        }
        vertices[v].parent = open;
        vertices[v].depth = open < 0 ? 0 : vertices[open].depth + 1;
        open = v;
    }
    for (; open >= 0; open = vertices[open].parent)
        vertices[open].next = num;
}

tv_status_t tv_map_tree_alloc(int max_vertices, int max_devices, struct tv_map_tree *tree_out)
{
    struct tv_map_tree tree = {0};
    tree.vertices = calloc((size_t)max_vertices, sizeof(*tree.vertices));
    tree.devices = calloc((size_t)max_devices, sizeof(*tree.devices));
    if (tree.vertices == NULL || tree.devices == NULL) {
        tv_map_tree_free(&tree);
        return TV_ERR(TV_NO_MEMORY, "mapper: tree of %d devices", max_devices);
    }
    *tree_out = tree;
    return TV_OK;
}

void tv_map_tree_free(struct tv_map_tree *tree)
{
    free(tree->vertices);
    free(tree->devices);
    *tree = (struct tv_map_tree){0};
}

static void builder_free(struct builder *builder)
{
    for (int s = 0; builder->shapes != NULL && s < builder->topology->num_shapes; s++)
        tv_map_islands_free(&builder->shapes[s]);
    free(builder->shapes);
    free(builder->groups);
    free(builder->base);
    tv_map_tree_free(&builder->tree);
}

static tv_status_t prepare(struct builder *builder)
{
    const struct tv_topology *topology = builder->topology;
    builder->first_domain = 1 + topology->num_switches;
    builder->first_node = builder->first_domain + topology->num_domains;
    builder->num_groups = builder->first_node + topology->num_nodes;
    builder->groups = calloc((size_t)builder->num_groups, sizeof(*builder->groups));
    builder->base = calloc((size_t)topology->num_nodes + 1, sizeof(*builder->base));
    builder->shapes = calloc((size_t)topology->num_shapes, sizeof(*builder->shapes));
    if (builder->groups == NULL || builder->base == NULL || builder->shapes == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: tree of %d nodes", topology->num_nodes);
    int num_inner = builder->num_groups;
    for (int s = 0; s < topology->num_shapes; s++)
        TV_TRY(tv_map_islands_create(&topology->shapes[s], &builder->shapes[s]));
    for (int n = 0; n < topology->num_nodes; n++) {
        const struct tv_node_shape *shape = tv_topology_shape(topology, n);
        builder->base[n + 1] = builder->base[n] + shape->num_gpus;
        num_inner += builder->shapes[topology->nodes[n].shape].num_levels * shape->num_gpus;
    }
    const int num_devices = builder->base[topology->num_nodes];
    return tv_map_tree_alloc(num_inner + num_devices, num_devices, &builder->tree);
}

tv_status_t tv_map_tree_create(const struct tv_topology *topology,
                               const unsigned char *is_available, struct tv_map_tree *tree_out)
{
    struct builder builder = {.topology = topology, .is_available = is_available};
    tv_status_t status = prepare(&builder);
    if (status == TV_OK) {
        set_groups(&builder);
        status = link_children(&builder);
    }
    if (status == TV_OK) {
        emit_group(&builder, ROOT);
        tv_map_tree_number(&builder.tree, 1);
        *tree_out = builder.tree;
        builder.tree = (struct tv_map_tree){0};
    }
    builder_free(&builder);
    return status;
}

tv_status_t tv_map_tree_restrict(const struct tv_map_tree *tree, const unsigned char *is_used,
                                 struct tv_map_tree *tree_out)
{
    struct tv_map_tree part;
    TV_TRY(tv_map_tree_alloc(tree->num_vertices, tree->num_devices, &part));
    int *before = calloc((size_t)tree->num_devices + 1, sizeof(*before)); /* used ones before i */
    if (before == NULL) {
        tv_map_tree_free(&part);
        return TV_ERR(TV_NO_MEMORY, "mapper: part of %d devices", tree->num_devices);
    }
    for (int i = 0; i < tree->num_devices; i++) {
        before[i + 1] = before[i] + (is_used[i] != 0);
        if (is_used[i]) {
            part.devices[part.num_devices] = tree->devices[i];
            part.devices[part.num_devices++].origin = i;
        }
    }
    for (int v = 0; v < tree->num_vertices; v++) {
        struct tv_map_vertex vertex = tree->vertices[v];
        vertex.begin = before[vertex.begin];
        vertex.end = before[vertex.end];
        if (vertex.begin < vertex.end)
            part.vertices[part.num_vertices++] = vertex;
    }
    tv_map_tree_number(&part, 0);
    free(before);
    *tree_out = part;
    return TV_OK;
}
