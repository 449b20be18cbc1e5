/* tests/mesh/contract_discover.h -- what discovery finds over four ranks, threads or processes. */
#ifndef TESTS_MESH_CONTRACT_DISCOVER_H
#define TESTS_MESH_CONTRACT_DISCOVER_H
#include "mesh/discover.h"
#include "mesh/ranks.h"

/* What one rank says of itself. NULL: what the system says. */
struct Rank {
    const char *node, *machine, *address;
    int place;
};
const std::vector<RankCase> &discover_cases();
#endif
