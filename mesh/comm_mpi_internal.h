/* mesh/comm_mpi_internal.h -- what tests need to reach in the MPI implementation. */
#ifndef TV_MESH_COMM_MPI_INTERNAL_H
#define TV_MESH_COMM_MPI_INTERNAL_H
#include "mesh/comm.h"

TV_BEGIN_C
/* Cut the messages of an MPI communicator into pieces of at most so many bytes; 1 GiB at first. All
 * ranks of the group must use the same. */
void tv_comm_mpi_set_piece_bytes(struct tv_comm *comm, int64_t bytes);
TV_END_C
#endif
