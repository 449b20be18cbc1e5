/* mesh/mapper.h -- lay a pipe x data x tensor mesh over machines so that the traffic costs least.
 *
 * Each axis a sends load w_a over every cut that its groups cross; a cut v of the tree (GPU, island
 * of links, node, NVLink domain, switch) carries s_a(v) groups of the axis with members on both
 * sides, has capacity C_v and latency l_v. T_a = max over the v it crosses of (w_a s_a(v) / C_v +
 * n_a l_v) + alpha_a, n_a: messages that wait for one another; J = sum of e_a T_a is what the layout
 * costs; ties go to the smaller sum over v of load / capacity, then to canonical
 * order. That pipeline stages span nodes and tensor groups stay inside is a result of J, not a
 * rule. The same input gives the same answer on every rank, whatever the order of arrival. */
#ifndef TV_MESH_MAPPER_H
#define TV_MESH_MAPPER_H
#include "mesh/mesh.h"
#include "mesh/topology.h"
#include <stdint.h>

TV_BEGIN_C
/* Per step. load: bytes that one group of the axis (for the pipe: one pair of neighbours, one
 * direction) puts on a cut. rounds: messages that wait for one another, each for the latency of the
 * cut (gpu_seconds, nic_seconds of tv_node_shape). alpha: seconds that depend on nothing. exposed:
 * the share that is not hidden behind compute, 1 by default. */
struct tv_traffic {
    double load[TV_NUM_AXES];
    double rounds[TV_NUM_AXES];
    double alpha[TV_NUM_AXES];
    double exposed[TV_NUM_AXES];
    int wraps_pipe; /* several chunks in loop placement: the last stage sends to the first */
};

struct tv_device_place {
    int node, device; /* device: index among the node's, in PCI order */
};

struct tv_map_args {
    const struct tv_topology *topology;
    struct tv_mesh_coord extent;
    struct tv_traffic traffic;
    /* Where the launcher put rank i; num_arrivals >= P D T. NULL: a rank on every device, node by
     * node, and num_arrivals is not read. Two ranks on one device are refused, naming both. */
    int num_arrivals;
    const struct tv_device_place *arrivals;
};

struct tv_map_cost {
    double total, axis[TV_NUM_AXES]; /* seconds */
};

struct tv_map {
    int num_arrivals, num_ranks;    /* num_ranks = P D T */
    struct tv_device_place *places; /* [num_arrivals] by arrival rank */
    int *mesh_rank;                 /* [num_arrivals] (p D + d) T + t, or -1: unused */
    struct tv_map_cost chosen, identity,
        worst; /* identity: arrival order; worst: of all orders of the axes */
    int split_tensor_groups, identity_split_tensor_groups; /* leave their node or NVLink domain */
    int is_exact;                                          /* no layout is cheaper */
    double lower_bound;                                    /* of J */
    int num_unused;
    struct tv_device_place *unused; /* devices without a rank */
    int num_warnings;
    char **warnings; /* of this layout; those of the machines are in tv_topology.warnings */
};

/* Errors: TV_INVALID (fewer devices than ranks, naming both; two ranks on one device), TV_NO_MEMORY.
 */
TV_MUST_CHECK tv_status_t tv_map_solve(const struct tv_map_args *args, struct tv_map *map_out);
void tv_map_free(struct tv_map *map);
/* Of any layout: mesh_rank [num_arrivals] as above, on the places that args say. Errors: as
 * tv_map_solve; TV_INVALID when a mesh rank is given twice or not at all. */
TV_MUST_CHECK tv_status_t tv_map_evaluate(const struct tv_map_args *args, const int *mesh_rank,
                                          struct tv_map_cost *cost_out,
                                          int *split_tensor_groups_out);
TV_END_C
#endif
