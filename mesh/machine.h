/* mesh/machine.h -- the CPUs and NICs of one node, as plain tables that a message can carry. */
#ifndef TV_MESH_MACHINE_H
#define TV_MESH_MACHINE_H
#include "mesh/nodes.h"

TV_BEGIN_C
/* One CPU (hardware thread). core: the same for CPUs of one core; numa: OS index of its NUMA node,
 * the first where several share it (memory of several kinds); package: its number; -1: unknown. */
struct tv_cpu {
    int32_t os_index, core, numa, package;
};
/* cpus: those that the system lets this job use, neighbours in the machine beside each other.
 * NUMA nodes without CPUs (memory of GPUs) have no row. */
struct tv_machine {
    int num_cpus, num_nics;
    struct tv_cpu *cpus;
    struct tv_nic *nics;
};

/* synthetic: hwloc's words for a made-up machine, for tests; NULL: this one.
 * Errors: TV_INVALID (no CPU, words that mean nothing), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_machine_read(const char *synthetic, struct tv_machine *machine_out);
/* One rank of each node reads, the others of the node get it. Collective over the nodes. */
TV_MUST_CHECK tv_status_t tv_machine_share(const struct tv_nodes *nodes, const char *synthetic,
                                           struct tv_machine *machine_out);
/* root's machine on every rank of comm. Elsewhere `machine` is empty before. Collective. */
TV_MUST_CHECK tv_status_t tv_machine_broadcast(struct tv_comm *comm, int root,
                                               struct tv_machine *machine);
TV_MUST_CHECK tv_status_t tv_machine_copy(const struct tv_machine *machine,
                                          struct tv_machine *copy_out);
void tv_machine_free(struct tv_machine *machine);
TV_END_C
#endif
