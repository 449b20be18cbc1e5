/* mesh/placement.h -- which rank of the world takes which place of the mesh: a permutation.
 *
 * place_of[world_rank] = mesh rank. The identity is what launchers give; a mapper will choose
 * better ones. */
#ifndef TV_MESH_PLACEMENT_H
#define TV_MESH_PLACEMENT_H
#include "mesh/comm.h"

TV_BEGIN_C
struct tv_placement {
    int num_ranks;
    int *place_of; /* [num_ranks], owned */
};
TV_MUST_CHECK tv_status_t tv_placement_identity(int num_ranks, struct tv_placement *placement_out);
/* Copies place_of. Errors: TV_INVALID when it is not a permutation of 0..num_ranks-1. */
TV_MUST_CHECK tv_status_t tv_placement_create(int num_ranks, const int *place_of,
                                              struct tv_placement *placement_out);
/* One mesh rank per line, line i for world rank i; '#' starts a comment. Errors: TV_BAD_FILE,
 * TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_placement_read(const char *path, int num_ranks,
                                            struct tv_placement *placement_out);
/* Errors: TV_INTERNAL, on all ranks, unless all hold the same place_of [num_ranks], by a hash of it.
 * Collective. */
TV_MUST_CHECK tv_status_t tv_placement_check_alike(struct tv_comm *world, int num_ranks,
                                                   const int *place_of);
void tv_placement_destroy(struct tv_placement *placement);
TV_END_C
#endif
