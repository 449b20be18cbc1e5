/* mesh/mesh.c -- one split of the reordered world per axis; never knows what the communicators are
 * made of. */
#include "mesh/mesh.h"
#include "mesh/nccl.h"
#include <stdlib.h>

struct tv_mesh {
    struct tv_mesh_coord extent, here;
    struct tv_comm *world; /* in mesh order */
    struct tv_comm *axis[TV_NUM_AXES];
};

const char *tv_mesh_axis_name(enum tv_mesh_axis axis)
{
    static const char *const names[TV_NUM_AXES] = {"pipe", "data", "tensor"};
    return (unsigned)axis < TV_NUM_AXES ? names[axis] : "unknown";
}

struct tv_mesh_coord tv_mesh_coord_of(struct tv_mesh_coord extent, int rank)
{
    const int T = extent.at[TV_TENSOR], D = extent.at[TV_DATA];
    return (struct tv_mesh_coord){{rank / T / D, rank / T % D, rank % T}};
}

int tv_mesh_rank_of(struct tv_mesh_coord extent, struct tv_mesh_coord coord)
{
    return (coord.at[TV_PIPE] * extent.at[TV_DATA] + coord.at[TV_DATA]) * extent.at[TV_TENSOR] +
           coord.at[TV_TENSOR];
}

tv_status_t tv_mesh_check(struct tv_mesh_coord extent, int num_ranks)
{
    double needed = 1; /* a product of three ints overflows any of them; exact where it matters */
    for (int a = 0; a < TV_NUM_AXES; a++) {
        if (extent.at[a] < 1)
            return TV_ERR(TV_INVALID, "the %s axis has %d ranks, and needs at least 1",
                          tv_mesh_axis_name((enum tv_mesh_axis)a), extent.at[a]);
        needed *= extent.at[a];
    }
    if (needed != num_ranks)
        return TV_ERR(
            TV_INVALID, "a mesh of pipe=%d x data=%d x tensor=%d needs %.0f ranks, not %d",
            extent.at[TV_PIPE], extent.at[TV_DATA], extent.at[TV_TENSOR], needed, num_ranks);
    return TV_OK;
}

/* Peers along an axis share all other coordinates: the first one's rank names the group. */
static int group_of(const struct tv_mesh *mesh, int axis)
{
    struct tv_mesh_coord first = mesh->here;
    first.at[axis] = 0;
    return tv_mesh_rank_of(mesh->extent, first);
}

tv_status_t tv_mesh_create(struct tv_comm *world, struct tv_mesh_coord extent,
                           const struct tv_placement *placement, struct tv_mesh **mesh_out)
{
    const int size = tv_comm_size(world), rank = tv_comm_rank(world);
    TV_TRY(tv_mesh_check(extent, size));
    if (placement != NULL && placement->num_ranks != size)
        return TV_ERR(TV_INVALID, "a placement of %d ranks in a world of %d", placement->num_ranks,
                      size);
    struct tv_mesh *mesh = calloc(1, sizeof(*mesh));
    if (mesh == NULL)
        return TV_ERR(TV_NO_MEMORY, "mesh: %zu bytes", sizeof(*mesh));
    const int place = placement != NULL ? placement->place_of[rank] : rank;
    mesh->extent = extent;
    mesh->here = tv_mesh_coord_of(extent, place);
    tv_status_t status = tv_comm_split(world, 0, place, &mesh->world);
    for (int a = 0; a < TV_NUM_AXES && status == TV_OK; a++) {
        status = tv_comm_split(mesh->world, group_of(mesh, a), mesh->here.at[a], &mesh->axis[a]);
        if (status == TV_OK)
            tv_comm_set_name(mesh->axis[a], tv_mesh_axis_name((enum tv_mesh_axis)a));
    }
    if (status != TV_OK) {
        tv_mesh_destroy(mesh);
        return status;
    }
    *mesh_out = mesh;
    return TV_OK;
}

tv_status_t tv_mesh_use_nccl(struct tv_mesh *mesh, struct tv_device *device)
{
    TV_TRY(tv_comm_use_nccl(mesh->world, device));
    for (int a = 0; a < TV_NUM_AXES; a++)
        TV_TRY(tv_comm_share_nccl(mesh->world, group_of(mesh, a), mesh->here.at[a], mesh->axis[a]));
    return TV_OK;
}

void tv_mesh_destroy(struct tv_mesh *mesh)
{
    if (mesh == NULL)
        return;
    for (int a = TV_NUM_AXES - 1; a >= 0; a--)
        tv_comm_destroy(mesh->axis[a]);
    tv_comm_destroy(mesh->world);
    free(mesh);
}

struct tv_mesh_coord tv_mesh_extent(const struct tv_mesh *mesh)
{
    return mesh->extent;
}

struct tv_mesh_coord tv_mesh_here(const struct tv_mesh *mesh)
{
    return mesh->here;
}

int tv_mesh_rank(const struct tv_mesh *mesh)
{
    return tv_mesh_rank_of(mesh->extent, mesh->here);
}

struct tv_comm *tv_mesh_comm(const struct tv_mesh *mesh, enum tv_mesh_axis axis)
{
    return mesh->axis[axis];
}

struct tv_comm *tv_mesh_world(const struct tv_mesh *mesh)
{
    return mesh->world;
}
