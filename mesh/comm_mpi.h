/* mesh/comm_mpi.h -- the doors between trivet's communicators and MPI's, for programs that use
 * both. */
#ifndef TV_MESH_COMM_MPI_H
#define TV_MESH_COMM_MPI_H
#include "mesh/comm.h"
#include <mpi.h>

TV_BEGIN_C
/* A communicator over a duplicate of `mpi_comm`, which stays the caller's. Collective over mpi_comm.
 * Where the caller has left MPI_COMM_WORLD its fatal error handler, errors of MPI end the job and
 * never become a status; tv_comm_mpi_world sets MPI_ERRORS_RETURN when it is who starts MPI. */
TV_MUST_CHECK tv_status_t tv_comm_mpi_create(MPI_Comm mpi_comm, struct tv_comm **comm_out);
/* The MPI communicator of the same ranks in the same order (MPI_COMM_SELF for a self communicator):
 * borrowed, valid while `comm` lives. trivet sends on its own duplicate, so the caller's messages
 * never meet trivet's. Errors: TV_UNSUPPORTED for thread communicators. */
TV_MUST_CHECK tv_status_t tv_comm_mpi_get(const struct tv_comm *comm, MPI_Comm *mpi_comm_out);
TV_END_C
#endif
