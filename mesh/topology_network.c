#include "mesh/topology_internal.h"
tv_status_t tv_topology_read_network(struct tv_topology *topology, const char *path,
                                     int is_generated)
{
    (void)topology;
    (void)is_generated;
    return TV_ERR(TV_UNSUPPORTED, "%s: files of networks are not read yet", path);
}
