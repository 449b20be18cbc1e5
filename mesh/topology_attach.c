/* mesh/topology_attach.c -- find the nodes of a topology in a network, and keep what is above them.
 */
#include "mesh/topology_internal.h"
#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct tv_network_node *)a)->name,
                  ((const struct tv_network_node *)b)->name);
}

static int compare_naturally(const void *a, const void *b)
{
    return tv_natural_order(((const struct tv_network_node *)a)->name,
                            ((const struct tv_network_node *)b)->name);
}

static const struct tv_network_node *find(const struct tv_network *network, const char *name)
{
    struct tv_network_node key;
    strcpy(key.name, name);
    return bsearch(&key, network->nodes, (size_t)network->num_nodes, sizeof(key), compare_names);
}

static tv_status_t twice(const struct tv_network *network, const struct tv_network_node *a,
                         const struct tv_network_node *b)
{
    const int first = a->line < b->line ? a->line : b->line;
    return TV_ERR(TV_BAD_FILE, "%s:%d: node %s comes twice (the first time in line %d)",
                  network->path, a->line + b->line - first, a->name, first);
}

/* Sort by name. Errors: TV_BAD_FILE: no nodes, or one twice. */
static tv_status_t sort_nodes(struct tv_network *network)
{
    if (network->num_nodes == 0)
        return TV_ERR(TV_BAD_FILE, "%s: a network without nodes", network->path);
    qsort(network->nodes, (size_t)network->num_nodes, sizeof(*network->nodes), compare_names);
    for (int n = 1; n < network->num_nodes; n++) {
        if (strcmp(network->nodes[n - 1].name, network->nodes[n].name) == 0)
            return twice(network, &network->nodes[n - 1], &network->nodes[n]);
    }
    return TV_OK;
}

static void place(struct tv_node *node, const struct tv_network_node *in_network)
{
    strcpy(node->name, in_network->name);
    node->leaf = in_network->leaf;
    node->domain = in_network->domain;
}

/* By name; or, where trivet made the names up, the network's in natural order. */
static tv_status_t place_nodes(struct tv_topology *topology, struct tv_network *network,
                               int is_generated)
{
    const struct tv_node *missing = NULL;
    for (int n = 0; n < topology->num_nodes && missing == NULL; n++) {
        if (find(network, topology->nodes[n].name) == NULL)
            missing = &topology->nodes[n];
    }
    if (missing == NULL) {
        for (int n = 0; n < topology->num_nodes; n++)
            place(&topology->nodes[n], find(network, topology->nodes[n].name));
        return TV_OK;
    }
    if (!is_generated)
        return TV_ERR(TV_INVALID, "%s: node %s is not among its %d nodes (%s, ...)", network->path,
                      missing->name, network->num_nodes, network->nodes[0].name);
    if (network->num_nodes < topology->num_nodes)
        return TV_ERR(TV_INVALID, "%s: a network of %d nodes for %d", network->path,
                      network->num_nodes, topology->num_nodes);
    qsort(network->nodes, (size_t)network->num_nodes, sizeof(*network->nodes), compare_naturally);
    for (int n = 0; n < topology->num_nodes; n++)
        place(&topology->nodes[n], &network->nodes[n]);
    return TV_OK;
}

/* How many switches are above; more than any network has: a circle. */
static int depth_of(const struct tv_network *network, int index)
{
    int depth = 0;
    for (int s = network->switches[index].parent; s >= 0 && depth <= TV_TOPO_MAX_DEPTH;
         s = network->switches[s].parent)
        depth++;
    return depth;
}

static tv_status_t check_depths(const struct tv_network *network)
{
    for (int s = 0; s < network->switch_names.num; s++) {
        if (depth_of(network, s) > TV_TOPO_MAX_DEPTH)
            return TV_ERR(TV_BAD_FILE, "%s: switch %s is below itself, or below more than %d",
                          network->path, network->switches[s].name, TV_TOPO_MAX_DEPTH);
    }
    return TV_OK;
}

/* number[s]: 1 where a node is below the switch; becomes its new index, parents first. */
static void number_switches(struct tv_topology *topology, const struct tv_network *network,
                            int *number)
{
    const int num = network->switch_names.num;
    int num_used = 0;
    for (int n = 0; n < topology->num_nodes; n++) {
        for (int s = topology->nodes[n].leaf; s >= 0 && number[s] == 0;
             s = network->switches[s].parent) {
            number[s] = 1;
            num_used++;
        }
    }
    for (int depth = 0; topology->num_switches < num_used; depth++) {
        for (int s = 0; s < num; s++) {
            if (number[s] == 0 || depth_of(network, s) != depth)
                continue;
            struct tv_switch *copy = &topology->switches[topology->num_switches];
            *copy = network->switches[s];
            if (copy->parent >= 0)
                copy->parent = number[copy->parent] - 1;
            number[s] = ++topology->num_switches;
        }
    }
    for (int n = 0; n < topology->num_nodes; n++) {
        if (topology->nodes[n].leaf >= 0)
            topology->nodes[n].leaf = number[topology->nodes[n].leaf] - 1;
    }
}

static void number_domains(struct tv_topology *topology, const struct tv_network *network,
                           int *number)
{
    for (int n = 0; n < topology->num_nodes; n++) {
        int *domain = &topology->nodes[n].domain;
        if (*domain < 0)
            continue;
        if (number[*domain] == 0) {
            strcpy(topology->domains[topology->num_domains], network->domains[*domain]);
            number[*domain] = ++topology->num_domains;
        }
        *domain = number[*domain] - 1;
    }
}

tv_status_t tv_topology_set_network(struct tv_topology *topology, struct tv_network *network,
                                    int is_generated)
{
    TV_TRY(sort_nodes(network));
    TV_TRY(check_depths(network));
    const size_t num_switches = (size_t)network->switch_names.num;
    const size_t num_domains = (size_t)network->domain_names.num;
    int *number = calloc(num_switches + num_domains + 1, sizeof(*number));
    struct tv_switch *switches = calloc(num_switches + 1, sizeof(*switches));
    char(*domains)[TV_TOPO_NAME] = calloc(num_domains + 1, sizeof(*domains));
    tv_status_t status = TV_OK;
    if (number == NULL || switches == NULL || domains == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%zu switches", num_switches);
    if (status == TV_OK)
        status = place_nodes(topology, network, is_generated);
    if (status == TV_OK) {
        topology->switches = switches;
        topology->domains = domains;
        number_switches(topology, network, number);
        number_domains(topology, network, number + num_switches);
    } else {
        free(switches);
        free(domains);
    }
    free(number);
    return status;
}
