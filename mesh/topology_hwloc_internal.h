/* mesh/topology_hwloc_internal.h -- a node as libhwloc sees it, from a file or live. */
#ifndef TV_MESH_TOPOLOGY_HWLOC_INTERNAL_H
#define TV_MESH_TOPOLOGY_HWLOC_INTERNAL_H
#include "mesh/topology_driver_internal.h"

TV_BEGIN_C
struct hwloc_topology;

/* Set up a topology before it is loaded: I/O objects are kept, CPUs that may not be used are kept
 * too (the shape lists only those that may). */
TV_MUST_CHECK tv_status_t tv_hwloc_prepare(struct hwloc_topology *topology);
/* The node of a loaded topology. `what` names it in refusals. NUMA nodes and packages are listed
 * also when there are no GPUs, which needs_gpus refuses: without it num_gpus may be 0. driver: which
 * GPUs there are and how they are linked, or NULL: as hwloc says.
 * Errors: TV_INVALID as tv_shape_check, TV_NO_MEMORY; shape_out is written on success only. */
TV_MUST_CHECK tv_status_t tv_hwloc_to_shape(struct hwloc_topology *topology, const char *what,
                                            int needs_gpus, const struct tv_driver *driver,
                                            struct tv_node_shape *shape_out,
                                            struct tv_warnings *warnings);
/* Links among the shape's GPUs; they stay unknown where hwloc has no matrix of use. */
TV_MUST_CHECK tv_status_t tv_hwloc_read_links(struct hwloc_topology *topology,
                                              struct tv_node_shape *shape,
                                              struct tv_warnings *warnings);
/* Refuse XML that would bring libhwloc down. Errors: TV_BAD_FILE. */
TV_MUST_CHECK tv_status_t tv_hwloc_check_xml(const struct tv_text *text);
TV_END_C
#endif
