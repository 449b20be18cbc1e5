/* train/bucket_plan.c -- whole units, at least a MiB of them. */
#include "train/bucket_plan.h"

int tv_plan_buckets(const struct tv_local_param *locals, int num_locals, int64_t param_count,
                    int is_tied_here, struct tv_bucket_range *ranges_out,
                    struct tv_bucket_units *units_out)
{
    const int64_t min_count = 1 << 18; /* 1 MiB: below it a message costs more than its bytes */
    int64_t first = 0;
    int num = 0, is_new = 1;
    for (int i = 0; i < num_locals; i++) {
        struct tv_bucket_units *bucket = &units_out[num];
        const int is_last = i == num_locals - 1;
        const int64_t end = is_last ? param_count : locals[i + 1].first;
        const int ends_unit = is_last || locals[i + 1].unit != locals[i].unit;
        if (is_new)
            bucket->high = locals[i].unit;
        bucket->low = locals[i].unit;
        bucket->needs_head |= locals[i].param->tied_unit >= 0 && !locals[i].is_copy && is_tied_here;
        is_new = is_last || (ends_unit && end - first >= min_count);
        if (!is_new)
            continue;
        ranges_out[num++] = (struct tv_bucket_range){first, end - first};
        first = end;
    }
    return num;
}
