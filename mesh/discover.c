/* mesh/discover.c -- records gathered, machines told once each, a topology made of both. */
#include "mesh/discover.h"
#include "mesh/binding.h"
#include "mesh/live.h"
#include "mesh/topology_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const double copy_gbps = 10; /* between two processes of one machine, through memory */

/* What a rank tells all others: at most 128 bytes. */
struct record {
    uint64_t machine; /* hash of its tables */
    int32_t place;
    char address[112]; /* "" none or too long, else "switches" separated by '.' and the node */
};
_Static_assert(sizeof(struct record) <= 128, "records of many ranks lie in memory of each");

struct tellers {
    struct tv_comm *world;
    const struct tv_nodes *nodes;
    struct record *records; /* [ranks] */
    int *order;             /* [ranks] by node, place, rank */
    int num_machines;       /* that all ranks know */
    uint64_t *hashes;       /* [nodes] of them */
    struct tv_machine *machines;
};

static uint64_t hash_of(const struct tv_machine *machine)
{
    const size_t cpus = (size_t)machine->num_cpus * sizeof(*machine->cpus);
    const size_t nics = (size_t)machine->num_nics * sizeof(*machine->nics);
    const uint64_t seed = XXH64(machine->cpus, cpus, 0);
    return nics > 0 ? XXH64(machine->nics, nics, seed) : seed;
}

/* Slurm's variables are a rank's own only where srun started it. */
static void set_address(const struct tv_discover_args *args, struct record *record)
{
    const char *address = args->address;
    if (address == NULL && args->nodes->is_slurm)
        address = getenv("SLURM_TOPOLOGY_ADDR");
    if (address != NULL && strlen(address) < sizeof(record->address))
        strcpy(record->address, address);
}

/* ---- shapes ---- */

static tv_status_t add_numa(struct tv_node_shape *shape, const struct tv_machine *machine,
                            const struct tv_cpu *first)
{
    struct tv_cpu_mask mask = {0};
    enum { BYTES = 16384 };
    for (int k = 0; k < shape->num_numas; k++) {
        if (shape->numas[k].os_index == first->numa)
            return TV_OK;
    }
    for (int c = 0; c < machine->num_cpus; c++) {
        if (machine->cpus[c].numa == first->numa)
            tv_cpu_mask_add(&mask, machine->cpus[c].os_index);
    }
    char *text = malloc(BYTES);
    if (text == NULL)
        return TV_ERR(TV_NO_MEMORY, "CPUs of a NUMA node");
    tv_cpu_mask_text(&mask, text, BYTES);
    shape->numas[shape->num_numas++] =
        (struct tv_numa){.os_index = first->numa, .package = first->package, .cpus = text};
    return TV_OK;
}

/* Places on CPUs: the i-th of n lies where the i-th share of the CPUs starts. */
static tv_status_t fill_shape(const struct tv_machine *machine, int num_ranks,
                              struct tv_node_shape *shape)
{
    shape->gpus = calloc((size_t)num_ranks, sizeof(*shape->gpus));
    shape->numas = calloc((size_t)machine->num_cpus, sizeof(*shape->numas));
    shape->nics = calloc((size_t)machine->num_nics + 1, sizeof(*shape->nics));
    if (shape->gpus == NULL || shape->numas == NULL || shape->nics == NULL)
        return TV_ERR(TV_NO_MEMORY, "a node of %d places", num_ranks);
    for (int c = 0; c < machine->num_cpus; c++)
        TV_TRY(add_numa(shape, machine, &machine->cpus[c]));
    shape->num_nics = machine->num_nics;
    for (int i = 0; i < machine->num_nics; i++) {
        shape->nics[i] = machine->nics[i];
        shape->nic_gbps += machine->nics[i].gbps;
    }
    if (machine->num_nics == 0)
        shape->nic_gbps = TV_GBPS_NIC;
    shape->num_gpus = num_ranks;
    for (int i = 0; i < num_ranks; i++) {
        const struct tv_cpu *cpu = &machine->cpus[(int64_t)i * machine->num_cpus / num_ranks];
        shape->gpus[i] = (struct tv_gpu){.numa = cpu->numa,
                                         .package = cpu->package,
                                         .pcie_switch = -1,
                                         .nic = machine->num_nics == 1 ? 0 : -1};
    }
    shape->links_kind = TV_LINKS_SWITCH; /* memory joins all pairs */
    shape->gpu_gbps = copy_gbps;
    shape->is_cpu = 1;
    return TV_OK;
}

/* ---- nodes ---- */

/* The tables with this hash, told by `teller` when they are new. */
static tv_status_t find_machine(struct tellers *t, uint64_t hash, int teller,
                                const struct tv_machine *mine, const struct tv_machine **found)
{
    for (int i = 0; i < t->num_machines; i++) {
        *found = &t->machines[i];
        if (t->hashes[i] == hash)
            return TV_OK;
    }
    struct tv_machine *told = &t->machines[t->num_machines];
    tv_status_t status = TV_OK;
    int first_failed;
    if (tv_comm_rank(t->world) == teller)
        status = tv_machine_copy(mine, told);
    TV_TRY(tv_comm_agree(t->world, status, &first_failed));
    TV_TRY(tv_machine_broadcast(t->world, teller, told));
    t->hashes[t->num_machines++] = hash;
    *found = told;
    return TV_OK;
}

/* Nodes in the order of their names; order[] lists their ranks one node after the other. */
static tv_status_t add_nodes(struct tellers *t, const struct tv_machine *mine,
                             struct tv_topology *topology, struct tv_device_place *arrivals)
{
    const int num_ranks = tv_comm_size(t->world);
    for (int i = 0, next; i < num_ranks; i = next) {
        const int node = t->nodes->node_of[t->order[i]];
        for (next = i; next < num_ranks && t->nodes->node_of[t->order[next]] == node; next++)
            arrivals[t->order[next]] = (struct tv_device_place){node, next - i};
        const struct tv_machine *machine = NULL;
        struct tv_node_shape shape = {0};
        int index;
        TV_TRY(find_machine(t, t->records[t->order[i]].machine, t->order[i], mine, &machine));
        const tv_status_t status = fill_shape(machine, next - i, &shape);
        if (status != TV_OK) {
            tv_node_shape_free(&shape);
            return status;
        }
        TV_TRY(tv_topology_add_shape(topology, &shape, &index));
        TV_TRY(tv_topology_add_node(topology, t->nodes->names[node], index));
    }
    return TV_OK;
}

/* ---- switches from addresses such as "root.spine.leaf.node" ---- */

static tv_status_t find_switch(struct tv_topology *topology, const char *name, int parent,
                               int *index_out)
{
    for (int s = 0; s < topology->num_switches; s++) {
        if (topology->switches[s].parent == parent &&
            strcmp(topology->switches[s].name, name) == 0) {
            *index_out = s;
            return TV_OK;
        }
    }
    struct tv_switch *grown =
        tv_topology_grown(topology->switches, topology->num_switches, sizeof(*topology->switches));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d switches", topology->num_switches + 1);
    topology->switches = grown;
    *index_out = topology->num_switches++;
    grown[*index_out] = (struct tv_switch){.parent = parent};
    snprintf(grown[*index_out].name, TV_TOPO_NAME, "%.*s", TV_TOPO_NAME - 1, name);
    return TV_OK;
}

/* All words but the last, the node's own, are switches from the root down. */
static tv_status_t add_address(struct tv_topology *topology, int node, const char *address)
{
    char words[112];
    int parent = -1;
    snprintf(words, sizeof(words), "%s", address);
    char *word = words, *dot;
    while ((dot = strchr(word, '.')) != NULL) {
        *dot = '\0';
        TV_TRY(find_switch(topology, word, parent, &parent));
        word = dot + 1;
    }
    topology->nodes[node].leaf = parent;
    return TV_OK;
}

/* A network that only some nodes are part of says nothing of the others: none at all. */
static tv_status_t add_switches(const struct tellers *t, struct tv_topology *topology)
{
    const int num_ranks = tv_comm_size(t->world);
    for (int r = 0; r < num_ranks; r++) {
        if (t->records[r].address[0] == '\0')
            return TV_OK;
    }
    for (int i = 0; i < num_ranks; i++) {
        const int rank = t->order[i], node = t->nodes->node_of[rank];
        if (i == 0 || t->nodes->node_of[t->order[i - 1]] != node)
            TV_TRY(add_address(topology, node, t->records[rank].address));
    }
    return TV_OK;
}

/* ---- all of it ---- */

struct key {
    int node, place, rank;
};

static int by_place(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static tv_status_t sort_ranks(struct tellers *t)
{
    const int num = tv_comm_size(t->world);
    struct key *keys = calloc((size_t)num, sizeof(*keys));
    if (keys == NULL)
        return TV_ERR(TV_NO_MEMORY, "places of %d ranks", num);
    for (int r = 0; r < num; r++)
        keys[r] = (struct key){t->nodes->node_of[r], t->records[r].place, r};
    qsort(keys, (size_t)num, sizeof(*keys), by_place);
    for (int i = 0; i < num; i++)
        t->order[i] = keys[i].rank;
    free(keys);
    return TV_OK;
}

static tv_status_t tellers_alloc(struct tellers *t)
{
    const size_t ranks = (size_t)tv_comm_size(t->world), nodes = (size_t)t->nodes->num_nodes;
    t->records = calloc(ranks, sizeof(*t->records));
    t->order = calloc(ranks, sizeof(*t->order));
    t->hashes = calloc(nodes, sizeof(*t->hashes));
    t->machines = calloc(nodes, sizeof(*t->machines));
    if (t->records == NULL || t->order == NULL || t->hashes == NULL || t->machines == NULL)
        return TV_ERR(TV_NO_MEMORY, "records of %zu ranks", ranks);
    return TV_OK;
}

static void tellers_free(struct tellers *t)
{
    for (int i = 0; i < t->num_machines; i++)
        tv_machine_free(&t->machines[i]);
    free(t->records);
    free(t->order);
    free(t->hashes);
    free(t->machines);
}

static tv_status_t discover(struct tellers *t, const struct tv_discover_args *args,
                            struct tv_topology *topology, struct tv_device_place *arrivals)
{
    struct record mine = {.machine = hash_of(args->machine), .place = args->place};
    struct tv_request *request = NULL;
    int first_failed;
    TV_TRY(tv_comm_agree(t->world, tellers_alloc(t), &first_failed));
    set_address(args, &mine);
    TV_TRY(tv_comm_all_gather(t->world, &mine, t->records, (int64_t)sizeof(mine), TV_U8, NULL,
                              &request));
    TV_TRY(tv_request_wait(&request));
    TV_TRY(tv_comm_agree(t->world, sort_ranks(t), &first_failed));
    TV_TRY(args->uses_gpus
               ? tv_live_nodes(t->world, t->nodes, args->may_share_gpus, topology, arrivals)
               : add_nodes(t, args->machine, topology, arrivals));
    if (args->network != NULL)
        return tv_comm_agree(t->world, tv_topology_read_network(topology, args->network, 0),
                             &first_failed);
    return tv_comm_agree(t->world, add_switches(t, topology), &first_failed);
}

tv_status_t tv_topology_discover(struct tv_comm *world, const struct tv_discover_args *args,
                                 struct tv_topology *topology_out,
                                 struct tv_device_place *arrivals_out)
{
    struct tellers tellers = {.world = world, .nodes = args->nodes};
    struct tv_topology topology = {0};
    const tv_status_t status = discover(&tellers, args, &topology, arrivals_out);
    tellers_free(&tellers);
    if (status != TV_OK) {
        tv_topology_free(&topology);
        return status;
    }
    *topology_out = topology;
    return TV_OK;
}
