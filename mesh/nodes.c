/* mesh/nodes.c -- every rank's account of its machine, gathered and sorted. */
#include "mesh/nodes.h"
#include "base/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* What a rank tells the others. */
struct account {
    uint64_t machine; /* hash of what makes the node another one than those of the same name */
    uint64_t kernel;  /* hash of what ranks on the same CPUs share */
    int32_t rank;
    char name[TV_TOPO_NAME];
};

static void append_file(const char *path, char *text, size_t bytes)
{
    const size_t used = strlen(text);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return;
    text[used + fread(text + used, 1, bytes - used - 1, file)] = '\0';
    fclose(file);
}

static void append_link(const char *path, char *text, size_t bytes)
{
    const size_t used = strlen(text);
    const ssize_t got = readlink(path, text + used, bytes - used - 1);
    text[used + (got > 0 ? (size_t)got : 0)] = '\0';
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? value : "";
}

/* srun gives every task its own number; a launcher started by srun has one number for all. */
static tv_status_t find_slurm(struct tv_comm *world, int *is_slurm_out)
{
    char rank[16], size[16];
    snprintf(rank, sizeof(rank), "%d", tv_comm_rank(world));
    snprintf(size, sizeof(size), "%d", tv_comm_size(world));
    int32_t mine =
        strcmp(variable("SLURM_PROCID"), rank) == 0 && strcmp(variable("SLURM_NTASKS"), size) == 0;
    TV_TRY(tv_comm_all_reduce_now(world, &mine, 1, TV_I32, TV_MIN));
    *is_slurm_out = mine;
    return TV_OK;
}

static void describe(int is_slurm, const char *name, struct account *account)
{
    char host[256] = "", identity[1024] = "", kernel[1024] = "";
    (void)gethostname(host, sizeof(host) - 1);
    if (name == NULL) {
        append_file("/proc/sys/kernel/random/boot_id", identity, sizeof(identity) - 512);
        snprintf(kernel, sizeof(kernel), "%s", identity[0] != '\0' ? identity : host);
        append_link("/proc/self/ns/net", identity, sizeof(identity) - 512);
        strcat(identity, host);
    }
    if (name == NULL && is_slurm) {
        const size_t used = strlen(identity);
        snprintf(identity + used, sizeof(identity) - used, " %s/%s", variable("SLURM_JOB_ID"),
                 variable("SLURM_NODEID"));
        if (variable("SLURMD_NODENAME")[0] != '\0')
            name = variable("SLURMD_NODENAME");
    }
    snprintf(account->name, sizeof(account->name), "%.*s", TV_TOPO_NAME - 8,
             name != NULL ? name : host);
    if (kernel[0] == '\0')
        snprintf(kernel, sizeof(kernel), "%s", account->name);
    account->machine = XXH64(identity, strlen(identity), 0);
    account->kernel = XXH64(kernel, strlen(kernel), 0);
}

static int by_machine(const void *a, const void *b)
{
    const struct account *x = a, *y = b;
    const int names = tv_natural_order(x->name, y->name);
    if (names != 0)
        return names;
    if (x->machine != y->machine)
        return x->machine < y->machine ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static int is_same(const struct account *a, const struct account *b)
{
    return a->machine == b->machine && strcmp(a->name, b->name) == 0;
}

/* Number the machines in the order of their names; a second one of the same name is NAME#2. */
static void number_nodes(struct account *all, int num, struct tv_nodes *nodes)
{
    qsort(all, (size_t)num, sizeof(*all), by_machine);
    int alike = 1;
    for (int i = 0; i < num; i++) {
        if (i == 0 || !is_same(&all[i - 1], &all[i])) {
            alike = i > 0 && strcmp(all[i - 1].name, all[i].name) == 0 ? alike + 1 : 1;
            char *name = nodes->names[nodes->num_nodes++];
            if (alike == 1)
                snprintf(name, TV_TOPO_NAME, "%s", all[i].name);
            else
                snprintf(name, TV_TOPO_NAME, "%.*s#%d", TV_TOPO_NAME - 16, all[i].name, alike);
        }
        nodes->node_of[all[i].rank] = nodes->num_nodes - 1;
    }
}

/* all: in the order of ranks. A kernel's color is its first rank. */
static tv_status_t split_kernels(struct tv_comm *world, const struct account *all,
                                 struct tv_nodes *nodes)
{
    const int rank = tv_comm_rank(world);
    int first = 0;
    while (all[first].kernel != all[rank].kernel)
        first++;
    TV_TRY(tv_comm_split(world, first, rank, &nodes->kernel));
    tv_comm_set_name(nodes->kernel, "kernel");
    return TV_OK;
}

static tv_status_t find_nodes(struct tv_comm *world, const char *name, struct account *all,
                              struct tv_nodes *nodes)
{
    struct account mine = {.rank = tv_comm_rank(world)};
    struct tv_request *request = NULL;
    TV_TRY(find_slurm(world, &nodes->is_slurm));
    describe(nodes->is_slurm, name, &mine);
    TV_TRY(tv_comm_all_gather(world, &mine, all, (int64_t)sizeof(mine), TV_U8, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    TV_TRY(split_kernels(world, all, nodes));
    number_nodes(all, tv_comm_size(world), nodes);
    nodes->here = nodes->node_of[mine.rank];
    TV_TRY(tv_comm_split(world, nodes->here, mine.rank, &nodes->local));
    tv_comm_set_name(nodes->local, "node");
    return TV_OK;
}

tv_status_t tv_nodes_find(struct tv_comm *world, const char *name, struct tv_nodes *nodes_out)
{
    const size_t num = (size_t)tv_comm_size(world);
    struct account *all = calloc(num, sizeof(*all));
    struct tv_nodes nodes = {.names = calloc(num, sizeof(*nodes.names)),
                             .node_of = calloc(num, sizeof(*nodes.node_of))};
    tv_status_t status = TV_OK;
    int first_failed;
    if (all == NULL || nodes.names == NULL || nodes.node_of == NULL)
        status = TV_ERR(TV_NO_MEMORY, "nodes of %zu ranks", num);
    status = tv_comm_agree(world, status, &first_failed); /* before anybody waits for another */
    if (status == TV_OK)
        status = find_nodes(world, name, all, &nodes);
    free(all);
    if (status != TV_OK) {
        tv_nodes_free(&nodes);
        return status;
    }
    *nodes_out = nodes;
    return TV_OK;
}

void tv_nodes_free_groups(struct tv_nodes *nodes)
{
    tv_comm_destroy(nodes->kernel);
    tv_comm_destroy(nodes->local);
    nodes->kernel = nodes->local = NULL;
}

void tv_nodes_free(struct tv_nodes *nodes)
{
    tv_nodes_free_groups(nodes);
    free(nodes->names);
    free(nodes->node_of);
    *nodes = (struct tv_nodes){0};
}

tv_status_t tv_warn_once(struct tv_comm *world, const char *text)
{
    int32_t num = text != NULL, first = text != NULL ? tv_comm_rank(world) : tv_comm_size(world);
    TV_TRY(tv_comm_all_reduce_now(world, &num, 1, TV_I32, TV_SUM));
    if (num == 0)
        return TV_OK;
    TV_TRY(tv_comm_all_reduce_now(world, &first, 1, TV_I32, TV_MIN));
    if (first != tv_comm_rank(world))
        return TV_OK;
    if (num == 1)
        tv_log(TV_LOG_WARN, "%s", text);
    else
        tv_log(TV_LOG_WARN, "%s (and %d more like this)", text, num - 1);
    return TV_OK;
}
