/* mesh/discover.h -- the machines of a running job, and where the launcher put its ranks.
 *
 * Each rank sends one record of at most 128 bytes to all others; a machine's tables travel once for
 * all nodes that are like it. The devices of a node are places on its CPUs, one for each of its
 * ranks, in the order of its NUMA nodes. Rates: NICs as /sys/class/net/NAME/speed says, 50 GB/s
 * where it does not; 10 GB/s for copies between ranks of one node. Both are guesses that
 * mesh/links.h can replace by measured ones. */
#ifndef TV_MESH_DISCOVER_H
#define TV_MESH_DISCOVER_H
#include "mesh/machine.h"
#include "mesh/mapper.h"

TV_BEGIN_C
struct tv_discover_args {
    const struct tv_nodes *nodes;
    const struct tv_machine *machine; /* of this node */
    int place; /* ranks of a node take its places in ascending order of it, then of rank */
    const char
        *network; /* a file as for tv_topology_read; NULL: SLURM_TOPOLOGY_ADDR, if srun gives it */
    const char *address; /* in place of SLURM_TOPOLOGY_ADDR, for tests */
    int uses_gpus;       /* devices are the nodes' GPUs (mesh/live.h), not places on CPUs */
    int may_share_gpus;  /* several ranks take one where there are fewer GPUs than ranks */
};
/* Collective; topology and arrivals_out [world ranks] are the same on every rank. Nodes stand in
 * natural order of their names. Errors: TV_BAD_FILE, TV_INVALID (--network), TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_topology_discover(struct tv_comm *world,
                                               const struct tv_discover_args *args,
                                               struct tv_topology *topology_out,
                                               struct tv_device_place *arrivals_out);
TV_END_C
#endif
