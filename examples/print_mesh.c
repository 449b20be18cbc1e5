/* print_mesh -- lays a pipe x data x tensor mesh over the ranks and gets an MPI communicator for
 * each axis.
 *
 *   mpiexec -n 8 ./print_mesh 2 2 2
 *
 * What a code of your own needs to start from: it keeps its MPI, its data and its kernels, and
 * takes only the mesh. */
#include <stdio.h>
#include <stdlib.h>
#include <trivet/mesh/comm_mpi.h>
#include <trivet/mesh/mesh.h>

static void check(tv_status_t status)
{
    if (status == TV_OK)
        return;
    fprintf(stderr, "print_mesh: %s\n", tv_error_message());
    MPI_Abort(MPI_COMM_WORLD, tv_status_exit_code(status));
}

/* Sum of the world ranks along one axis, through plain MPI. */
static int sum_along(const struct tv_mesh *mesh, enum tv_mesh_axis axis, int world_rank)
{
    MPI_Comm comm;
    int sum = 0;
    check(tv_comm_mpi_get(tv_mesh_comm(mesh, axis), &comm));
    MPI_Allreduce(&world_rank, &sum, 1, MPI_INT, MPI_SUM, comm);
    return sum;
}

int main(int argc, char **argv)
{
    struct tv_comm *world;
    struct tv_mesh *mesh;
    int rank;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    struct tv_mesh_coord extent = {{1, 1, 1}};
    for (int axis = TV_PIPE; axis < TV_NUM_AXES; axis++)
        extent.at[axis] = argc == 4 ? atoi(argv[axis + 1]) : 1;

    check(tv_comm_mpi_create(MPI_COMM_WORLD, &world));
    check(tv_mesh_create(world, extent, NULL, &mesh)); /* NULL: the launcher's order of ranks */

    const struct tv_mesh_coord here = tv_mesh_here(mesh);
    printf(
        "rank %d is at pipe %d, data %d, tensor %d; sums of ranks: pipe %d, data %d, tensor %d\n",
        rank, here.at[TV_PIPE], here.at[TV_DATA], here.at[TV_TENSOR],
        sum_along(mesh, TV_PIPE, rank), sum_along(mesh, TV_DATA, rank),
        sum_along(mesh, TV_TENSOR, rank));

    tv_mesh_destroy(mesh);
    tv_comm_destroy(world);
    MPI_Finalize();
    return 0;
}
