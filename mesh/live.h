/* mesh/live.h -- the GPUs of a running job's nodes, and which rank takes which.
 *
 * A rank takes the k-th of the GPUs that it sees, k counting the ranks of its node that see the same
 * ones in the same order: with one GPU per task that is the first, with all of a node's the local
 * rank's. Devices are PCI addresses, never numbers: the same number means another GPU to a rank that
 * sees others. Where ranks may share, k goes round: three ranks that see two GPUs take 0, 1, 0. */
#ifndef TV_MESH_LIVE_H
#define TV_MESH_LIVE_H
#include "mesh/mapper.h"
#include "mesh/nodes.h"
#include <stdint.h>

TV_BEGIN_C
enum { TV_MAX_SIGHT = 64 };
/* What a rank may use: the driver's GPUs that CUDA_VISIBLE_DEVICES leaves, in CUDA's order. */
struct tv_sight {
    int32_t rank, num;
    uint64_t gpus[TV_MAX_SIGHT]; /* PCI addresses, of tv_pci_parse */
};
/* Pure. sights [num_ranks] of one node; chosen_out [num_ranks]. Errors: TV_INVALID, naming ranks, node
 * and address where two ranks would share a GPU and may not, or the rank that sees none. */
TV_MUST_CHECK tv_status_t tv_live_assign(const char *node, int num_ranks,
                                         const struct tv_sight *sights, int may_share,
                                         uint64_t *chosen_out);
/* One rank of each node reads it, see tv_topology_read_live; a shape travels once for all nodes that
 * are like it. Nodes stand as in `nodes`; topology starts zeroed; arrivals_out [world ranks].
 * Collective, the same on every rank. Errors: as tv_live_assign and tv_topology_read_live; TV_PEER. */
TV_MUST_CHECK tv_status_t tv_live_nodes(struct tv_comm *world, const struct tv_nodes *nodes,
                                        int may_share, struct tv_topology *topology,
                                        struct tv_device_place *arrivals_out);
TV_END_C
#endif
