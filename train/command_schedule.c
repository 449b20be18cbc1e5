/* train/command_schedule.c -- `trivet schedule`: draws, times, compares, writes and runs pipeline
 * schedules. Only --run starts ranks. */
#include "train/commands.h"
#include "train/files.h"
#include "train/ranks.h"
#include "train/schedule_report.h"

static int was_given(const struct tv_schedule_options *options, const char *flag)
{
    return tv_options_has(&tv_schedule_option_table, &options->given, flag);
}

/* Flags that would say nothing. */
static tv_status_t check_flags(const struct tv_schedule_options *options)
{
    if (options->run_ms < 0 && options->local_ranks > 0)
        return TV_ERR(TV_INVALID, "--local-ranks %d: ranks are only started by --run",
                      options->local_ranks);
    if (options->run_ms < 0 && was_given(options, "timeout"))
        return TV_ERR(TV_INVALID, "--timeout %g: ranks are only started by --run",
                      options->timeout_seconds);
    if (was_given(options, "csv-form") && options->csv == NULL)
        return TV_ERR(TV_INVALID, "--csv-form %s: there is no --csv FILE", options->csv_form);
    if (options->run_ms >= 0 && options->overlaps_pairs)
        return TV_ERR(TV_INVALID, "--overlap-pairs: sleeping stages of --run do not overlap");
    const struct tv_flag_file files[] = {
        {"svg", options->svg, 1}, {"trace", options->trace, 1}, {"csv", options->csv, 1}};
    return tv_files_check_apart(3, files);
}

static tv_status_t predict(const struct tv_schedule_options *options)
{
    struct tv_schedule_plan plan;
    if (options->is_compare)
        return tv_schedule_compare(options, stdout);
    TV_TRY(tv_schedule_plan_make(options, &plan));
    const tv_status_t status = tv_schedule_report(options, &plan, NULL, stdout);
    tv_schedule_plan_free(&plan);
    return status;
}

static tv_status_t run_plan(struct tv_comm *world, const struct tv_schedule_options *options,
                            const struct tv_schedule_plan *plan)
{
    struct tv_sleep_walk measured;
    TV_TRY(tv_schedule_measure(world, plan, options->run_ms / 1000, &measured));
    if (tv_comm_rank(world) != 0)
        return TV_OK;
    return tv_schedule_report(options, plan, &measured, stdout);
}

static tv_status_t run_rank(struct tv_comm *world, void *context, int *is_common_out)
{
    const struct tv_schedule_options *options = context;
    struct tv_schedule_plan plan = {0};
    int first_failed = -1;
    tv_status_t status = tv_schedule_plan_make(options, &plan);
    if (status == TV_OK)
        status = tv_sleep_pipeline_check(world, &plan.schedule);
    status = tv_comm_agree(world, status, &first_failed);
    *is_common_out = status != TV_OK && first_failed >= 0;
    if (status == TV_OK)
        status = run_plan(world, options, &plan);
    tv_schedule_plan_free(&plan);
    return status;
}

/* Without --run every process of a launcher would say the same. */
static int predict_once(const struct tv_schedule_options *options)
{
    if (!tv_is_first_process())
        return 0;
    const tv_status_t status = predict(options);
    if (status != TV_OK)
        tv_print_error();
    return tv_status_exit_code(status);
}

int tv_command_schedule(int argc, char **argv)
{
    struct tv_schedule_options options;
    tv_log_level_t level = TV_LOG_INFO;
    tv_status_t status = tv_schedule_options_parse(argc, argv, &options);
    if (status == TV_OK)
        status = tv_log_level_parse(options.log_level, &level);
    if (status == TV_OK && !options.wants_help)
        status = check_flags(&options);
    if (status != TV_OK)
        return tv_refuse_flags(status);
    tv_log_set_level(level);
    if (options.wants_help) {
        if (tv_is_first_process())
            tv_options_help(&tv_schedule_option_table, stdout);
        return 0;
    }
    if (options.run_ms < 0 || options.is_compare)
        return predict_once(&options);
    const struct tv_ranks_args ranks = {.local_ranks = options.local_ranks,
                                        .timeout_seconds = options.timeout_seconds,
                                        .body = run_rank,
                                        .context = &options};
    return tv_ranks_run(&ranks);
}
