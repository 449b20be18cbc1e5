/* train/map_loads.c -- groups that cross, counted group by group. */
#include "train/map_loads.h"
#include <stdlib.h>

struct count {
    const struct tv_map_plan *plan;
    const int *of_node;        /* [num_nodes] the uplink that a node is behind, or -1 */
    int *seen;                 /* [uplinks] number of the last group that had a member there */
    struct tv_uplink *uplinks; /* [uplinks] */
};

static int vertex_of(const struct count *c, struct tv_mesh_coord at)
{
    return c->of_node[c->plan->places_of[tv_mesh_rank_of(c->plan->args.extent, at)].node];
}

static void add(struct count *c, int vertex, int axis)
{
    if (vertex >= 0)
        c->uplinks[vertex].bytes[axis] += c->plan->args.traffic.load[axis];
}

/* The group of `axis` through `at`: each vertex with a member, when not all are in one. */
static void add_ring(struct count *c, struct tv_mesh_coord at, int axis, int group)
{
    const int n = c->plan->args.extent.at[axis], first = vertex_of(c, at);
    int crosses = 0;
    for (int i = 1; i < n; i++) {
        at.at[axis] = i;
        crosses |= vertex_of(c, at) != first;
    }
    for (int i = 0; i < n && crosses; i++) {
        at.at[axis] = i;
        const int vertex = vertex_of(c, at);
        if (vertex >= 0 && c->seen[vertex] != group) {
            c->seen[vertex] = group;
            add(c, vertex, axis);
        }
    }
}

/* Stages p and p + 1, and with several chunks in a loop the last and the first. */
static void add_pairs(struct count *c, struct tv_mesh_coord at)
{
    const int P = c->plan->args.extent.at[TV_PIPE];
    const int num_pairs = P == 1 ? 0 : c->plan->args.traffic.wraps_pipe ? P : P - 1;
    for (int p = 0; p < num_pairs; p++) {
        at.at[TV_PIPE] = p;
        const int here = vertex_of(c, at);
        at.at[TV_PIPE] = (p + 1) % P;
        const int next = vertex_of(c, at);
        if (here != next) {
            add(c, here, TV_PIPE);
            add(c, next, TV_PIPE);
        }
    }
}

static void count_groups(struct count *c, int num_uplinks)
{
    for (int axis = 0; axis < TV_NUM_AXES; axis++) {
        for (int i = 0; i < num_uplinks; i++)
            c->seen[i] = -1;
        for (int r = 0; r < c->plan->map.num_ranks; r++) {
            const struct tv_mesh_coord at = tv_mesh_coord_of(c->plan->args.extent, r);
            if (at.at[axis] != 0)
                continue;
            if (axis == TV_PIPE)
                add_pairs(c, at);
            else
                add_ring(c, at, axis, r);
        }
    }
}

/* The first of the uplinks of domains and of switches. */
static int first_domain(const struct tv_topology *topology)
{
    return topology->num_nodes;
}

static int first_switch(const struct tv_topology *topology)
{
    return topology->num_nodes + topology->num_domains;
}

/* Names and rates. A switch without a rate is as fast as the nodes below it. */
static void name_uplinks(const struct tv_topology *topology, struct tv_uplink *uplinks)
{
    struct tv_uplink *domains = uplinks + first_domain(topology);
    struct tv_uplink *switches = uplinks + first_switch(topology);
    for (int n = 0; n < topology->num_nodes; n++) {
        const struct tv_node *node = &topology->nodes[n];
        const double gbps = tv_topology_shape(topology, n)->nic_gbps;
        uplinks[n].name = node->name;
        if (node->domain >= 0)
            domains[node->domain].gbps += gbps;
        else
            uplinks[n].gbps = gbps;
        for (int v = node->leaf; v >= 0; v = topology->switches[v].parent)
            switches[v].gbps += gbps;
    }
    for (int d = 0; d < topology->num_domains; d++)
        domains[d].name = topology->domains[d];
    for (int v = 0; v < topology->num_switches; v++) {
        switches[v].name = topology->switches[v].name;
        if (topology->switches[v].uplink_gbps > 0)
            switches[v].gbps = topology->switches[v].uplink_gbps;
    }
}

static void count_all(struct count *c, int *of_node, int num_uplinks)
{
    const struct tv_topology *topology = &c->plan->topology;
    int is_climbing = 1;
    for (int n = 0; n < topology->num_nodes; n++) {
        const int domain = topology->nodes[n].domain;
        of_node[n] = domain >= 0 ? first_domain(topology) + domain : n;
    }
    count_groups(c, num_uplinks);
    for (int level = 0; is_climbing; level++) { /* 0: leaf switches */
        is_climbing = 0;
        for (int n = 0; n < topology->num_nodes; n++) {
            int v = topology->nodes[n].leaf;
            for (int i = 0; i < level && v >= 0; i++)
                v = topology->switches[v].parent;
            of_node[n] = v >= 0 ? first_switch(topology) + v : -1;
            is_climbing |= v >= 0;
        }
        if (is_climbing)
            count_groups(c, num_uplinks);
    }
}

tv_status_t tv_map_uplinks(const struct tv_map_plan *plan, struct tv_uplink **uplinks_out)
{
    const struct tv_topology *topology = &plan->topology;
    const int num = first_switch(topology) + topology->num_switches;
    int *of_node = calloc((size_t)topology->num_nodes, sizeof(*of_node));
    struct count c = {.plan = plan, .of_node = of_node};
    c.seen = calloc((size_t)num, sizeof(*c.seen));
    c.uplinks = calloc((size_t)num, sizeof(*c.uplinks));
    tv_status_t status = TV_OK;
    if (of_node == NULL || c.seen == NULL || c.uplinks == NULL) {
        status = TV_ERR(TV_NO_MEMORY, "%d uplinks", num);
        free(c.uplinks);
    } else {
        name_uplinks(topology, c.uplinks);
        count_all(&c, of_node, num);
        *uplinks_out = c.uplinks;
    }
    free(of_node);
    free(c.seen);
    return status;
}

double tv_uplink_seconds(const struct tv_uplink *uplink, int axis)
{
    return uplink->gbps > 0 ? uplink->bytes[axis] / (1e9 * uplink->gbps) : 0;
}
