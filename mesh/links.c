/* mesh/links.c -- ping and pong between pairs of ranks. */
#include "mesh/links.h"
#include "base/clock.h"
#include <stdlib.h>
#include <string.h>

enum { NUM_SIZES = 4, LEAST_ROUNDS = 5, MOST_ROUNDS = 2000 };
static const int64_t sizes[NUM_SIZES] = {1, 64 << 10, 1 << 20, 4 << 20};

const char *tv_tier_name(tv_tier_t tier)
{
    return tier == TV_TIER_NODE ? "same node" : "across nodes";
}

/* The ranks of nodes in order: first_of[n] is the lowest of node n, second_of[n] the next or -1. */
struct firsts {
    int *first, *second;
};

static tv_status_t find_firsts(const struct tv_nodes *nodes, int num_ranks, struct firsts *firsts)
{
    const size_t n = (size_t)nodes->num_nodes;
    firsts->first = malloc(n * sizeof(int));
    firsts->second = malloc(n * sizeof(int));
    if (firsts->first == NULL || firsts->second == NULL)
        return TV_ERR(TV_NO_MEMORY, "pairs of %d nodes", nodes->num_nodes);
    for (size_t i = 0; i < n; i++)
        firsts->first[i] = firsts->second[i] = -1;
    for (int r = num_ranks - 1; r >= 0; r--) {
        const int node = nodes->node_of[r];
        firsts->second[node] = firsts->first[node];
        firsts->first[node] = r;
    }
    return TV_OK;
}

/* Who this rank measures with in a tier, or -1: the first two ranks of each node; the first ranks of
 * nodes 0 and 1, 2 and 3, ... */
static int peer_of(const struct firsts *firsts, const struct tv_nodes *nodes, int rank,
                   tv_tier_t tier)
{
    const int here = nodes->here;
    if (tier == TV_TIER_NODE)
        return rank == firsts->first[here]    ? firsts->second[here]
               : rank == firsts->second[here] ? firsts->first[here]
                                              : -1;
    const int other = here ^ 1;
    return rank == firsts->first[here] && other < nodes->num_nodes ? firsts->first[other] : -1;
}

static tv_status_t pass(struct tv_comm *world, int peer, int is_sender, char *buffer, int64_t bytes)
{
    struct tv_request *request = NULL;
    TV_TRY(is_sender ? tv_comm_send(world, buffer, bytes, TV_U8, peer, NULL, &request)
                     : tv_comm_recv(world, buffer, bytes, TV_U8, peer, NULL, &request));
    return tv_request_wait(&request);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int num)
{
    qsort(values, (size_t)num, sizeof(*values), ascending);
    return num > 0 ? values[num / 2] : 0;
}

/* One way of a message: half of a round trip, the median of `rounds`. */
static tv_status_t time_rounds(struct tv_comm *world, int peer, char *buffer, int64_t bytes,
                               int rounds, double *seconds_out)
{
    double times[MOST_ROUNDS];
    const int leads = tv_comm_rank(world) < peer;
    for (int i = 0; i < rounds; i++) {
        const double start = tv_clock_seconds();
        TV_TRY(pass(world, peer, leads, buffer, bytes));
        TV_TRY(pass(world, peer, !leads, buffer, bytes));
        times[i] = (tv_clock_seconds() - start) / 2;
    }
    *seconds_out = median(times, rounds);
    return TV_OK;
}

/* The lower rank of the pair says how many rounds fit into `budget` seconds. */
static tv_status_t time_size(struct tv_comm *world, int peer, char *buffer, int64_t bytes,
                             double budget, double *seconds_out)
{
    double once;
    TV_TRY(time_rounds(world, peer, buffer, bytes, 2, &once)); /* warms up */
    const double fit = once > 0 ? budget / (2 * once) : MOST_ROUNDS;
    int32_t rounds = fit > MOST_ROUNDS ? MOST_ROUNDS : (int32_t)fit;
    rounds = rounds < LEAST_ROUNDS ? LEAST_ROUNDS : rounds;
    TV_TRY(pass(world, peer, tv_comm_rank(world) < peer, (char *)&rounds, sizeof(rounds)));
    return time_rounds(world, peer, buffer, bytes, rounds, seconds_out);
}

static tv_status_t time_tier(struct tv_comm *world, int peer, char *buffer, double budget,
                             double *seconds_out, double *gbps_out)
{
    for (int i = 0; i < NUM_SIZES && peer >= 0; i++) {
        double seconds;
        TV_TRY(time_size(world, peer, buffer, sizes[i], budget / NUM_SIZES, &seconds));
        *gbps_out = seconds > 0 ? (double)sizes[i] / seconds * 1e-9 : 0; /* the last size counts */
        if (i == 0)
            *seconds_out = seconds;
    }
    return tv_comm_barrier(world); /* the next tier has the machines to itself */
}

/* What measuring needs. */
struct room {
    char *buffer; /* of the largest message */
    struct firsts firsts;
    struct tv_link_rates *all; /* [ranks] */
    double *values;            /* [ranks] */
};

static tv_status_t gather_medians(struct tv_comm *world, const struct tv_link_rates *mine,
                                  const struct room *room, struct tv_link_rates *rates_out)
{
    struct tv_link_rates *all = room->all;
    double *values = room->values;
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_all_gather(world, mine, all, (int64_t)sizeof(*mine), TV_U8, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    for (int tier = 0; tier < TV_NUM_TIERS; tier++) {
        int num = 0;
        for (int r = 0; r < tv_comm_size(world); r++) {
            if (all[r].seconds[tier] > 0)
                values[num++] = all[r].seconds[tier];
        }
        rates_out->seconds[tier] = median(values, num);
        num = 0;
        for (int r = 0; r < tv_comm_size(world); r++) {
            if (all[r].gbps[tier] > 0)
                values[num++] = all[r].gbps[tier];
        }
        rates_out->gbps[tier] = median(values, num);
    }
    return TV_OK;
}

static tv_status_t make_room(const struct tv_nodes *nodes, int num_ranks, struct room *room)
{
    const size_t bytes = (size_t)sizes[NUM_SIZES - 1];
    room->buffer = malloc(bytes);
    room->all = calloc((size_t)num_ranks, sizeof(*room->all));
    room->values = malloc((size_t)num_ranks * sizeof(*room->values));
    if (room->buffer == NULL || room->all == NULL || room->values == NULL)
        return TV_ERR(TV_NO_MEMORY, "links of %d ranks, a message of %zu bytes", num_ranks, bytes);
    memset(room->buffer, 1, bytes); /* no page is new later */
    return find_firsts(nodes, num_ranks, &room->firsts);
}

static tv_status_t measure(struct tv_comm *world, const struct tv_nodes *nodes, double seconds,
                           const struct room *room, struct tv_link_rates *rates_out)
{
    struct tv_link_rates mine = {0};
    for (int tier = 0; tier < TV_NUM_TIERS; tier++) {
        const int peer = peer_of(&room->firsts, nodes, tv_comm_rank(world), (tv_tier_t)tier);
        TV_TRY(time_tier(world, peer, room->buffer, seconds / TV_NUM_TIERS, &mine.seconds[tier],
                         &mine.gbps[tier]));
    }
    return gather_medians(world, &mine, room, rates_out);
}

tv_status_t tv_links_measure(struct tv_comm *world, const struct tv_nodes *nodes, double seconds,
                             struct tv_link_rates *rates_out)
{
    struct room room = {0};
    int first_failed; /* agreed on before anybody waits for another */
    tv_status_t status =
        tv_comm_agree(world, make_room(nodes, tv_comm_size(world), &room), &first_failed);
    if (status == TV_OK)
        status = measure(world, nodes, seconds, &room, rates_out);
    free(room.buffer);
    free(room.firsts.first);
    free(room.firsts.second);
    free(room.all);
    free(room.values);
    return status;
}

void tv_links_apply(const struct tv_link_rates *rates, struct tv_topology *topology)
{
    for (int s = 0; s < topology->num_shapes; s++) {
        struct tv_node_shape *shape = &topology->shapes[s];
        if (rates->gbps[TV_TIER_NODE] > 0)
            shape->gpu_gbps = rates->gbps[TV_TIER_NODE];
        if (rates->gbps[TV_TIER_NETWORK] > 0)
            shape->nic_gbps = rates->gbps[TV_TIER_NETWORK];
        shape->gpu_seconds = rates->seconds[TV_TIER_NODE];
        shape->nic_seconds = rates->seconds[TV_TIER_NETWORK];
    }
}
