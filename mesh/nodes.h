/* mesh/nodes.h -- which ranks share a machine.
 *
 * A node is what shares a kernel and a network: hostname, boot of the kernel and network namespace
 * say which. Several Slurm nodes on one host (for tests) differ by Slurm's node number alone, which
 * counts only where srun started every rank itself: other launchers hand the batch script's
 * variables to all of them. */
#ifndef TV_MESH_NODES_H
#define TV_MESH_NODES_H
#include "mesh/comm.h"
#include "mesh/topology.h"

TV_BEGIN_C
struct tv_nodes {
    int num_nodes, here;         /* here: this rank's */
    int is_slurm;                /* each rank has Slurm variables of its own */
    char (*names)[TV_TOPO_NAME]; /* [num_nodes] distinct, in natural order */
    int *node_of;                /* [world ranks] */
    struct tv_comm *local;       /* the ranks of this node, in world order */
    struct tv_comm
        *kernel; /* those under one kernel: of this node, or of several made of namespaces */
};

/* Collective; the same on every rank whatever the order of ranks, but for here and the groups. name:
 * the node this rank says it is on, for tests; NULL: what the system says.
 * Errors: TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_nodes_find(struct tv_comm *world, const char *name,
                                        struct tv_nodes *nodes_out);
/* Collective; without the groups the tables are good for all but binding and machines. */
void tv_nodes_free_groups(struct tv_nodes *nodes);
void tv_nodes_free(struct tv_nodes *nodes); /* collective while it has groups */

/* A thing that some ranks have to say: the lowest of them says it as a warning, with the number of
 * the others. text NULL: nothing. Collective. */
TV_MUST_CHECK tv_status_t tv_warn_once(struct tv_comm *world, const char *text);
TV_END_C
#endif
