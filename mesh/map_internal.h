/* mesh/map_internal.h -- what the files of the mapper share: the tree of cuts, layouts, scores.
 *
 * The mapper counts devices in canonical order, which is the order of the tree's leaves: nodes by
 * the natural order of their names, kept together under their switches, then devices in PCI order.
 * A layout is cell_of [num_devices]: the mesh rank (cell) on each device, or -1. */
#ifndef TV_MESH_MAP_INTERNAL_H
#define TV_MESH_MAP_INTERNAL_H
#include "mesh/mapper.h"

TV_BEGIN_C
/* Assumed where a topology does not say, in GB/s: one NIC; a GPU's slot. */
enum { TV_MAP_NIC_GBPS = 50, TV_MAP_GPU_GBPS = 25 };

struct tv_map_vertex {
    int parent;     /* -1: the root */
    int next;       /* the first vertex after this subtree; children follow their parent */
    int begin, end; /* its devices */
    int depth;
    double rate;    /* bytes per second through the cut above it; the root has none */
    double latency; /* seconds of a message through it */
};
struct tv_map_device {
    int node, device; /* of the topology */
    int unit;         /* what a tensor group should not leave: a node or an NVLink domain */
    int is_suspicious;
    int origin; /* its number in the whole tree, where this tree is a part */
};
struct tv_map_tree {
    int num_devices, num_vertices;
    struct tv_map_vertex *vertices; /* parents before children; leaves are devices */
    struct tv_map_device *devices;
};

/* Levels between a node and its GPUs, from fine to coarse. */
enum { TV_MAP_MAX_ISLAND_LEVELS = 8 };
struct tv_map_islands {
    int num_levels, num_gpus;
    int *label;   /* [levels, gpus]: the smallest GPU of the island */
    double *rate; /* [levels, gpus]: bytes per second out of the island of that GPU */
};

/* A problem owns its scratch; the tree is borrowed. */
struct tv_map_problem {
    const struct tv_map_tree *tree;
    struct tv_mesh_coord extent;
    struct tv_traffic traffic;
    int num_cells;
    int *count, *device_of; /* scratch [num_cells] */
};
struct tv_map_score {
    struct tv_map_cost cost;
    double sum; /* over cuts of load / rate: the second key */
};
struct tv_map_best {
    int has_layout;
    int *cell_of; /* [num_devices]; owned */
    struct tv_map_score score;
};

/* map_islands.c */
TV_MUST_CHECK tv_status_t tv_map_islands_create(const struct tv_node_shape *shape,
                                                struct tv_map_islands *islands_out);
void tv_map_islands_free(struct tv_map_islands *islands);

/* map_tree.c. is_available [num devices of the topology], node by node. */
TV_MUST_CHECK tv_status_t tv_map_tree_create(const struct tv_topology *topology,
                                             const unsigned char *is_available,
                                             struct tv_map_tree *tree_out);
/* The part of the tree that holds the devices with is_used [num_devices]. */
TV_MUST_CHECK tv_status_t tv_map_tree_restrict(const struct tv_map_tree *tree,
                                               const unsigned char *is_used,
                                               struct tv_map_tree *tree_out);
TV_MUST_CHECK tv_status_t tv_map_tree_alloc(int max_vertices, int max_devices,
                                            struct tv_map_tree *tree_out);
/* Parents, ends and depths from the devices of each vertex in order; merges: a vertex with the
 * devices of its parent becomes one with it. */
void tv_map_tree_number(struct tv_map_tree *tree, int merges);
void tv_map_tree_free(struct tv_map_tree *tree);

/* map_cost.c */
TV_MUST_CHECK tv_status_t tv_map_problem_create(const struct tv_map_tree *tree,
                                                struct tv_mesh_coord extent,
                                                const struct tv_traffic *traffic,
                                                struct tv_map_problem *problem_out);
void tv_map_problem_free(struct tv_map_problem *problem);
void tv_map_score_of(const struct tv_map_problem *problem, const int *cell_of,
                     struct tv_map_score *score_out);
/* What `num` groups or pairs of the axis (on average, where it is a fraction) cost a cut. */
double tv_map_cut_seconds(const struct tv_traffic *traffic, int axis, double num, double rate,
                          double latency);
double tv_map_total(const struct tv_traffic *traffic, const double axis[TV_NUM_AXES]);
int tv_map_is_better(const struct tv_map_score *a, const struct tv_map_score *b);
int tv_map_split_groups(const struct tv_map_problem *problem, const int *cell_of);
double tv_map_axis_bound(const struct tv_map_problem *problem, enum tv_mesh_axis axis);

/* map_search.c */
TV_MUST_CHECK tv_status_t tv_map_best_create(int num_devices, struct tv_map_best *best_out);
void tv_map_best_free(struct tv_map_best *best);
/* Keep the layout if nothing cheaper was offered before. */
void tv_map_offer(const struct tv_map_problem *problem, const int *cell_of,
                  struct tv_map_best *best);
/* order: the axes, from the one that joins neighbouring devices outwards. */
extern const enum tv_mesh_axis tv_map_orders[6][TV_NUM_AXES];
int tv_map_cell_at(struct tv_mesh_coord extent, const enum tv_mesh_axis order[TV_NUM_AXES],
                   const int digit[TV_NUM_AXES]);
void tv_map_row_major(const struct tv_map_problem *problem,
                      const enum tv_mesh_axis order[TV_NUM_AXES], int *cell_of);
/* The cheapest layout found; is_exact_out: proven. */
TV_MUST_CHECK tv_status_t tv_map_search(const struct tv_map_problem *problem,
                                        struct tv_map_best *best, int *is_exact_out);
/* The same, after leaving out suspicious devices as far as there are spares. */
TV_MUST_CHECK tv_status_t tv_map_search_sound(const struct tv_map_problem *problem,
                                              struct tv_map_best *best, int *is_exact_out);

/* Layouts of a tree with as many devices as cells. was_made_out 0: the method does not apply. */
TV_MUST_CHECK tv_status_t tv_map_boxes(const struct tv_map_problem *problem, int *cell_of,
                                       int *was_made_out); /* map_boxes.c */
TV_MUST_CHECK tv_status_t tv_map_pack(const struct tv_map_problem *problem,
                                      const enum tv_mesh_axis order[TV_NUM_AXES],
                                      int *cell_of); /* map_pack.c */
TV_MUST_CHECK tv_status_t tv_map_glue(const struct tv_map_problem *problem, int *cell_of,
                                      int *was_made_out); /* map_glue.c */

/* map_swap.c: improve the best layout, where the tree is small enough. */
enum { TV_MAP_MAX_SWAPPED = 1024 };
void tv_map_swap(const struct tv_map_problem *problem, struct tv_map_best *best);
/* map_exact.c: with up to 16 devices, nothing is cheaper than `best` afterwards if is_exact. */
TV_MUST_CHECK tv_status_t tv_map_exact(const struct tv_map_problem *problem,
                                       struct tv_map_best *best, int *is_exact_out);
/* map_spares.c: is_used [num_devices] for as many devices as cells. */
enum { TV_MAP_NUM_SPARE_POLICIES = 4 };
TV_MUST_CHECK tv_status_t tv_map_choose_spares(const struct tv_map_problem *problem, int policy,
                                               unsigned char *is_used);

/* map_arrange.c: inside nodes, which GPUs make a tensor group and in which order; never dearer. */
TV_MUST_CHECK tv_status_t tv_map_arrange(const struct tv_topology *topology,
                                         const struct tv_map_problem *problem,
                                         struct tv_map_best *best);

/* map_rings.c. GPUs of one node shared out to parts of tensor groups. */
enum { TV_MAP_MAX_RING_GPUS = 16 };
struct tv_map_parts {
    int num_gpus, num_parts;
    int gpu[TV_MAP_MAX_RING_GPUS];      /* of the node, in the order of rails */
    int size[TV_MAP_MAX_RING_GPUS];     /* of the parts, descending; sum num_gpus */
    unsigned set[TV_MAP_MAX_RING_GPUS]; /* of the parts: bit k is gpu[k] */
};
/* Fills in the sets. 0: no memory. */
int tv_map_choose_parts(const struct tv_node_shape *shape, struct tv_map_parts *parts);
/* Links are known on the node of these devices, and no ring of them joins all. */
int tv_map_lacks_links(const struct tv_topology *topology, const struct tv_map_tree *tree,
                       const int *devices, int num);

/* map_report.c */
void tv_map_mark_suspicious(const struct tv_topology *topology, struct tv_map_tree *tree);
TV_MUST_CHECK tv_status_t tv_map_warn(const struct tv_topology *topology,
                                      const struct tv_map_problem *problem, const int *cell_of,
                                      struct tv_map *map);
TV_END_C
#endif
