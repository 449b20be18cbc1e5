/* mesh/topology.h -- the machines as the mapper sees them: nodes, their GPUs, NICs and links, and
 * the network between the nodes.
 *
 * Read from files (hwloc XML, NCCL system XML, `nvidia-smi topo -m`, words such as "node:4 gpu:8
 * link:nvswitch"; Slurm's topology.conf or topograph YAML for the network) or found on the nodes of
 * a running job (mesh/discover.h). Nodes of one sort share a shape, so that a hundred thousand
 * devices stay small. Without GPUs the devices are places for ranks on CPUs. Plain data, owned by
 * the topology; rates in GB/s, one direction. */
#ifndef TV_MESH_TOPOLOGY_H
#define TV_MESH_TOPOLOGY_H
#include "base/status.h"
#include <stddef.h>

TV_BEGIN_C
enum { TV_TOPO_NAME = 64, TV_TOPO_PCI = 16 };
#define TV_TOPO_LIVE "live" /* as a SPEC: this node as it is now */

struct tv_gpu {
    char pci[TV_TOPO_PCI]; /* "0000:4e:00.0"; "" where unknown. GPUs of a node ascend by it */
    char model[TV_TOPO_NAME];
    int numa, package; /* OS index of the NUMA node; package number; -1: unknown */
    int pcie_switch;   /* GPUs and NICs of one number share their lowest bridge; -1: none shared */
    int nic;           /* the nearest NIC, or -1: none near */
};
struct tv_nic {
    char name[TV_TOPO_NAME], pci[TV_TOPO_PCI];
    int numa, pcie_switch;
    double gbps;
};
struct tv_numa {
    int os_index, package;
    char *cpus; /* as "0-7,64-71" of the CPUs that may be used; "" when there are none; owned */
};

typedef enum {
    TV_LINKS_UNKNOWN, /* nothing says how GPUs are joined */
    TV_LINKS_MATRIX,  /* links[] says it */
    TV_LINKS_SWITCH   /* all pairs at the full rate at once (NVSwitch) */
} tv_links_kind_t;

struct tv_node_shape {
    int num_gpus, num_nics, num_numas;
    struct tv_gpu *gpus;
    struct tv_nic *nics;
    struct tv_numa *numas;
    tv_links_kind_t links_kind;
    double *links; /* [num_gpus, num_gpus], 0: none, the diagonal is not read; NULL unless MATRIX */
    double gpu_gbps; /* full rate of one GPU's own links (or of its PCIe slot) */
    double nic_gbps; /* sum over NICs */
    double gpu_seconds,
        nic_seconds; /* latency of a message inside the node, out of it; 0: unknown */
    int is_cpu;      /* devices are places on CPUs, not GPUs */
};
struct tv_node {
    char name[TV_TOPO_NAME];
    int shape;  /* index */
    int leaf;   /* its leaf switch, or -1 */
    int domain; /* NVLink domain of several nodes, or -1 */
};
struct tv_switch {
    char name[TV_TOPO_NAME];
    int parent;         /* -1: a root */
    double uplink_gbps; /* 0: as much as the NICs below it */
};

struct tv_topology {
    int num_nodes, num_shapes, num_switches, num_domains, num_warnings;
    struct tv_node *nodes;
    struct tv_node_shape *shapes;
    struct tv_switch *switches; /* parents before children */
    char (*domains)[TV_TOPO_NAME];
    char **warnings; /* sentences that name node and device */
};

/* spec: "SPEC[,SPEC...]", each FILE[#SECTION][*COUNT] (sections: of matrices), live[*COUNT] (this
 * node, asked now; a file of that name is ./live), or words; nodes in that order, named by the files or
 * node0, node1, ... (natural order of names decides ties later, never the order of arrival).
 * network: a path, or NULL; every node must be found in it, but where no
 * file named a node and the network has other names, its own are taken in natural order.
 * Errors: TV_BAD_FILE (what cannot be read, naming file and line or object), TV_INVALID (words that
 * mean nothing; a node of no devices; a PCI id twice on a node), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_topology_read(const char *spec, const char *network,
                                           struct tv_topology *topology_out);
void tv_topology_free(struct tv_topology *topology);

int tv_topology_num_devices(const struct tv_topology *topology);
const struct tv_node_shape *tv_topology_shape(const struct tv_topology *topology, int node);
/* "n7" before "n66". */
int tv_natural_order(const char *a, const char *b);
TV_END_C
#endif
