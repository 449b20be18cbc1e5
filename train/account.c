/* train/account.c -- measured: what the communicators have sent and waited for since the step began, and the most that
 * the device has held of each kind. */
#include "train/account.h"
#include "train/place.h"
#include "train/split.h"
#include "train/trainer_internal.h"
#include <stdlib.h>

static void add_stats(struct tv_rank_account *now, enum tv_account account,
                      struct tv_comm_stats stats)
{
    now->sent[account] += stats.sent_bytes;
    now->exposed[account] += stats.wait_seconds;
}

/* Everything since the communicators were made. */
static struct tv_rank_account read_counters(const struct tv_trainer *tr)
{
    struct tv_rank_account now = {0};
    add_stats(&now, TV_ACCOUNT_PIPE, tv_executor_comm_stats(tr->executor));
    add_stats(&now, TV_ACCOUNT_DATA, tv_comm_get_stats(tv_mesh_comm(tr->mesh, TV_DATA)));
    if (tr->zero.is_owned)
        add_stats(&now, TV_ACCOUNT_DATA, tv_comm_get_stats(tr->zero.shards));
    if (tr->zero.copies != NULL)
        add_stats(&now, TV_ACCOUNT_DATA, tv_comm_get_stats(tr->zero.copies));
    add_stats(&now, TV_ACCOUNT_TENSOR, tv_comm_get_stats(tv_mesh_comm(tr->mesh, TV_TENSOR)));
    add_stats(&now, TV_ACCOUNT_TENSOR, tv_model_comm_stats(tr->model));
    if (tr->tied != NULL)
        add_stats(&now, TV_ACCOUNT_TIED, tv_comm_get_stats(tr->tied));
    add_stats(&now, TV_ACCOUNT_WORLD, tv_comm_get_stats(tv_mesh_world(tr->mesh)));
    return now;
}

void tv_trainer_start_account(struct tv_trainer *tr)
{
    tr->account = read_counters(tr);
}

double tv_trainer_waited_in_actions(const struct tv_trainer *tr)
{
    const struct tv_rank_account now = read_counters(tr);
    return now.exposed[TV_ACCOUNT_TENSOR] - tr->account.exposed[TV_ACCOUNT_TENSOR] +
           now.exposed[TV_ACCOUNT_DATA] - tr->account.exposed[TV_ACCOUNT_DATA];
}

void tv_trainer_end_account(struct tv_trainer *tr)
{
    const struct tv_rank_account now = read_counters(tr);
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++) {
        tr->account.sent[a] = now.sent[a] - tr->account.sent[a];
        tr->account.exposed[a] = now.exposed[a] - tr->account.exposed[a];
        tr->exposed_sum[a] += tr->account.exposed[a];
    }
}

/* A rank's row of the table that all ranks get: doubles hold its bytes exactly. */
enum {
    ROW_SENT,
    ROW_EXPOSED = ROW_SENT + TV_NUM_ACCOUNTS,
    ROW_PEAKS = ROW_EXPOSED + TV_NUM_ACCOUNTS,
    ROW_SIZE = ROW_PEAKS + TV_NUM_MEM_KINDS
};

tv_status_t tv_trainer_create_account(struct tv_trainer *tr)
{
    const size_t size = (size_t)tv_comm_size(tv_mesh_world(tr->mesh)) * ROW_SIZE;
    tr->account_rows = calloc(size, sizeof(*tr->account_rows));
    if (tr->account_rows == NULL)
        return TV_ERR(TV_NO_MEMORY, "accounts of %zu numbers", size);
    return TV_OK;
}

/* exposed: seconds of each account. */
static tv_status_t gather_rows(struct tv_trainer *tr, const double *exposed)
{
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    struct tv_request *request = NULL;
    double row[ROW_SIZE];
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++) {
        row[ROW_SENT + a] = (double)tr->account.sent[a];
        row[ROW_EXPOSED + a] = exposed[a];
    }
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++)
        row[ROW_PEAKS + k] = (double)tv_device_kind_peak_bytes(tr->device, (tv_mem_kind_t)k);
    TV_TRY(tv_comm_all_gather(world, row, tr->account_rows, ROW_SIZE, TV_F64, NULL, &request));
    return tv_request_wait(&request);
}

static void sum_rows(const struct tv_trainer *tr, struct tv_mesh_account *sum)
{
    const int num_ranks = tv_comm_size(tv_mesh_world(tr->mesh));
    *sum = (struct tv_mesh_account){0};
    for (int r = 0; r < num_ranks; r++) {
        const double *row = tr->account_rows + r * ROW_SIZE;
        for (int a = 0; a < TV_NUM_ACCOUNTS; a++) {
            const int64_t sent = (int64_t)row[ROW_SENT + a];
            sum->sent_bytes[a] += sent;
            sum->largest_sent_bytes[a] =
                sent > sum->largest_sent_bytes[a] ? sent : sum->largest_sent_bytes[a];
            sum->exposed_seconds[a] += row[ROW_EXPOSED + a] / num_ranks;
        }
        for (int k = 0; k < TV_NUM_MEM_KINDS; k++) {
            const int64_t peak = (int64_t)row[ROW_PEAKS + k];
            sum->peak_bytes[k] = peak > sum->peak_bytes[k] ? peak : sum->peak_bytes[k];
        }
    }
}

tv_status_t tv_trainer_sum_account(struct tv_trainer *tr, struct tv_mesh_account *sum_out)
{
    TV_TRY(gather_rows(tr, tr->account.exposed));
    sum_rows(tr, sum_out);
    return TV_OK;
}

/* ---- the whole run ---- */

static tv_status_t predict_sent(const struct tv_trainer *tr, struct tv_account_report *report)
{
    int *node_of;
    TV_TRY(tv_run_mesh_nodes(tr->run, &node_of));
    report->num_nodes = node_of != NULL ? tr->run->place->nodes.num_nodes : 0;
    const tv_status_t status = tv_run_sent(tr->run, tr->schedule, node_of, &report->predicted);
    free(node_of);
    return status;
}

/* Peaks of the ranks of a stage, the largest of each kind; and what the dry run says of them. */
static tv_status_t stage_memory(const struct tv_trainer *tr, int stage,
                                struct tv_stage_memory *memory)
{
    const struct tv_mesh_coord e = tr->run->extent;
    *memory = (struct tv_stage_memory){0};
    for (int d = 0; d < e.at[TV_DATA]; d++) {
        for (int t = 0; t < e.at[TV_TENSOR]; t++) {
            const int rank = tv_mesh_rank_of(e, (struct tv_mesh_coord){{stage, d, t}});
            const double *peaks = tr->account_rows + rank * ROW_SIZE + ROW_PEAKS;
            for (int k = 0; k < TV_NUM_MEM_KINDS; k++) {
                const int64_t peak = (int64_t)peaks[k];
                memory->measured[k] = peak > memory->measured[k] ? peak : memory->measured[k];
            }
        }
    }
    return tv_run_stage_bytes(tr->run, stage, memory->predicted);
}

struct tv_memory_sum tv_memory_sum_of(const int64_t bytes[TV_NUM_MEM_KINDS])
{
    int64_t total = 0;
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++)
        total += bytes[k];
    const int64_t need = total - bytes[TV_MEM_BUFFERS];
    return (struct tv_memory_sum){total, need > 0 ? (double)total / (double)need : 0};
}

tv_status_t tv_trainer_account_report(struct tv_trainer *tr, struct tv_account_report *report_out)
{
    const int P = tr->run->extent.at[TV_PIPE];
    struct tv_account_report report = {.num_stages = P};
    double mean[TV_NUM_ACCOUNTS] = {0};
    int first_failed;
    for (int a = 0; a < TV_NUM_ACCOUNTS && tr->num_walks > 0; a++)
        mean[a] = tr->exposed_sum[a] / (double)tr->num_walks;
    TV_TRY(gather_rows(tr, mean));
    sum_rows(tr, &report.measured);
    report.stages = calloc((size_t)P, sizeof(*report.stages));
    tv_status_t status = report.stages != NULL ? predict_sent(tr, &report)
                                               : TV_ERR(TV_NO_MEMORY, "memory of %d stages", P);
    for (int p = 0; p < P && status == TV_OK; p++)
        status = stage_memory(tr, p, &report.stages[p]);
    status = tv_comm_agree(tv_mesh_world(tr->mesh), status, &first_failed);
    if (status != TV_OK) {
        tv_account_report_free(&report);
        return status;
    }
    *report_out = report;
    return TV_OK;
}

void tv_account_report_free(struct tv_account_report *report)
{
    free(report->stages);
    report->stages = NULL;
}
