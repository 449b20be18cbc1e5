/* mesh/comm_mpi_internal.h -- the parts of the MPI implementation, and what tests need to reach in
 * it. */
#ifndef TV_MESH_COMM_MPI_INTERNAL_H
#define TV_MESH_COMM_MPI_INTERNAL_H
#include "mesh/comm.h"
#include <mpi.h>

TV_BEGIN_C
/* Cut the messages of an MPI communicator into pieces of at most so many bytes; 1 GiB at first. All
 * ranks of the group must use the same. */
void tv_comm_mpi_set_piece_bytes(struct tv_comm *comm, int64_t bytes);

/* MPI_Comm_create_group of `group`, or MPI_Comm_split_type (shared memory) where it is
 * MPI_GROUP_NULL, of ranks of `from`, with the deadline and the name of `comm`. *code_out: what MPI
 * returned. Errors: TV_PEER (the deadline passed: nothing but tv_comm_abort can follow),
 * TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_comm_mpi_make(struct tv_comm *comm, MPI_Comm from, MPI_Group group,
                                           MPI_Comm *made_out, int *code_out);

/* Find out whether all ranks of `comm` are processes of one machine that may read each other's memory; then its large
 * sums go through it. Collective, blocking; counts nothing. Errors: TV_PEER, TV_NO_MEMORY, the same on all ranks unless
 * a peer is gone. */
TV_MUST_CHECK tv_status_t tv_comm_mpi_reach(struct tv_comm *comm);
TV_END_C
#endif
