/* tests/mesh/delaying_comm.h -- a communicator over another one whose messages take their time, for
 * tests and measurements of overlap.
 *
 * Rank r has a link of its own: a message of b bytes leaves when those before it have, takes
 * b / bytes_per_second, and arrives latency_seconds later. Ranks are threads of one process. */
#ifndef TESTS_MESH_DELAYING_COMM_H
#define TESTS_MESH_DELAYING_COMM_H
#include "mesh/comm.h"

TV_BEGIN_C
struct delaying_links; /* of all ranks */
TV_MUST_CHECK tv_status_t delaying_links_create(int size, double latency_seconds,
                                                double bytes_per_second,
                                                struct delaying_links **links_out);
void delaying_links_destroy(struct delaying_links *links);

/* One rank's. `inner` is borrowed until the communicator is destroyed. It cannot be split. */
TV_MUST_CHECK tv_status_t delaying_comm_create(struct tv_comm *inner, struct delaying_links *links,
                                               struct tv_comm **comm_out);
TV_END_C
#endif
