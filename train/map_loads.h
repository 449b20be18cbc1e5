/* train/map_loads.h -- what a layout puts on the uplinks of nodes, domains and switches. */
#ifndef TV_TRAIN_MAP_LOADS_H
#define TV_TRAIN_MAP_LOADS_H
#include "train/map_plan.h"

TV_BEGIN_C
struct tv_uplink {
    const char *name; /* borrowed from the topology */
    double gbps;
    double bytes[TV_NUM_AXES]; /* per step and direction: the axis's load times its groups (for the
                                * pipe: pairs of neighbours) with members on both sides */
};
/* Nodes, then NVLink domains, then switches, in the topology's order. Nodes of a domain have no
 * uplink of their own: zeros. The caller frees uplinks_out. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_map_uplinks(const struct tv_map_plan *plan,
                                         struct tv_uplink **uplinks_out);
/* Time of an axis on it, seconds; 0 without a rate. */
double tv_uplink_seconds(const struct tv_uplink *uplink, int axis);
TV_END_C
#endif
