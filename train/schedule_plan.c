/* train/schedule_plan.c -- from flags to a timed schedule. */
#include "train/schedule_plan.h"
#include "train/schedule_file.h"
#include <stdlib.h>
#include <string.h>

static int was_given(const struct tv_schedule_options *options, const char *flag)
{
    return tv_options_has(&tv_schedule_option_table, &options->given, flag);
}

static tv_status_t build_named(const struct tv_schedule_options *options,
                               struct tv_schedule *schedule_out)
{
    const char *name =
        was_given(options, "schedule") ? options->schedule : tv_schedule_default_name(options->vpp);
    struct tv_schedule_args args = {.name = name,
                                    .num_stages = options->pp,
                                    .num_chunks = options->vpp,
                                    .num_micro = options->num_micro,
                                    .slot_limit = options->slot_limit};
    if (!tv_schedule_is_known(name))
        return TV_ERR(TV_INVALID, "--schedule %s is not one of %s, and no FILE.csv", name,
                      tv_schedule_names());
    if (args.num_stages == 0)
        return TV_ERR(TV_INVALID, "--pp is needed: the number of stages");
    if (args.num_micro == 0)
        return TV_ERR(TV_INVALID, "--micro-batches is needed: how many a step has");
    if (args.num_chunks == 0)
        args.num_chunks = tv_schedule_default_chunks(name);
    if (tv_schedule_check_chunks(name, args.num_chunks) != TV_OK)
        return TV_ERR(TV_INVALID, "--vpp %d: %s", args.num_chunks, tv_error_message());
    return tv_schedule_build(&args, schedule_out);
}

static tv_status_t check_same(const char *flag, int wanted, int found, const char *file)
{
    if (wanted == 0 || wanted == found)
        return TV_OK;
    return TV_ERR(TV_INVALID, "--%s %d: %s has %d", flag, wanted, file, found);
}

static tv_status_t check_flags(const struct tv_schedule_options *options,
                               const struct tv_schedule *schedule)
{
    const char *file = options->schedule;
    TV_TRY(check_same("pp", options->pp, schedule->num_stages, file));
    TV_TRY(check_same("vpp", options->vpp, schedule->num_chunks, file));
    TV_TRY(check_same("micro-batches", options->num_micro, schedule->num_micro, file));
    return tv_schedule_check(schedule, options->slot_limit);
}

static tv_status_t read_file(const struct tv_schedule_options *options,
                             struct tv_schedule *schedule_out)
{
    struct tv_schedule schedule;
    TV_TRY(tv_schedule_read_file(options->schedule, &schedule));
    const tv_status_t status = check_flags(options, &schedule);
    if (status != TV_OK) {
        tv_schedule_destroy(&schedule);
        return status;
    }
    *schedule_out = schedule;
    return TV_OK;
}

static tv_status_t fill_costs(struct tv_schedule_plan *plan, const struct tv_plan_costs *costs)
{
    const size_t places = (size_t)plan->schedule.num_stages * (size_t)plan->schedule.num_chunks;
    double *memory = plan->cost_memory = malloc(3 * places * sizeof(double));
    if (memory == NULL)
        return TV_ERR(TV_NO_MEMORY, "costs of %zu positions", places);
    for (size_t i = 0; i < 3 * places; i++)
        memory[i] = costs->actions[i / places];
    plan->costs = (struct tv_schedule_costs){.forward = memory,
                                             .backward_input = memory + places,
                                             .backward_weight = memory + 2 * places,
                                             .send = costs->send,
                                             .joins_pairs = costs->joins_pairs};
    return TV_OK;
}

tv_status_t tv_schedule_plan_time(struct tv_schedule *schedule, const struct tv_plan_costs *costs,
                                  struct tv_schedule_plan *plan_out)
{
    struct tv_schedule_plan plan = {.schedule = *schedule};
    tv_status_t status = fill_costs(&plan, costs);
    if (status == TV_OK)
        status = tv_schedule_simulate(&plan.schedule, &plan.costs, &plan.timing);
    *schedule = (struct tv_schedule){0};
    if (status != TV_OK) {
        tv_schedule_plan_free(&plan);
        return status;
    }
    *plan_out = plan;
    return TV_OK;
}

static int has_pairs(const struct tv_schedule *schedule)
{
    for (int s = 0; s < schedule->num_stages; s++) {
        for (int i = 0; i < schedule->stages[s].num_actions; i++) {
            if (schedule->stages[s].actions[i].is_paired)
                return 1;
        }
    }
    return 0;
}

tv_status_t tv_schedule_plan_make(const struct tv_schedule_options *options,
                                  struct tv_schedule_plan *plan_out)
{
    struct tv_schedule schedule;
    const int is_file = tv_schedule_is_file(options->schedule);
    TV_TRY(is_file ? read_file(options, &schedule) : build_named(options, &schedule));
    if (options->overlaps_pairs && !has_pairs(&schedule)) {
        tv_schedule_destroy(&schedule);
        return TV_ERR(TV_INVALID,
                      "--overlap-pairs: schedule %s has no pairs here; dualpipe-v on two stages or "
                      "more has",
                      options->schedule);
    }
    const struct tv_plan_costs costs = {
        .actions = {options->costs[0], options->costs[1], options->costs[2]},
        .send = options->send_cost,
        .joins_pairs = options->overlaps_pairs};
    return tv_schedule_plan_time(&schedule, &costs, plan_out);
}

void tv_schedule_plan_free(struct tv_schedule_plan *plan)
{
    tv_schedule_timing_destroy(&plan->timing);
    tv_schedule_destroy(&plan->schedule);
    free(plan->cost_memory);
    *plan = (struct tv_schedule_plan){0};
}
