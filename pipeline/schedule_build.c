/* pipeline/schedule_build.c -- the schedules by name: what each takes, and its rule. */
#include "pipeline/schedule_build_internal.h"
#include <assert.h>
#include <stdint.h>
#include <string.h>

enum { ANY_CHUNKS = 1 << 24 };
enum { MAX_FORWARDS = 1 << 24 }; /* P v m of a schedule, so that no count or size overflows */

struct rule {
    const char *name;
    tv_chunk_placement_t placement;
    int least_chunks, most_chunks; /* the least is the default */
    struct tv_list_choice (*choose)(const struct tv_schedule_args *args);
    void (*write)(struct tv_list_writer *writer);
};

static const struct rule rules[] = {
    {"naive", TV_PLACE_LOOP, 1, 1, tv_choose_all, tv_write_naive},
    {"gpipe", TV_PLACE_LOOP, 1, 1, tv_choose_all, tv_write_gpipe},
    {"1f1b", TV_PLACE_LOOP, 1, 1, tv_choose_all, tv_write_1f1b},
    {"interleaved", TV_PLACE_LOOP, 2, ANY_CHUNKS, tv_choose_interleaved, tv_write_interleaved},
    {"zb-h1", TV_PLACE_LOOP, 1, 1, tv_choose_zb_h1, tv_write_zb_h},
    {"zb-h2", TV_PLACE_LOOP, 1, 1, tv_choose_zb_h2, tv_write_zb_h},
    {"zb-v", TV_PLACE_V, 2, 2, tv_choose_zb_v, tv_write_zb_v},
    {"v-half", TV_PLACE_V, 2, 2, tv_choose_all, tv_write_v_half},
    {"v-min", TV_PLACE_V, 2, 2, tv_choose_all, tv_write_v_min},
    {"dualpipe-v", TV_PLACE_V, 2, 2, tv_choose_dualpipe_v, tv_write_dualpipe_v}};
enum { NUM_RULES = sizeof(rules) / sizeof(rules[0]) };

static const struct rule *find(const char *name)
{
    for (int i = 0; i < NUM_RULES; i++) {
        if (strcmp(rules[i].name, name) == 0)
            return &rules[i];
    }
    return NULL;
}

int tv_schedule_is_known(const char *name)
{
    return find(name) != NULL;
}

const char *tv_schedule_names(void)
{
    return "naive, gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, v-half, v-min, dualpipe-v";
}

const char *tv_schedule_name(int index)
{
    return index >= 0 && index < NUM_RULES ? rules[index].name : NULL;
}

const char *tv_schedule_default_name(int num_chunks)
{
    return num_chunks > 1 ? "interleaved" : "1f1b";
}

int tv_schedule_default_chunks(const char *name)
{
    const struct rule *rule = find(name);
    assert(rule != NULL);
    return rule->least_chunks;
}

tv_chunk_placement_t tv_schedule_placement(const char *name)
{
    const struct rule *rule = find(name);
    assert(rule != NULL);
    return rule->placement;
}

tv_status_t tv_schedule_check_chunks(const char *name, int num_chunks)
{
    const struct rule *rule = find(name);
    assert(rule != NULL);
    if (num_chunks >= rule->least_chunks && num_chunks <= rule->most_chunks)
        return TV_OK;
    return TV_ERR(TV_INVALID, "schedule %s takes %d %schunk%s per stage, not %d", name,
                  rule->least_chunks, rule->most_chunks == ANY_CHUNKS ? "or more " : "",
                  rule->least_chunks == 1 ? "" : "s", num_chunks);
}

static tv_status_t check_args(const struct tv_schedule_args *args)
{
    const int P = args->num_stages, v = args->num_chunks, m = args->num_micro;
    if (find(args->name) == NULL)
        return TV_ERR(TV_INVALID, "schedule %s is not one of %s", args->name, tv_schedule_names());
    if (P < 1 || m < 1)
        return TV_ERR(TV_INVALID, "a schedule of %d stages and %d micro-batches", P, m);
    TV_TRY(tv_schedule_check_chunks(args->name, v));
    if (args->slot_limit < 0)
        return TV_ERR(TV_INVALID, "a schedule with %d slots", args->slot_limit);
    /* Some rules write lists for 2P micro-batches. */
    const int64_t longest = P > m / 2 ? (int64_t)2 * P : m;
    if (longest > MAX_FORWARDS / P / v)
        return TV_ERR(TV_INVALID, "%d stages, %d chunks and %d micro-batches are too many", P, v,
                      m);
    return TV_OK;
}

static tv_status_t write_lists(const struct rule *rule, const struct tv_schedule_args *args,
                               struct tv_schedule *compute_out)
{
    const struct tv_list_choice choice = rule->choose(args);
    struct tv_schedule_args written = *args;
    written.num_micro = choice.num_micro;
    const int capacity = 3 * args->num_chunks * choice.num_micro; /* F, I and W */
    TV_TRY(tv_schedule_alloc(&written, rule->placement, capacity, compute_out));
    for (int r = 0; r < args->num_stages; r++) {
        struct tv_list_writer writer = {.schedule = compute_out,
                                        .P = args->num_stages,
                                        .r = r,
                                        .m = choice.num_micro,
                                        .warmup = choice.warmup};
        rule->write(&writer);
    }
    tv_schedule_drop(compute_out, args->num_micro);
    return TV_OK;
}

static tv_status_t check_slots(const struct tv_schedule *schedule, int slot_limit)
{
    int most = 0;
    for (int r = 0; r < schedule->num_stages; r++)
        most = tv_max_int(most, tv_schedule_peak_slots(schedule, r));
    if (slot_limit == 0 || most <= slot_limit)
        return TV_OK;
    return TV_ERR(TV_INVALID,
                  "schedule %s with %d stages and %d micro-batches needs %d slots; "
                  "--slot-limit is %d",
                  schedule->name, schedule->num_stages, schedule->num_micro, most, slot_limit);
}

tv_status_t tv_schedule_build(const struct tv_schedule_args *args, struct tv_schedule *schedule_out)
{
    TV_TRY(check_args(args));
    struct tv_schedule compute, lowered = {0};
    TV_TRY(write_lists(find(args->name), args, &compute));
    tv_status_t status = check_slots(&compute, args->slot_limit);
    if (status == TV_OK)
        status = tv_schedule_lower(&compute, &lowered);
    tv_schedule_destroy(&compute);
    if (status == TV_OK)
        status = tv_schedule_check(&lowered, args->slot_limit);
    if (status != TV_OK) {
        tv_schedule_destroy(&lowered);
        return status;
    }
    *schedule_out = lowered;
    return TV_OK;
}
