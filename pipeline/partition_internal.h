/* pipeline/partition_internal.h -- what the two solvers of tv_partition_balance share. */
#ifndef TV_PIPELINE_PARTITION_INTERNAL_H
#define TV_PIPELINE_PARTITION_INTERNAL_H
#include "pipeline/partition.h"

/* What the largest stage is to have least of. For bytes the limit is not looked at: this is how a
 * refusal knows the least limit that would do. */
enum tv_partition_by { TV_BY_SECONDS, TV_BY_BYTES };

static inline int64_t tv_partition_limit(const struct tv_partition_args *args,
                                         enum tv_partition_by by)
{
    return by == TV_BY_BYTES || args->stage_bytes_limit == 0 ? INT64_MAX : args->stage_bytes_limit;
}

static inline int64_t tv_partition_stage_bytes(const struct tv_partition_args *args, int stage)
{
    return args->stage_fixed_bytes == NULL ? 0 : args->stage_fixed_bytes[stage];
}

/* Solve for layers of equal cost (fill) and of any (search). largest_out: of the largest stage,
 * infinite when nothing fits; ranges_out is then as it was. */
tv_status_t tv_partition_fill(const struct tv_partition_args *args, enum tv_partition_by by,
                              struct tv_unit_range *ranges_out, double *largest_out);
tv_status_t tv_partition_search(const struct tv_partition_args *args, enum tv_partition_by by,
                                struct tv_unit_range *ranges_out, double *largest_out);
#endif
