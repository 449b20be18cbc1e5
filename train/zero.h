/* train/zero.h -- which replicas share what the run's --zero-stage says: groups of --zero-group-size consecutive ones
 * (hybrid sharding: FSDP, Zhao et al. 2023, arXiv:2304.11277).
 *
 * Replica d is number d mod N of group d / N. A group holds everything once, each of its replicas the shards of its
 * number; replicas of the same number hold copies of them. Gradients are scattered inside the groups, then added over
 * the copies; weights are gathered inside the groups alone. */
#ifndef TV_TRAIN_ZERO_H
#define TV_TRAIN_ZERO_H
#include "train/run.h"

TV_BEGIN_C
/* Fills zero_stage and zero_group of a run whose extent is known. Pure. Errors: TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_run_resolve_zero(struct tv_run *run);
/* Once the ranks have found their place: where nobody said how many replicas share, the most whose groups are inside a
 * node. Everything stays as it is where that would be one, where nodes are not known, and under --memory-limit: all
 * replicas together need the least. The same on every rank. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_run_fit_zero_group(struct tv_run *run);

struct tv_zero_groups {
    struct tv_comm *shards; /* this rank's group: rank in it d mod N */
    struct tv_comm *copies; /* rank in it d / N; NULL: one group, or nothing is shared */
    int is_owned;           /* shards: else the data axis, borrowed */
};
/* Collective over the data axis, which is borrowed. Errors: TV_PEER, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_zero_groups_create(const struct tv_run *run, struct tv_comm *data,
                                                struct tv_zero_groups *groups_out);
void tv_zero_groups_destroy(struct tv_zero_groups *groups);
TV_END_C
#endif
