/* mesh/links.h -- how fast messages between ranks are, measured: within a node and across nodes.
 *
 * Small messages there and back give the latency, the largest the bandwidth: shorter ones fit into
 * what a shaped link lets through at once. All pairs of a tier measure at the same moment, as in
 * training. */
#ifndef TV_MESH_LINKS_H
#define TV_MESH_LINKS_H
#include "mesh/nodes.h"

TV_BEGIN_C
typedef enum { TV_TIER_NODE, TV_TIER_NETWORK, TV_NUM_TIERS } tv_tier_t;
const char *tv_tier_name(tv_tier_t tier); /* "same node", "across nodes" */

struct tv_link_rates {
    double seconds[TV_NUM_TIERS]; /* one way, of an empty message; 0: there is no such pair */
    double gbps[TV_NUM_TIERS];    /* one direction */
};
/* seconds: how long it takes, about. Collective over world; medians over the pairs, the same on
 * every rank. Errors: TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_links_measure(struct tv_comm *world, const struct tv_nodes *nodes,
                                           double seconds, struct tv_link_rates *rates_out);
/* Put measured rates and latencies in place of those that the topology has. */
void tv_links_apply(const struct tv_link_rates *rates, struct tv_topology *topology);
TV_END_C
#endif
