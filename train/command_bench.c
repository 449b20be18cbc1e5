/* train/command_bench.c -- `trivet bench pipeline`: what the executor adds to each action, measured
 * with stages that do nothing; `trivet bench links`: messages between ranks, and collectives among all of them. */
#include "mesh/links.h"
#include "train/bench_collectives.h"
#include "train/bench_options.h"
#include "train/commands.h"
#include "train/ranks.h"
#include "train/schedule_run.h"
#include "train/spread.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum {
    MICRO_BATCHES = 256, /* per walk: start and end of the pipeline weigh little */
    MOST_WALKS = 1000,
    LEAST_WALKS = 5,
    TIMEOUT_SECONDS = 120,
    ALL_MIB = 128, /* of all ranks' tensors: no cache holds them */
    LEAST_MIB = 16
};

enum { MAX_ROWS = 16 };
struct bench_row {
    char name[64];
    double median;
    const char *unit;
    double share_of_peak; /* 0: there is no peak */
};
struct bench_table {
    int num_rows;
    struct bench_row rows[MAX_ROWS];
};

static const char *const schedules[] = {"1f1b", "zb-h1"};
enum { NUM_SCHEDULES = sizeof(schedules) / sizeof(schedules[0]) };

static struct bench_row *add_row(struct bench_table *table, const char *name, double median,
                                 const char *unit)
{
    struct bench_row *row = &table->rows[table->num_rows++];
    snprintf(row->name, sizeof(row->name), "%s", name);
    row->median = median;
    row->unit = unit;
    return row;
}

/* ---- pipeline ---- */

/* Walks until `seconds` have passed, the same number on every rank: all see the same makespans. */
static tv_status_t time_walks(struct tv_sleep_pipeline *pipeline, double seconds,
                              double *median_out)
{
    double makespans[MOST_WALKS], spent = 0;
    struct tv_sleep_walk walk;
    int num = 0;
    TV_TRY(tv_sleep_pipeline_walk(pipeline, &walk)); /* to warm up */
    while (num < MOST_WALKS && (num < LEAST_WALKS || spent < seconds)) {
        TV_TRY(tv_sleep_pipeline_walk(pipeline, &walk));
        makespans[num++] = walk.makespan_seconds;
        spent += walk.makespan_seconds;
    }
    *median_out = tv_median(makespans, num);
    return TV_OK;
}

static int most_actions(const struct tv_schedule *schedule)
{
    int most = 0;
    for (int s = 0; s < schedule->num_stages; s++) {
        const int num = schedule->stages[s].num_actions;
        most = num > most ? num : most;
    }
    return most;
}

static tv_status_t bench_plan(struct tv_comm *world, const struct tv_schedule_plan *plan,
                              double seconds, struct bench_table *table)
{
    char name[64];
    struct tv_sleep_pipeline pipeline;
    double makespan = 0;
    TV_TRY(tv_sleep_pipeline_open(world, plan, 0, &pipeline));
    const tv_status_t status = time_walks(&pipeline, seconds, &makespan);
    tv_sleep_pipeline_close(&pipeline);
    snprintf(name, sizeof(name), "executor, per action, %s, pp %d", plan->schedule.name,
             plan->schedule.num_stages);
    add_row(table, name, makespan / most_actions(&plan->schedule) * 1e6, "us");
    return status;
}

static tv_status_t bench_schedule(struct tv_comm *world, const char *name, double seconds,
                                  struct bench_table *table)
{
    const struct tv_schedule_args args = {.name = name,
                                          .num_stages = tv_comm_size(world),
                                          .num_chunks = 1,
                                          .num_micro = MICRO_BATCHES};
    const struct tv_plan_costs costs = {.actions = {1, 1, 1}};
    struct tv_schedule schedule;
    struct tv_schedule_plan plan;
    TV_TRY(tv_schedule_build(&args, &schedule));
    TV_TRY(tv_schedule_plan_time(&schedule, &costs, &plan));
    const tv_status_t status = bench_plan(world, &plan, seconds, table);
    tv_schedule_plan_free(&plan);
    return status;
}

/* ---- links ---- */

/* Against the copy that all ranks make at once. */
static tv_status_t bench_collectives(struct tv_comm *comm, double seconds,
                                     struct bench_table *table)
{
    const int size = tv_comm_size(comm);
    const int mib = ALL_MIB / size > LEAST_MIB ? ALL_MIB / size : LEAST_MIB;
    struct tv_collective_rates rates;
    char name[64];
    TV_TRY(tv_collective_rates_measure(comm, (int64_t)mib << 20, seconds, &rates));
    snprintf(name, sizeof(name), "copy of %d MiB, every rank", mib);
    add_row(table, name, rates.copy_gbps, "GB/s");
    for (int i = 0; i < TV_NUM_RATES; i++) {
        snprintf(name, sizeof(name), "%s, %d ranks, by %s", tv_rate_name(i), size,
                 tv_comm_reaches_peers(comm) ? "memory" : "messages");
        add_row(table, name, rates.gbps[i], "GB/s")->share_of_peak = rates.share_of_copy[i];
    }
    return TV_OK;
}

/* Where they go through memory of peers, also what messages would do. */
static tv_status_t bench_both_ways(struct tv_comm *world, double seconds, struct bench_table *table)
{
    struct tv_comm *by_messages = NULL;
    TV_TRY(bench_collectives(world, seconds, table));
    if (!tv_comm_reaches_peers(world))
        return TV_OK;
    TV_TRY(tv_comm_split(world, 0, tv_comm_rank(world), &by_messages));
    tv_comm_forget_reach(by_messages);
    const tv_status_t status = bench_collectives(by_messages, seconds, table);
    tv_comm_destroy(by_messages);
    return status;
}

static tv_status_t bench_links(struct tv_comm *world, double seconds, struct bench_table *table)
{
    struct tv_nodes nodes;
    struct tv_link_rates rates;
    char name[64];
    if (tv_comm_size(world) < 2)
        return TV_ERR(TV_INVALID, "bench links needs at least 2 ranks, there is 1");
    TV_TRY(tv_nodes_find(world, NULL, &nodes));
    const tv_status_t status = tv_links_measure(world, &nodes, seconds, &rates);
    tv_nodes_free(&nodes);
    for (int tier = 0; tier < TV_NUM_TIERS && status == TV_OK; tier++) {
        if (rates.gbps[tier] == 0)
            continue;
        snprintf(name, sizeof(name), "latency, %s", tv_tier_name((tv_tier_t)tier));
        add_row(table, name, 1e6 * rates.seconds[tier], "us");
        snprintf(name, sizeof(name), "bandwidth, %s", tv_tier_name((tv_tier_t)tier));
        add_row(table, name, rates.gbps[tier], "GB/s");
    }
    TV_TRY(status);
    return bench_both_ways(world, seconds, table);
}

/* ---- the command ---- */

static int print_json(const struct bench_table *table)
{
    json_t *array = json_array();
    for (int i = 0; i < table->num_rows; i++) {
        const struct bench_row *r = &table->rows[i];
        json_t *row =
            json_pack("{s:s, s:f, s:s}", "name", r->name, "median", r->median, "unit", r->unit);
        if (r->share_of_peak > 0)
            json_object_set_new(row, "share_of_peak", json_real(r->share_of_peak));
        json_array_append_new(array, row);
    }
    const int failed = json_dumpf(array, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 ||
                       putchar('\n') == EOF;
    json_decref(array);
    return failed;
}

static tv_status_t print_rows(const struct bench_table *table, int is_json)
{
    int failed = is_json && print_json(table);
    for (int i = 0; i < table->num_rows && !is_json; i++) {
        const struct bench_row *r = &table->rows[i];
        printf("%-40s %10.2f %s", r->name, r->median, r->unit);
        if (r->share_of_peak > 0)
            printf("  %.0f %% of the copy", 100 * r->share_of_peak);
        putchar('\n');
    }
    failed |= fflush(stdout) != 0 || ferror(stdout);
    return failed ? TV_ERR(TV_IO, "standard output cannot be written") : TV_OK;
}

static tv_status_t bench_rank(struct tv_comm *world, void *context, int *is_common_out)
{
    const struct tv_bench_options *options = context;
    struct bench_table table = {0};
    const int is_links = strcmp(options->what, "links") == 0;
    *is_common_out = is_links && tv_comm_size(world) < 2; /* other failures are one rank's own */
    if (is_links)
        TV_TRY(bench_links(world, options->seconds, &table));
    for (int i = 0; !is_links && i < NUM_SCHEDULES; i++)
        TV_TRY(bench_schedule(world, schedules[i], options->seconds, &table));
    return tv_comm_rank(world) == 0 ? print_rows(&table, options->is_json) : TV_OK;
}

int tv_command_bench(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "step") == 0)
        return tv_command_bench_step(argc, argv);
    if (argc > 1 && strcmp(argv[1], "kernels") == 0)
        return tv_command_bench_kernels(argc, argv);
    struct tv_bench_options options;
    tv_log_level_t level = TV_LOG_INFO;
    tv_status_t status = tv_bench_options_parse(argc, argv, &options);
    if (status == TV_OK)
        status = tv_log_level_parse(options.log_level, &level);
    if (status != TV_OK)
        return tv_refuse_flags(status);
    tv_log_set_level(level);
    if (options.wants_help) {
        if (tv_is_first_process())
            tv_options_help(&tv_bench_option_table, stdout);
        return 0;
    }
    const struct tv_ranks_args ranks = {.local_ranks = options.local_ranks,
                                        .timeout_seconds = TIMEOUT_SECONDS,
                                        .body = bench_rank,
                                        .context = &options};
    return tv_ranks_run(&ranks);
}
