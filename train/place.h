/* train/place.h -- where the ranks of a run are: their nodes, the CPUs they are bound to, and the place on the mesh
 * that each of them takes. */
#ifndef TV_TRAIN_PLACE_H
#define TV_TRAIN_PLACE_H
#include "mesh/binding.h"
#include "mesh/links.h"
#include "mesh/mapper.h"
#include "train/run.h"

TV_BEGIN_C
/* By world rank; the same on every rank but for nodes.here. Owned. */
struct tv_run_place {
    struct tv_placement placement;
    struct tv_nodes nodes;       /* without their groups */
    struct tv_binding *bindings; /* [ranks] */
    char (*gpus)[TV_TOPO_PCI];   /* [ranks] PCI address of each one's; NULL: places on CPUs */
    struct tv_link_rates rates;  /* as measured by --probe-links, else as guessed */
    struct tv_map_cost chosen, identity; /* predicted seconds on the wire of a step */
    int split_tensor_groups;             /* that leave their node or NVLink domain */
};

/* Bind this rank (--bind) and find its place (--placement, --network, --probe-links); run->place holds both from then
 * on. Collective, before threads are started and buffers made.
 * Errors: TV_BAD_FILE, TV_INVALID (--placement, --network), TV_NO_MEMORY, TV_PEER; TV_INTERNAL where ranks disagree. */
TV_MUST_CHECK tv_status_t tv_run_find_place(struct tv_comm *world, struct tv_run *run);
/* Node of each mesh rank [ranks], for the caller to free, or NULL where nodes are not known. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_run_mesh_nodes(const struct tv_run *run, int **node_of_out);
void tv_run_place_free(struct tv_run_place *place);
TV_END_C
#endif
