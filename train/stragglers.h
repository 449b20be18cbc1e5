/* train/stragglers.h -- the ranks that compute longer than those that do the same work: a slow core, a hot GPU, a
 * second program on the node. One of them sets the pace of all.
 *
 * What is compared is the time inside the actions of the pipeline without what they wait for other ranks, summed over
 * an interval of --log-interval steps, against the median of the rank's stage: its replicas and tensor ranks do the
 * same work. A stage of one rank has nobody to be compared with. */
#ifndef TV_TRAIN_STRAGGLERS_H
#define TV_TRAIN_STRAGGLERS_H
#include "mesh/comm.h"
#include "train/metrics.h"
#include "train/run.h"

TV_BEGIN_C
/* A rank is slow from 1.3 times the median on, and named when it was in 3 intervals, one after the other; again when it
 * has been as fast as others in between. */
#define TV_STRAGGLER_RATIO 1.3
enum { TV_STRAGGLER_INTERVALS = 3 };

/* seconds, over_median_out [P D T] by mesh rank: each over the median of its stage, of two in the middle the lower; 1
 * where that is 0. */
TV_MUST_CHECK tv_status_t tv_straggler_ratios(struct tv_mesh_coord extent, const double *seconds,
                                              double *over_median_out);

struct tv_stragglers; /* opaque */
TV_MUST_CHECK tv_status_t tv_stragglers_create(const struct tv_run *run,
                                               struct tv_stragglers **stragglers_out);
void tv_stragglers_destroy(struct tv_stragglers *stragglers);
/* Add what this rank computed in `step`; where it ends an interval, compare (collective over `world`, in mesh order).
 * Rank 0 writes {"type":"ranks"} to metrics (or NULL) and names who is slow. Errors: TV_PEER, TV_IO, TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_stragglers_add(struct tv_stragglers *stragglers, struct tv_comm *world,
                                            int64_t step, double compute_seconds,
                                            struct tv_metrics *metrics);
TV_END_C
#endif
