/* mesh/mesh.h -- who am I, and who are my peers, on the pipe x data x tensor grid of ranks.
 *
 * Mesh ranks are laid out row-major with tensor fastest: rank = (p * D + d) * T + t, so the axis
 * that talks most joins neighbouring ranks. A placement says which rank of the world takes which
 * mesh rank. */
#ifndef TV_MESH_MESH_H
#define TV_MESH_MESH_H
#include "mesh/comm.h"
#include "mesh/placement.h"

TV_BEGIN_C
enum tv_mesh_axis { TV_PIPE, TV_DATA, TV_TENSOR, TV_NUM_AXES };

/* A point of the grid, or its extent: ranks along each axis. Plain data, passed by value. */
struct tv_mesh_coord {
    int at[TV_NUM_AXES];
};
struct tv_mesh; /* opaque: owns the reordered world and one communicator per axis */

/* Lay `extent` over `world`, which is borrowed and must outlive the mesh. placement NULL is the
 * identity. Collective. Errors: TV_INVALID (an extent < 1, or the product is not the size of
 * world), TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_mesh_create(struct tv_comm *world, struct tv_mesh_coord extent,
                                         const struct tv_placement *placement,
                                         struct tv_mesh **mesh_out);
void tv_mesh_destroy(struct tv_mesh *mesh); /* Collective. NULL is a no-op. */

/* Device memory moves by NCCL on all axes and in groups split from them: a communicator of the world,
 * the axes split from it, in one order on all ranks. The device must outlive the mesh. Collective.
 * Errors: as tv_comm_use_nccl (mesh/nccl.h). */
TV_MUST_CHECK tv_status_t tv_mesh_use_nccl(struct tv_mesh *mesh, struct tv_device *device);

struct tv_mesh_coord tv_mesh_extent(const struct tv_mesh *mesh);
struct tv_mesh_coord tv_mesh_here(const struct tv_mesh *mesh);
int tv_mesh_rank(const struct tv_mesh *mesh); /* mesh rank, not world rank */

/* The ranks that differ from this one along `axis` only; rank in it == coordinate. Borrowed. */
struct tv_comm *tv_mesh_comm(const struct tv_mesh *mesh, enum tv_mesh_axis axis);
/* All ranks, in mesh order. Borrowed. */
struct tv_comm *tv_mesh_world(const struct tv_mesh *mesh);

/* Pure arithmetic; inverses of each other for 0 <= rank < product(extent). */
struct tv_mesh_coord tv_mesh_coord_of(struct tv_mesh_coord extent, int rank);
int tv_mesh_rank_of(struct tv_mesh_coord extent, struct tv_mesh_coord coord);
/* Same verdict as tv_mesh_create, without ranks: for a dry run. */
TV_MUST_CHECK tv_status_t tv_mesh_check(struct tv_mesh_coord extent, int num_ranks);
const char *tv_mesh_axis_name(enum tv_mesh_axis axis); /* "pipe", "data", "tensor" */
TV_END_C
#endif
