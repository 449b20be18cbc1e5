/* pipeline/schedule_build.c -- the schedules by name, as pure functions of P and m.
 *
 * gpipe (Huang et al. 2019, arXiv:1811.06965): all forwards, then all backwards; m slots on every
 * stage. 1f1b (Narayanan et al. 2019, PipeDream; the flushed form of Narayanan et al. 2021,
 * arXiv:2104.04473): stage r does w = min(P-1-r, m) forwards, then m - w pairs of one forward and
 * one backward, then w backwards; min(P-r, m) slots. Both take (m + P - 1)(F + B): bubble
 * (P-1)/(m+P-1). */
#include "pipeline/schedule_internal.h"
#include <string.h>

static void build_gpipe(struct tv_schedule *schedule, int stage)
{
    for (int i = 0; i < schedule->num_micro; i++)
        tv_schedule_append(schedule, stage, TV_ACT_FORWARD, 0, i);
    for (int i = 0; i < schedule->num_micro; i++)
        tv_schedule_append(schedule, stage, TV_ACT_BACKWARD, 0, i);
}

static void build_1f1b(struct tv_schedule *schedule, int stage)
{
    const int m = schedule->num_micro;
    const int deep = schedule->num_stages - 1 - stage;
    const int warmup = deep < m ? deep : m;
    for (int i = 0; i < warmup; i++)
        tv_schedule_append(schedule, stage, TV_ACT_FORWARD, 0, i);
    for (int i = warmup; i < m; i++) {
        tv_schedule_append(schedule, stage, TV_ACT_FORWARD, 0, i);
        tv_schedule_append(schedule, stage, TV_ACT_BACKWARD, 0, i - warmup);
    }
    for (int i = m - warmup; i < m; i++)
        tv_schedule_append(schedule, stage, TV_ACT_BACKWARD, 0, i);
}

static const struct builder {
    const char *name;
    void (*build)(struct tv_schedule *schedule, int stage);
} builders[] = {{"gpipe", build_gpipe}, {"1f1b", build_1f1b}};
enum { NUM_BUILDERS = sizeof(builders) / sizeof(builders[0]) };

static const struct builder *find(const char *name)
{
    for (int i = 0; i < NUM_BUILDERS; i++) {
        if (strcmp(builders[i].name, name) == 0)
            return &builders[i];
    }
    return NULL;
}

int tv_schedule_is_known(const char *name)
{
    return find(name) != NULL;
}

const char *tv_schedule_names(void)
{
    return "gpipe, 1f1b";
}

const char *tv_schedule_name(int index)
{
    return index >= 0 && index < NUM_BUILDERS ? builders[index].name : NULL;
}

tv_status_t tv_schedule_build(const struct tv_schedule_args *args, struct tv_schedule *schedule_out)
{
    const struct builder *builder = find(args->name);
    if (builder == NULL)
        return TV_ERR(TV_INVALID, "schedule %s is not one of %s", args->name, tv_schedule_names());
    if (args->num_stages < 1 || args->num_micro < 1)
        return TV_ERR(TV_INVALID, "a schedule of %d stages and %d micro-batches", args->num_stages,
                      args->num_micro);
    if (args->num_micro > 1 << 24)
        return TV_ERR(TV_INVALID, "%d micro-batches a step; at most %d", args->num_micro, 1 << 24);
    struct tv_schedule compute;
    TV_TRY(tv_schedule_alloc(args, TV_PLACE_LOOP, 2 * args->num_micro, &compute));
    for (int stage = 0; stage < args->num_stages; stage++)
        builder->build(&compute, stage);
    const tv_status_t status = tv_schedule_lower(&compute, schedule_out);
    tv_schedule_destroy(&compute);
    return status;
}
