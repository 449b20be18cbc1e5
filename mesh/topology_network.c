/* mesh/topology_network.c -- switches and NVLink domains, collected by name, then given to the nodes
 * of a topology. */
#include "mesh/topology_internal.h"
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct named {
    char name[TV_TOPO_NAME];
    int index;
};

static int compare_named(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

/* The index of the name; new ones are *num_before it. */
static tv_status_t index_of(struct tv_names *names, const char *path, int line, const char *name,
                            int *index_out)
{
    if (*name == '\0' || strlen(name) >= TV_TOPO_NAME)
        return TV_ERR(TV_BAD_FILE, "%s:%d: \"%.80s\": a name has 1 to %d characters", path, line,
                      name, TV_TOPO_NAME - 1);
    if (names->num == TV_TOPO_MAX_NODES)
        return TV_ERR(TV_BAD_FILE, "%s:%d: more than %d names", path, line, TV_TOPO_MAX_NODES);
    struct named *entry = calloc(1, sizeof(*entry));
    if (entry == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d names", names->num + 1);
    strcpy(entry->name, name);
    entry->index = names->num;
    struct named **found = tsearch(entry, &names->tree, compare_named);
    if (found == NULL || *found != entry)
        free(entry);
    if (found == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d names", names->num + 1);
    *index_out = (*found)->index;
    return TV_OK;
}

void tv_network_free(struct tv_network *network)
{
    tdestroy(network->switch_names.tree, free);
    tdestroy(network->domain_names.tree, free);
    free(network->switches);
    free(network->domains);
    free(network->nodes);
    *network = (struct tv_network){0};
}

tv_status_t tv_network_switch(struct tv_network *network, const char *name, int line,
                              int *index_out)
{
    const int num = network->switch_names.num;
    TV_TRY(index_of(&network->switch_names, network->path, line, name, index_out));
    if (*index_out < num)
        return TV_OK;
    struct tv_switch *grown = tv_topology_grown(network->switches, num, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d switches", num + 1);
    network->switches = grown;
    grown[num] = (struct tv_switch){.parent = -1};
    strcpy(grown[num].name, name);
    network->switch_names.num++;
    return TV_OK;
}

tv_status_t tv_network_domain(struct tv_network *network, const char *name, int line,
                              int *index_out)
{
    const int num = network->domain_names.num;
    TV_TRY(index_of(&network->domain_names, network->path, line, name, index_out));
    if (*index_out < num)
        return TV_OK;
    char(*grown)[TV_TOPO_NAME] = tv_topology_grown(network->domains, num, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d domains", num + 1);
    network->domains = grown;
    strcpy(grown[num], name);
    network->domain_names.num++;
    return TV_OK;
}

tv_status_t tv_network_join(struct tv_network *network, int child, int parent, int line)
{
    struct tv_switch *below = &network->switches[child];
    if (child == parent || (below->parent >= 0 && below->parent != parent))
        return TV_ERR(TV_BAD_FILE, "%s:%d: switch %s is below %s already", network->path, line,
                      below->name, network->switches[child == parent ? child : below->parent].name);
    below->parent = parent;
    return TV_OK;
}

tv_status_t tv_network_add_node(struct tv_network *network, const char *name, int leaf, int domain,
                                int line)
{
    const int num = network->num_nodes;
    if (*name == '\0' || strlen(name) >= TV_TOPO_NAME || num == TV_TOPO_MAX_NODES)
        return TV_ERR(TV_BAD_FILE, "%s:%d: node \"%.80s\": at most %d nodes, of %d characters",
                      network->path, line, name, TV_TOPO_MAX_NODES, TV_TOPO_NAME - 1);
    struct tv_network_node *grown = tv_topology_grown(network->nodes, num, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d nodes", num + 1);
    network->nodes = grown;
    grown[num] = (struct tv_network_node){.leaf = leaf, .domain = domain, .line = line};
    strcpy(grown[num].name, name);
    network->num_nodes++;
    return TV_OK;
}

static int count_dots(const char *text)
{
    int num = 0;
    for (; *text != '\0'; text++)
        num += *text == '.';
    return num;
}

tv_status_t tv_network_add_address(struct tv_network *network, const char *node,
                                   const char *address, const char *pattern)
{
    const int num_levels = count_dots(pattern != NULL ? pattern : address);
    int leaf = -1;
    const char *at = address;
    for (int level = 0; level < num_levels; level++) {
        char name[TV_TOPO_NAME];
        const size_t length = strcspn(at, ".");
        if (at[length] != '.' || length >= sizeof(name))
            return TV_ERR(TV_INVALID, "%s: \"%s\" is not an address of %d switches and a node",
                          network->path, address, num_levels);
        memcpy(name, at, length);
        name[length] = '\0';
        int index;
        TV_TRY(tv_network_switch(network, name, 1, &index));
        if (leaf >= 0)
            TV_TRY(tv_network_join(network, index, leaf, 1));
        leaf = index;
        at += length + 1;
    }
    return tv_network_add_node(network, node, leaf, -1, 1);
}

/* Slurm's lines hold KEY=VALUE from the first on; YAML does not. */
tv_status_t tv_network_parse(const struct tv_text *text, struct tv_network *network)
{
    TV_TRY(tv_text_check(text));
    const char *at = text->data + strspn(text->data, " \t\r\n");
    while (*at == '#') {
        at += strcspn(at, "\n");
        at += strspn(at, " \t\r\n");
    }
    if (*at == '\0')
        return TV_ERR(TV_BAD_FILE, "%s: empty", text->path);
    if (*at == '<' || strncmp(at, "GPU", 3) == 0)
        return TV_ERR(TV_BAD_FILE, "%s: describes a node, not a network", text->path);
    const size_t key = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (key > 0 && at[key] == '=')
        return tv_network_parse_slurm(text, network);
    return tv_network_parse_topograph(text, network);
}

tv_status_t tv_topology_read_network(struct tv_topology *topology, const char *path,
                                     int is_generated)
{
    struct tv_text text;
    TV_TRY(tv_text_read(path, &text));
    struct tv_network network = {.path = path};
    tv_status_t status = tv_network_parse(&text, &network);
    free(text.data);
    if (status == TV_OK)
        status = tv_topology_set_network(topology, &network, is_generated);
    tv_network_free(&network);
    return status;
}
