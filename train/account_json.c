/* train/account_json.c -- the accounts in the metrics file and in the dry run. */
#include "train/account_report.h"
#include "train/metrics.h"
#include <jansson.h>

json_t *tv_sent_json(const int64_t *bytes)
{
    json_t *fields = json_object();
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++)
        json_object_set_new(fields, tv_account_name((enum tv_account)a), json_integer(bytes[a]));
    return fields;
}

static json_t *seconds_json(const double *seconds)
{
    json_t *fields = json_object();
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++)
        json_object_set_new(fields, tv_account_name((enum tv_account)a),
                            tv_metrics_number(seconds[a]));
    return fields;
}

static json_t *memory_json(const int64_t *bytes)
{
    json_t *fields = json_object();
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++)
        json_object_set_new(fields, tv_mem_kind_name((tv_mem_kind_t)k), json_integer(bytes[k]));
    return fields;
}

json_t *tv_stages_memory_json(const struct tv_account_report *report)
{
    json_t *stages = json_array();
    for (int p = 0; p < report->num_stages; p++) {
        const struct tv_stage_memory *stage = &report->stages[p];
        json_array_append_new(stages,
                              json_pack("{s:o, s:o, s:f}", "measured", memory_json(stage->measured),
                                        "predicted", memory_json(stage->predicted), "of_need",
                                        tv_memory_sum_of(stage->measured).of_need));
    }
    return stages;
}

void tv_account_step_json(json_t *step, const struct tv_mesh_account *account)
{
    json_object_set_new(step, "sent_bytes", tv_sent_json(account->sent_bytes));
    json_object_set_new(step, "largest_sent_bytes", tv_sent_json(account->largest_sent_bytes));
    json_object_set_new(step, "exposed_seconds", seconds_json(account->exposed_seconds));
    json_object_set_new(step, "memory_bytes", memory_json(account->peak_bytes));
}

void tv_account_report_json(json_t *line, const struct tv_account_report *report)
{
    const struct tv_mesh_account *m = &report->measured;
    json_t *measured = json_pack("{s:o, s:o}", "sum", tv_sent_json(m->sent_bytes), "largest",
                                 tv_sent_json(m->largest_sent_bytes));
    json_t *predicted = json_pack("{s:o, s:o}", "sum", tv_sent_json(report->predicted.bytes),
                                  "largest", tv_sent_json(report->predicted.largest));
    int64_t within[TV_NUM_ACCOUNTS];
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++)
        within[a] = report->predicted.bytes[a] - report->predicted.between[a];
    if (report->num_nodes > 0) {
        json_object_set_new(predicted, "within_nodes", tv_sent_json(within));
        json_object_set_new(predicted, "between_nodes", tv_sent_json(report->predicted.between));
    }
    json_object_set_new(line, "sent_bytes",
                        json_pack("{s:o, s:o}", "measured", measured, "predicted", predicted));
    json_object_set_new(line, "nodes", json_integer(report->num_nodes));
    json_object_set_new(line, "exposed_seconds", seconds_json(m->exposed_seconds));
    json_object_set_new(line, "memory_bytes", tv_stages_memory_json(report));
}
