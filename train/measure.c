/* train/measure.c -- where the time of every stage went, and what the schedule should have cost with the times that
 * its actions took. */
#include "base/clock.h"
#include "train/profile.h"
#include "train/trainer_internal.h"
#include <math.h>
#include <stdlib.h>

tv_status_t tv_trainer_window(struct tv_trainer *tr, const struct tv_executor_report *walk,
                              double window_out[2], tv_stop_t *stop_out)
{
    double edges[TV_WINDOW_SUMS] = {-(walk->started + tr->clock_offset),
                                    walk->ended + tr->clock_offset, (double)tv_stop_wish()};
    TV_TRY(tv_comm_all_reduce_now(tv_mesh_world(tr->mesh), edges, TV_WINDOW_SUMS, TV_F64, TV_MAX));
    window_out[0] = -edges[0];
    window_out[1] = edges[1];
    *stop_out = (tv_stop_t)edges[2];
    return TV_OK;
}

struct tv_rank_time tv_trainer_walk_time(const struct tv_trainer *tr,
                                         const struct tv_executor_report *walk,
                                         const double window[2])
{
    struct tv_rank_time time = {
        .window = window[1] - window[0],
        .busy = walk->busy_seconds,
        .warmup = walk->started + tr->clock_offset - window[0] + walk->warmup_seconds,
        .drain = walk->drain_seconds + window[1] - (walk->ended + tr->clock_offset),
    };
    time.wait = time.window - time.busy - time.warmup - time.drain; /* messages, and cores */
    return time;
}

/* The first walk is slower than the others (memory is touched for the first time), so a second one replaces it. */
static void note_costs(struct tv_trainer *tr)
{
    const struct tv_action_list *list = &tr->schedule->stages[tr->here.at[TV_PIPE]];
    const struct tv_action_time *times = tv_executor_times(tr->executor);
    for (int c = 0; c < tr->run->num_chunks && tr->num_walks == 1; c++)
        tr->costs[c] = (struct tv_action_costs){0};
    for (int i = 0; i < list->num_actions; i++) {
        const struct tv_action *a = &list->actions[i];
        if (a->kind > TV_ACT_BACKWARD_WEIGHT)
            continue;
        tr->costs[a->chunk].seconds[a->kind] += times[i].end - times[i].start;
        tr->costs[a->chunk].count[a->kind]++;
    }
    tr->num_walks++;
}

/* The window is the mesh's. What this rank did in it before its step began, and with its gradients while others still
 * walked, has a share of its own. */
void tv_trainer_note_walk(struct tv_trainer *tr, const struct tv_rank_time *walk)
{
    const double began = tr->window_started - tr->clock_offset, ended = began + walk->window;
    const struct tv_action_time gradients = tr->phases[TV_PHASE_GRADIENTS];
    tr->time.window += walk->window;
    tr->settled_window = tr->num_walks <= 1 ? walk->window : tr->settled_window + walk->window;
    tr->time.busy += walk->busy;
    tr->time.warmup += walk->warmup - fmax(0, tr->step_started_at - began);
    tr->time.wait += walk->wait;
    tr->time.drain += walk->drain - (fmin(gradients.end, ended) - gradients.start);
    const struct tv_action_time optimizer = tr->phases[TV_PHASE_OPTIMIZER];
    tr->time.optimizer += optimizer.end - optimizer.start;
    note_costs(tr);
}

/* Mean seconds of an action, or 0. */
static double mean(const struct tv_action_costs *costs, tv_action_kind_t kind)
{
    return costs->count[kind] > 0 ? costs->seconds[kind] / (double)costs->count[kind] : 0;
}

/* Mean F, I and W of each position over the ranks of its stage: costs_out [3, P v]. A list without I counts its B as
 * I. */
static tv_status_t mean_costs(struct tv_trainer *tr, double *costs_out)
{
    const struct tv_run *run = tr->run;
    const int P = run->extent.at[TV_PIPE], positions = P * run->num_chunks;
    const double share = 1.0 / (run->extent.at[TV_DATA] * run->extent.at[TV_TENSOR]);
    for (int i = 0; i < 3 * positions; i++)
        costs_out[i] = 0;
    for (int c = 0; c < run->num_chunks; c++) {
        const int p = tv_schedule_position(&run->schedule, tr->here.at[TV_PIPE], c);
        const struct tv_action_costs *costs = &tr->costs[c];
        const int is_split = costs->count[TV_ACT_BACKWARD_INPUT] > 0;
        costs_out[p] = share * mean(costs, TV_ACT_FORWARD);
        costs_out[positions + p] =
            share * mean(costs, is_split ? TV_ACT_BACKWARD_INPUT : TV_ACT_BACKWARD);
        costs_out[2 * positions + p] = share * mean(costs, TV_ACT_BACKWARD_WEIGHT);
    }
    return tv_comm_all_reduce_now(tv_mesh_world(tr->mesh), costs_out, 3 * positions, TV_F64,
                                  TV_SUM);
}

static tv_status_t predict(struct tv_trainer *tr, double *bubble_out)
{
    const int positions = tr->run->extent.at[TV_PIPE] * tr->run->num_chunks;
    double *costs = calloc(3 * (size_t)positions, sizeof(*costs));
    if (costs == NULL)
        return TV_ERR(TV_NO_MEMORY, "costs of %d positions", positions);
    struct tv_schedule_timing timing = {0};
    tv_status_t status = mean_costs(tr, costs);
    if (status == TV_OK)
        status = tv_run_simulate(tr->run, costs, &timing);
    *bubble_out = timing.bubble_fraction;
    tv_schedule_timing_destroy(&timing);
    free(costs);
    return status;
}

/* A stage's row of the table that is summed over the mesh. */
enum {
    ROW_BUSY,
    ROW_WARMUP,
    ROW_WAIT,
    ROW_DRAIN,
    ROW_TENSOR,
    ROW_DATA,
    ROW_OPTIMIZER,
    ROW_TOTAL,
    NUM_ROWS
};

static tv_status_t sum_stages(struct tv_trainer *tr, double *table)
{
    const int P = tr->run->extent.at[TV_PIPE];
    const struct tv_rank_time *t = &tr->time;
    double *row = table + tr->here.at[TV_PIPE] * NUM_ROWS;
    row[ROW_BUSY] =
        t->busy -
        tr->exposed_sum
            [TV_ACCOUNT_TENSOR]; /* waits for tensor peers happen inside stage functions */
    row[ROW_WARMUP] = t->warmup;
    row[ROW_WAIT] = t->wait;
    row[ROW_DRAIN] = t->drain;
    row[ROW_TENSOR] = tr->exposed_sum[TV_ACCOUNT_TENSOR];
    row[ROW_DATA] = tr->exposed_sum[TV_ACCOUNT_DATA];
    row[ROW_OPTIMIZER] = t->optimizer;
    row[ROW_TOTAL] = t->steps;
    return tv_comm_all_reduce_now(tv_mesh_world(tr->mesh), table, P * NUM_ROWS, TV_F64, TV_SUM);
}

static void fill_stage(struct tv_stage_report *stage, const double *row)
{
    const double total = row[ROW_TOTAL] > 0 ? row[ROW_TOTAL] : 1;
    stage->compute = row[ROW_BUSY] / total;
    stage->warmup = row[ROW_WARMUP] / total;
    stage->wait = row[ROW_WAIT] / total;
    stage->drain = row[ROW_DRAIN] / total;
    stage->tensor = row[ROW_TENSOR] / total;
    stage->data = row[ROW_DATA] / total;
    stage->optimizer = row[ROW_OPTIMIZER] / total;
}

static tv_status_t stage_peaks(struct tv_trainer *tr, struct tv_pipeline_report *report)
{
    const int P = report->num_stages;
    int64_t *peaks = calloc((size_t)P, sizeof(*peaks));
    if (peaks == NULL)
        return TV_ERR(TV_NO_MEMORY, "peaks of %d stages", P);
    peaks[tr->here.at[TV_PIPE]] = (int64_t)tv_device_peak_bytes(tr->device);
    const tv_status_t status =
        tv_comm_all_reduce_now(tv_mesh_world(tr->mesh), peaks, P, TV_I64, TV_MAX);
    for (int p = 0; p < P; p++)
        report->stages[p].peak_memory_bytes = peaks[p];
    free(peaks);
    return status;
}

static tv_status_t fill_report(struct tv_trainer *tr, struct tv_pipeline_report *report)
{
    const int P = report->num_stages;
    double *table = calloc((size_t)(P * NUM_ROWS), sizeof(*table));
    if (table == NULL)
        return TV_ERR(TV_NO_MEMORY, "report of %d stages", P);
    const tv_status_t status = sum_stages(tr, table);
    for (int p = 0; p < P && status == TV_OK; p++)
        fill_stage(&report->stages[p], table + p * NUM_ROWS);
    free(table);
    TV_TRY(status);
    double sums[2] = {tr->time.busy, tr->time.window};
    TV_TRY(tv_comm_all_reduce_now(tv_mesh_world(tr->mesh), sums, 2, TV_F64, TV_SUM));
    report->measured_bubble = P > 1 && sums[1] > 0 ? 1 - sums[0] / sums[1] : 0;
    TV_TRY(predict(tr, &report->predicted_bubble));
    report->window_seconds =
        tr->settled_window / (double)(tr->num_walks > 1 ? tr->num_walks - 1 : 1);
    if (tr->run->has_profile)
        TV_TRY(tv_profile_window(tr->run, &report->profile_window_seconds));
    TV_TRY(stage_peaks(tr, report));
    return tv_trainer_account_report(tr, &report->account);
}

tv_status_t tv_trainer_pipeline_report(struct tv_trainer *tr, struct tv_pipeline_report *report_out)
{
    struct tv_pipeline_report report = {.num_stages = tr->run->extent.at[TV_PIPE]};
    report.stages = calloc((size_t)report.num_stages, sizeof(*report.stages));
    if (report.stages == NULL)
        return TV_ERR(TV_NO_MEMORY, "report of %d stages", report.num_stages);
    const tv_status_t status = fill_report(tr, &report);
    if (status != TV_OK) {
        tv_pipeline_report_free(&report);
        return status;
    }
    *report_out = report;
    return TV_OK;
}

void tv_pipeline_report_free(struct tv_pipeline_report *report)
{
    tv_account_report_free(&report->account);
    free(report->stages);
    report->stages = NULL;
}
