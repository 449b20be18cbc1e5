/* mesh/topology_internal.h -- how readers of files and live discovery make a topology.
 *
 * A reader turns text into one node (tv_node_read) or into a network of switches (tv_network);
 * topology.c puts them together. Counts are bounded, so that a few bytes of a hostile file cannot
 * ask for much memory. */
#ifndef TV_MESH_TOPOLOGY_INTERNAL_H
#define TV_MESH_TOPOLOGY_INTERNAL_H
#include "mesh/topology.h"
#include <stdint.h>

TV_BEGIN_C
enum {
    TV_TOPO_MAX_NODES = 1 << 18,
    TV_TOPO_MAX_DEVICES = 1024, /* GPUs, NICs or NUMA nodes of one node */
    TV_TOPO_MAX_DEPTH = 64,     /* nested elements, bridges above a device, levels of switches */
    TV_TOPO_MAX_FILE = 1 << 26  /* bytes */
};
/* GB/s, one direction, where nothing says better. */
#define TV_GBPS_PCIE   25.0
#define TV_GBPS_NVLINK 450.0 /* all links of an H100 */
#define TV_GBPS_NIC    50.0
#define TV_GBPS_LINK   25.0 /* one NVLink 2 to 4 */

/* The array with room for one more behind `num` items, which it makes when num is 0 or a power of
 * two; NULL when memory is out, and then `items` is as it was. */
void *tv_topology_grown(void *items, int num, size_t item_bytes);

/* Sentences about what was read, without the node's name, which only the caller knows. */
struct tv_warnings {
    int num;
    char **sentences;
};
TV_MUST_CHECK tv_status_t tv_warn(struct tv_warnings *warnings, const char *format, ...)
    TV_PRINTF(2, 3);
void tv_warnings_free(struct tv_warnings *warnings);

struct tv_text {
    const char *path; /* for sentences; borrowed */
    char *data;       /* [bytes] and a NUL behind; owned */
    size_t bytes;
};
TV_MUST_CHECK tv_status_t tv_text_read(const char *path, struct tv_text *text_out);
/* Errors: TV_BAD_FILE, with the line of the first NUL. */
TV_MUST_CHECK tv_status_t tv_text_check(const struct tv_text *text);

/* One node as a file describes it. */
struct tv_node_read {
    char name[TV_TOPO_NAME]; /* "" where the file does not say */
    struct tv_node_shape shape;
    struct tv_warnings warnings;
};
void tv_node_read_free(struct tv_node_read *node);
/* As bytes for ranks of this program, which the caller frees, and back. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_node_pack(const struct tv_node_read *node, char **bytes_out,
                                       int64_t *num_out);
TV_MUST_CHECK tv_status_t tv_node_unpack(const char *bytes, int64_t num,
                                         struct tv_node_read *node_out);
void tv_node_shape_free(struct tv_node_shape *shape);

/* `name` (or path#section of matrices) is for sentences. Any bytes are a node or a refusal. */
TV_MUST_CHECK tv_status_t tv_topology_parse_node(const struct tv_text *text, const char *section,
                                                 struct tv_node_read *node_out);
TV_MUST_CHECK tv_status_t tv_topology_parse_hwloc(const struct tv_text *text,
                                                  struct tv_node_read *node_out);
TV_MUST_CHECK tv_status_t tv_topology_parse_nccl(const struct tv_text *text,
                                                 struct tv_node_read *node_out);
TV_MUST_CHECK tv_status_t tv_topology_parse_matrix(const struct tv_text *text, const char *section,
                                                   struct tv_node_read *node_out);
/* Does the text start with one of the words' keys ("gpu:")? */
int tv_topology_is_words(const char *text);
TV_MUST_CHECK tv_status_t tv_topology_parse_words(const char *words, int *num_nodes_out,
                                                  struct tv_node_shape *shape_out);

/* Switches, NVLink domains and the nodes on them, in any order; starts zeroed but for the path. */
struct tv_network_node {
    char name[TV_TOPO_NAME];
    int leaf, domain; /* -1: none */
    int line;
};
struct tv_names { /* of one kind, each with its index */
    void *tree;
    int num;
};
struct tv_network {
    const char *path; /* for sentences; borrowed */
    struct tv_names switch_names, domain_names;
    struct tv_switch *switches; /* [switch_names.num] */
    char (*domains)[TV_TOPO_NAME];
    int num_nodes;
    struct tv_network_node *nodes;
};
void tv_network_free(struct tv_network *network);
/* The switch or domain of that name, new or known. line: for sentences. */
TV_MUST_CHECK tv_status_t tv_network_switch(struct tv_network *network, const char *name, int line,
                                            int *index_out);
TV_MUST_CHECK tv_status_t tv_network_domain(struct tv_network *network, const char *name, int line,
                                            int *index_out);
/* Put one switch below another. Errors: TV_BAD_FILE when it is below a third. */
TV_MUST_CHECK tv_status_t tv_network_join(struct tv_network *network, int child, int parent,
                                          int line);
TV_MUST_CHECK tv_status_t tv_network_add_node(struct tv_network *network, const char *name,
                                              int leaf, int domain, int line);
/* SLURM_TOPOLOGY_ADDR of a running job's node: "root.spine.leaf.node" with the tree plugin,
 * "block.node" with the block plugin. pattern: SLURM_TOPOLOGY_ADDR_PATTERN ("switch.switch.node"),
 * or NULL; it counts the levels where names of nodes hold dots. */
TV_MUST_CHECK tv_status_t tv_network_add_address(struct tv_network *network, const char *node,
                                                 const char *address, const char *pattern);
TV_MUST_CHECK tv_status_t tv_network_parse_slurm(const struct tv_text *text,
                                                 struct tv_network *network);
TV_MUST_CHECK tv_status_t tv_network_parse_topograph(const struct tv_text *text,
                                                     struct tv_network *network);
TV_MUST_CHECK tv_status_t tv_network_parse(const struct tv_text *text, struct tv_network *network);
/* Call `take` with each name of a list such as "n[08-10,12],gpu7". */
TV_MUST_CHECK tv_status_t tv_hostlist_each(const char *list, const char *path, int line,
                                           tv_status_t (*take)(void *context, const char *name),
                                           void *context);

/* Give nodes their leaf switches and NVLink domains. Switches and domains without nodes are left
 * out. is_generated: the nodes' names are node0, node1, ... of trivet's making; unless the network
 * has all of these, its own names in natural order take their place. Otherwise every node must be
 * found: TV_INVALID. Sorts the network's nodes. */
TV_MUST_CHECK tv_status_t tv_topology_set_network(struct tv_topology *topology,
                                                  struct tv_network *network, int is_generated);
/* The same from a file. */
TV_MUST_CHECK tv_status_t tv_topology_read_network(struct tv_topology *topology, const char *path,
                                                   int is_generated);

/* Make a topology piece by piece; `topology` starts zeroed. add_shape takes what the shape owns,
 * also on failure, and gives the index of an equal one where there is one. */
TV_MUST_CHECK tv_status_t tv_topology_add_shape(struct tv_topology *topology,
                                                struct tv_node_shape *shape, int *index_out);
TV_MUST_CHECK tv_status_t tv_topology_add_node(struct tv_topology *topology, const char *name,
                                               int shape);
TV_MUST_CHECK tv_status_t tv_topology_warn(struct tv_topology *topology, const char *format, ...)
    TV_PRINTF(2, 3);
/* Errors: TV_INVALID, naming a node's name that comes twice. */
TV_MUST_CHECK tv_status_t tv_topology_check_names(const struct tv_topology *topology);
/* Warn of nodes that are not like most, one sentence for each shape. */
TV_MUST_CHECK tv_status_t tv_topology_warn_unlike(struct tv_topology *topology);

/* Of a shape read from `path`. Errors: TV_INVALID (too many devices, a PCI id twice; no GPUs). */
TV_MUST_CHECK tv_status_t tv_shape_check(const char *path, const struct tv_node_shape *shape);
TV_MUST_CHECK tv_status_t tv_shape_check_gpus(const char *path, const struct tv_node_shape *shape);
/* List a NUMA node, in order of indices, unless it is there already. package is unknown. */
TV_MUST_CHECK tv_status_t tv_shape_add_numa(struct tv_node_shape *shape, int os_index,
                                            const char *cpus);
/* Warn of GPUs unlike their peers: another model, no link, no NIC near. */
TV_MUST_CHECK tv_status_t tv_shape_warn(const struct tv_node_shape *shape,
                                        struct tv_warnings *warnings);
/* Each GPU takes the NIC of least distance [num_gpus, num_nics], among equals the one that fewest
 * have taken; TV_FAR is never taken. */
#define TV_FAR INT32_MAX
TV_MUST_CHECK tv_status_t tv_shape_pair_nics(struct tv_node_shape *shape, const int *distance);
/* Links from rates [num_gpus, num_gpus]: MATRIX, with the smaller of both directions (a warning
 * where they differ); gpu_gbps becomes the greatest sum of a row, where there are links. */
TV_MUST_CHECK tv_status_t tv_shape_set_links(struct tv_node_shape *shape, const double *rates,
                                             struct tv_warnings *warnings);

/* The same from numbers of NVLinks [num_gpus, num_gpus], those through a switch counted for every pair
 * that it joins, as `nvidia-smi topo -m` prints them: where they add up to more than a GPU can have
 * and all pairs have as many, SWITCH. */
TV_MUST_CHECK tv_status_t tv_shape_count_links(struct tv_node_shape *shape, const int *num_links,
                                               double gbps_per_link, struct tv_warnings *warnings);

/* What readers of PCI trees find: GPU, NIC or neither, which tv_shape_from_pci decides. */
struct tv_pci_device {
    uint64_t address; /* of tv_pci_parse */
    int class_id;     /* base class and subclass, 0x0302 */
    int vendor, is_gpu, is_nic;
    int numa, package; /* -1: unknown */
    double gbps;       /* NICs: 0: unknown */
    int fabric_rank;   /* NICs: only those of the highest rank on the node count */
    char name[TV_TOPO_NAME];
    int num_bridges, bridges[TV_TOPO_MAX_DEPTH]; /* above it, lowest first, numbers from 0 */
};
struct tv_pci_list {
    int num, num_bridges; /* bridges are numbered below num_bridges */
    struct tv_pci_device *devices;
};
/* "0000:4e:00.0", with domains of up to 7 digits. Returns 0 when it is not an address. */
int tv_pci_parse(const char *text, uint64_t *address_out);
void tv_pci_format(uint64_t address, char pci_out[TV_TOPO_PCI]);
/* Is a device of this class a GPU that can compute? vendor 0: unknown. */
int tv_pci_is_gpu(int class_id, int vendor);
TV_MUST_CHECK tv_status_t tv_pci_append(struct tv_pci_list *list,
                                        const struct tv_pci_device *device);
/* GPUs and NICs in order of addresses, which of them are near; gpu_gbps is that of a PCIe slot.
 * Sorts the list. On failure `shape` holds what is there so far. */
TV_MUST_CHECK tv_status_t tv_shape_from_pci(const char *path, struct tv_pci_list *list,
                                            struct tv_node_shape *shape,
                                            struct tv_warnings *warnings);
/* Index of the GPU at the address, or -1. */
int tv_shape_find_gpu(const struct tv_node_shape *shape, uint64_t address);

/* Walk through XML. Elements nest at most TV_TOPO_MAX_DEPTH deep; entities are refused. A status
 * other than TV_OK of `start` ends the walk and is returned. */
struct tv_xml_walk {
    void *context;
    tv_status_t (*start)(void *context, const char *element, const char **attributes, int line);
    void (*end)(void *context, const char *element); /* may be NULL */
};
TV_MUST_CHECK tv_status_t tv_xml_read(const struct tv_text *text, const struct tv_xml_walk *walk);
/* NULL when the element has no such attribute. */
const char *tv_xml_attribute(const char **attributes, const char *name);
TV_END_C
#endif
