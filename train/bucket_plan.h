/* train/bucket_plan.h -- which gradients of a rank are summed together. */
#ifndef TV_TRAIN_BUCKET_PLAN_H
#define TV_TRAIN_BUCKET_PLAN_H
#include "data/buckets.h"
#include "model/model.h"

TV_BEGIN_C
/* A bucket holds gradients of units low .. high of those here, and is complete when all of them are. A tied weight
 * with both units here lies with the embedding and needs the head too. */
struct tv_bucket_units {
    int low, high, needs_head, is_started;
};

/* Buckets follow the flat gradients, [param_count], which are in descending order of units; small units share one.
 * is_tied_here: embedding and head are both on this stage. ranges_out, units_out (zeroed): [num_locals]. Returns
 * the number of buckets. */
int tv_plan_buckets(const struct tv_local_param *locals, int num_locals, int64_t param_count,
                    int is_tied_here, struct tv_bucket_range *ranges_out,
                    struct tv_bucket_units *units_out);
TV_END_C
#endif
