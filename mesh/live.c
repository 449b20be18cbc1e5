/* mesh/live.c -- every rank says what it sees; its node's first rank reads the node and deals GPUs. */
#include "mesh/live.h"
#include "mesh/topology_driver_internal.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- who takes what ---- */

static int is_same_sight(const struct tv_sight *a, const struct tv_sight *b)
{
    return a->num == b->num && memcmp(a->gpus, b->gpus, (size_t)a->num * sizeof(a->gpus[0])) == 0;
}

static tv_status_t refuse_shared(const char *node, int num_ranks, const struct tv_sight *sights,
                                 int a, int b, uint64_t gpu)
{
    char pci[TV_TOPO_PCI];
    int num_alike = 0;
    tv_pci_format(gpu, pci);
    for (int r = 0; r < num_ranks; r++)
        num_alike += is_same_sight(&sights[r], &sights[b]);
    return TV_ERR(TV_INVALID,
                  "ranks %d and %d on %s would share GPU %s: %d rank(s) see the same %d GPU(s); "
                  "start as many ranks per node as there are GPUs, or let them share with --device "
                  "cuda --comm mpi",
                  sights[a].rank, sights[b].rank, node, pci, num_alike, sights[b].num);
}

tv_status_t tv_live_assign(const char *node, int num_ranks, const struct tv_sight *sights,
                           int may_share, uint64_t *chosen_out)
{
    for (int r = 0; r < num_ranks; r++) {
        if (sights[r].num == 0)
            return TV_ERR(TV_INVALID, "rank %d on %s sees no GPU", sights[r].rank, node);
        int num_before = 0;
        for (int q = 0; q < r; q++)
            num_before += is_same_sight(&sights[q], &sights[r]);
        const uint64_t gpu = sights[r].gpus[num_before % sights[r].num];
        for (int q = 0; q < r && !may_share; q++) {
            if (chosen_out[q] == gpu)
                return refuse_shared(node, num_ranks, sights, q, r, gpu);
        }
        chosen_out[r] = gpu;
    }
    return TV_OK;
}

/* ---- a node, by its first rank ---- */

struct telling {
    struct tv_comm *world;
    const struct tv_nodes *nodes;
    int may_share;
    struct tv_driver driver;   /* of this rank */
    struct tv_warnings asking; /* why the driver has no GPUs */
    struct tv_sight *sights;   /* [local ranks] */
    int32_t *devices;          /* [local ranks] index in the node's shape */
    char *message;             /* the node, on its first rank */
    int64_t num_bytes;
};

static tv_status_t see(struct telling *t, struct tv_sight *mine)
{
    *mine = (struct tv_sight){.rank = tv_comm_rank(t->world)};
    TV_TRY(tv_driver_read(&t->driver, &t->asking));
    int num = 0, *order = calloc((size_t)t->driver.num_gpus + 1, sizeof(*order));
    if (order == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d GPUs", t->driver.num_gpus);
    tv_status_t status = TV_OK;
    if (t->driver.num_gpus > 0)
        status = tv_driver_read_visible(&t->driver, order, &num, &t->asking);
    if (status == TV_OK && num > TV_MAX_SIGHT)
        status = TV_ERR(TV_INVALID, "%d GPUs on a node, at most %d", num, TV_MAX_SIGHT);
    for (int i = 0; i < num && status == TV_OK; i++)
        mine->gpus[mine->num++] = t->driver.gpus[order[i]].address;
    free(order);
    return status;
}

/* The driver's GPUs that some rank sees. Where one of them is hidden from this rank, nothing is known
 * of its links. */
static tv_status_t join_sights(struct telling *t, int num_ranks)
{
    struct tv_driver *driver = &t->driver;
    int *order = calloc((size_t)num_ranks * TV_MAX_SIGHT + 1, sizeof(*order)), num = 0;
    if (order == NULL)
        return TV_ERR(TV_NO_MEMORY, "GPUs of %d ranks", num_ranks);
    tv_status_t status = TV_OK;
    for (int i = 0; i < num_ranks * TV_MAX_SIGHT && status == TV_OK; i++) {
        const struct tv_sight *sight = &t->sights[i / TV_MAX_SIGHT];
        if (i % TV_MAX_SIGHT >= sight->num)
            continue;
        const uint64_t address = sight->gpus[i % TV_MAX_SIGHT];
        int at = tv_driver_find(driver, address);
        if (at < 0)
            status = tv_driver_add(driver, address, &at);
        for (int k = 0; k < num && at >= 0; k++)
            at = order[k] == at ? -1 : at;
        if (at >= 0)
            order[num++] = at;
    }
    if (status == TV_OK)
        status = tv_driver_keep(driver, order, num);
    free(order);
    return status;
}

/* Without a driver hwloc's GPUs are what every rank sees. */
static tv_status_t read_node(struct telling *t, int num_ranks, struct tv_node_read *node)
{
    int num_seen = 0, num_unlike = 0;
    for (int r = 0; r < num_ranks; r++) {
        num_seen += t->sights[r].num;
        num_unlike += !is_same_sight(&t->sights[r], &t->sights[0]);
    }
    if (num_seen > 0) {
        TV_TRY(join_sights(t, num_ranks));
        TV_TRY(tv_topology_read_live(&t->driver, node));
        if (num_unlike > 0)
            TV_TRY(tv_warn(&node->warnings,
                           "ranks see different GPUs (one per task, or a GPU binding): peers' "
                           "copies and NCCL fail or go through the host; let every task see all "
                           "of the node's GPUs"));
        return TV_OK;
    }
    TV_TRY(tv_topology_read_live(NULL, node));
    for (int r = 0; r < num_ranks; r++) {
        struct tv_sight *sight = &t->sights[r];
        for (int g = 0; g < node->shape.num_gpus && g < TV_MAX_SIGHT; g++) {
            if (!tv_pci_parse(node->shape.gpus[g].pci, &sight->gpus[g]))
                return TV_ERR(TV_INTERNAL, "hwloc: GPU at '%s'", node->shape.gpus[g].pci);
            sight->num = g + 1;
        }
    }
    return TV_OK;
}

static tv_status_t deal(struct telling *t, int num_ranks, struct tv_node_read *node)
{
    uint64_t *chosen = calloc((size_t)num_ranks, sizeof(*chosen));
    if (chosen == NULL)
        return TV_ERR(TV_NO_MEMORY, "GPUs of %d ranks", num_ranks);
    tv_status_t status = read_node(t, num_ranks, node);
    for (int w = 0; w < t->asking.num && status == TV_OK; w++)
        status = tv_warn(&node->warnings, "%s", t->asking.sentences[w]);
    if (status == TV_OK)
        status = tv_live_assign(t->nodes->names[t->nodes->here], num_ranks, t->sights, t->may_share,
                                chosen);
    for (int r = 0; r < num_ranks && status == TV_OK && t->devices != NULL; r++)
        t->devices[r] = tv_shape_find_gpu(&node->shape, chosen[r]);
    free(chosen);
    return status == TV_OK ? tv_node_pack(node, &t->message, &t->num_bytes) : status;
}

static tv_status_t tell_node(struct telling *t, const struct tv_sight *mine)
{
    struct tv_comm *local = t->nodes->local;
    const int num_ranks = tv_comm_size(local);
    struct tv_request *request = NULL;
    int first_failed;
    tv_status_t status = TV_OK;
    t->sights = calloc((size_t)num_ranks, sizeof(*t->sights));
    t->devices = calloc((size_t)num_ranks, sizeof(*t->devices));
    if (t->sights == NULL || t->devices == NULL)
        status = TV_ERR(TV_NO_MEMORY, "GPUs of %d ranks", num_ranks);
    TV_TRY(tv_comm_agree(t->world, status, &first_failed));
    TV_TRY(
        tv_comm_all_gather(local, mine, t->sights, (int64_t)sizeof(*mine), TV_U8, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    if (tv_comm_rank(local) == 0) {
        struct tv_node_read node = {0};
        status = deal(t, num_ranks, &node);
        tv_node_read_free(&node);
    }
    TV_TRY(tv_comm_agree(t->world, status, &first_failed));
    return tv_comm_broadcast_now(local, t->devices, num_ranks, TV_I32, 0);
}

/* ---- all nodes, on every rank ---- */

struct told { /* by a rank; hash and num_bytes by the first of its node */
    uint64_t hash;
    int64_t num_bytes;
    int32_t device, shape;
};

/* The node of rank `first`, whose message is sent to all. */
static tv_status_t receive(struct telling *t, int first, struct told *told,
                           struct tv_topology *topology)
{
    int first_failed, shape = -1;
    char *bytes = malloc((size_t)told->num_bytes + 1);
    tv_status_t status =
        bytes != NULL ? TV_OK
                      : TV_ERR(TV_NO_MEMORY, "a node of %lld bytes", (long long)told->num_bytes);
    status = tv_comm_agree(t->world, status, &first_failed);
    if (status == TV_OK && bytes != NULL && tv_comm_rank(t->world) == first)
        memcpy(bytes, t->message, (size_t)told->num_bytes);
    if (status == TV_OK)
        status = tv_comm_broadcast_now(t->world, bytes, told->num_bytes, TV_U8, first);
    struct tv_node_read node = {0};
    if (status == TV_OK)
        status = tv_node_unpack(bytes, told->num_bytes, &node);
    if (status == TV_OK)
        status = tv_topology_add_shape(topology, &node.shape, &shape);
    for (int w = 0; w < node.warnings.num && status == TV_OK; w++)
        status = tv_topology_warn(topology, "%s: %s", t->nodes->names[t->nodes->node_of[first]],
                                  node.warnings.sentences[w]);
    tv_node_read_free(&node);
    free(bytes);
    told->shape = shape;
    return tv_comm_agree(t->world, status, &first_failed);
}

static tv_status_t add_nodes(struct telling *t, struct told *all, struct tv_topology *topology)
{
    for (int n = 0; n < t->nodes->num_nodes; n++) {
        int first = 0, same = 0;
        while (t->nodes->node_of[first] != n)
            first++;
        /* A node before it that is like it; messages of equal hash are taken for equal. */
        while (same < tv_comm_size(t->world) &&
               (all[same].hash != all[first].hash || t->nodes->node_of[same] >= n))
            same++;
        if (same < tv_comm_size(t->world))
            all[first].shape = all[same].shape;
        else
            TV_TRY(receive(t, first, &all[first], topology));
        TV_TRY(tv_topology_add_node(topology, t->nodes->names[n], all[first].shape));
    }
    return tv_topology_warn_unlike(topology);
}

static tv_status_t tell_all(struct telling *t, struct tv_topology *topology,
                            struct tv_device_place *arrivals)
{
    const int num_ranks = tv_comm_size(t->world), here = tv_comm_rank(t->nodes->local);
    struct told mine = {.num_bytes = t->num_bytes, .device = t->devices[here]};
    struct tv_request *request = NULL;
    int first_failed;
    if (here == 0)
        mine.hash = XXH64(t->message, (size_t)t->num_bytes, 0);
    struct told *all = calloc((size_t)num_ranks, sizeof(*all));
    tv_status_t status =
        all != NULL ? TV_OK : TV_ERR(TV_NO_MEMORY, "devices of %d ranks", num_ranks);
    status = tv_comm_agree(t->world, status, &first_failed);
    if (status == TV_OK)
        status =
            tv_comm_all_gather(t->world, &mine, all, (int64_t)sizeof(mine), TV_U8, NULL, &request);
    if (status == TV_OK)
        status = tv_request_wait(&request);
    if (status == TV_OK && all != NULL)
        status = add_nodes(t, all, topology);
    for (int r = 0; r < num_ranks && status == TV_OK && all != NULL; r++)
        arrivals[r] = (struct tv_device_place){t->nodes->node_of[r], all[r].device};
    free(all);
    return status;
}

tv_status_t tv_live_nodes(struct tv_comm *world, const struct tv_nodes *nodes, int may_share,
                          struct tv_topology *topology, struct tv_device_place *arrivals_out)
{
    struct telling telling = {.world = world, .nodes = nodes, .may_share = may_share};
    struct tv_sight mine;
    int first_failed;
    tv_status_t status = tv_comm_agree(world, see(&telling, &mine), &first_failed);
    if (status == TV_OK)
        status = tell_node(&telling, &mine);
    if (status == TV_OK)
        status = tell_all(&telling, topology, arrivals_out);
    tv_driver_free(&telling.driver);
    tv_warnings_free(&telling.asking);
    free(telling.sights);
    free(telling.devices);
    free(telling.message);
    return status;
}
