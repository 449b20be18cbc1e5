/* train/map_plan.h -- machines, traffic and the layout found, from the flags of `trivet map`. */
#ifndef TV_TRAIN_MAP_PLAN_H
#define TV_TRAIN_MAP_PLAN_H
#include "mesh/mapper.h"
#include "train/map_options.h"

TV_BEGIN_C
/* All owned. */
struct tv_map_plan {
    struct tv_topology topology;
    struct tv_map_args args;          /* topology and arrivals point into this struct */
    struct tv_device_place *arrivals; /* [args.num_arrivals]; NULL: node by node */
    struct tv_map map;
    int *first_device;                 /* [num_nodes + 1] number of a node's device 0 */
    int *mesh_rank_at;                 /* [devices] by device number; -1: none */
    struct tv_device_place *places_of; /* [P D T] by mesh rank */
};
/* Errors: those of tv_topology_read, tv_map_arrivals_read and tv_map_solve; TV_INVALID with the
 * flags. */
TV_MUST_CHECK tv_status_t tv_map_plan_make(const struct tv_map_options *options,
                                           struct tv_map_plan *plan_out);
void tv_map_plan_free(struct tv_map_plan *plan);

int tv_map_plan_num_devices(const struct tv_map_plan *plan);
const struct tv_gpu *tv_map_plan_gpu(const struct tv_map_plan *plan, struct tv_device_place place);

/* --arrival: block (NULL), cyclic, or a file of lines `node device`; blank lines and # comments
 * mean nothing. first_device as above. The caller frees arrivals_out.
 * Errors: TV_BAD_FILE with file, line, and what is wrong; TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_map_arrivals_read(const char *arrival,
                                               const struct tv_topology *topology,
                                               const int *first_device, int *num_out,
                                               struct tv_device_place **arrivals_out);
TV_END_C
#endif
