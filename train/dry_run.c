/* train/dry_run.c -- what a run would be, without training: mesh, layer map, parameters and memory of each stage.
 *
 * The numbers come from the same functions that make the real thing. */
#include "train/account_report.h"
#include "train/commands.h"
#include "train/split.h"
#include "train/trainer_internal.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

struct stage_plan {
    int64_t params; /* of one tensor rank, padding included */
    int64_t bytes[TV_NUM_MEM_KINDS];
    struct tv_sent sent; /* in a step, by its ranks */
};

static tv_status_t plan_stage(const struct tv_run *run, int stage, struct stage_plan *plan)
{
    TV_TRY(tv_run_stage_bytes(run, stage, plan->bytes));
    struct tv_sharding sharding;
    TV_TRY(tv_sharding_create(run, stage, 0, &sharding));
    plan->params = sharding.locals.count;
    tv_sharding_destroy(&sharding);
    return tv_run_stage_sent(run, &run->schedule, stage, NULL, &plan->sent);
}

/* "embedding, layers 1-4" */
static void describe_units(const struct tv_run *run, struct tv_unit_range units, char *text,
                           size_t bytes)
{
    const int L = run->model.num_layers;
    const int last = units.first + units.num - 1;
    const int low = units.first > 1 ? units.first : 1;
    const int high = last < L ? last : L;
    size_t used = 0;
    text[0] = '\0';
    if (units.first == 0)
        used += (size_t)snprintf(text, bytes, "embedding");
    if (low <= high)
        used += (size_t)snprintf(text + used, bytes - used,
                                 low == high ? "%slayer %d" : "%slayers %d-%d", used ? ", " : "",
                                 low, high);
    if (last == L + 1)
        snprintf(text + used, bytes - used, "%shead", used ? ", " : "");
}

static struct tv_sent sent_by_all(const struct tv_run *run, const struct stage_plan *plans)
{
    struct tv_sent sum = {0};
    for (int p = 0; p < run->extent.at[TV_PIPE]; p++)
        tv_sent_add(&sum, &plans[p].sent);
    return sum;
}

static void print_sent(const struct tv_run *run, const struct stage_plan *plans, FILE *out)
{
    const struct tv_sent all = sent_by_all(run, plans);
    tv_sent_print_head(out);
    for (int p = 0; p < run->extent.at[TV_PIPE]; p++) {
        char stage[16];
        snprintf(stage, sizeof(stage), "%d", p);
        tv_sent_print_row(out, stage, plans[p].sent.largest);
    }
    tv_sent_print_row(out, "all", all.bytes);
}

static void print_text(const struct tv_run *run, const struct stage_plan *plans, FILE *out)
{
    const struct tv_mesh_coord e = run->extent;
    fprintf(out,
            "mesh: pp %d x dp %d x tp %d = %d rank(s), %s\n"
            "schedule: %s, %d chunk(s) per stage, %d micro-batch(es) of %" PRId64
            ", recompute %s\n",
            e.at[TV_PIPE], e.at[TV_DATA], e.at[TV_TENSOR],
            e.at[TV_PIPE] * e.at[TV_DATA] * e.at[TV_TENSOR], tv_precision_name(run->dtype),
            run->schedule.name, run->num_chunks, run->num_micro, run->micro_batch,
            tv_recompute_name(run->recompute));
    if (run->zero_stage > 0)
        fprintf(out, "ZeRO stage %d over groups of %d replica(s)%s\n", run->zero_stage,
                run->zero_group,
                run->options.zero_group == 0
                    ? "; where they are on several nodes, of those on one: --zero-group-size"
                    : "");
    fprintf(out, "model: %s, %d layers, %" PRId64 " parameters\n",
            tv_model_family_name(run->model.family), run->model.num_layers,
            tv_model_num_params(&run->model));
    fputs("per rank, MiB:\n", out);
    fprintf(out, "%5s %12s %7s %7s %7s %7s %7s %7s %7s  %s\n", "stage", "parameters", "weights",
            "grads", "optim", "activ", "buffers", "total", "of need", "units");
    for (int p = 0; p < e.at[TV_PIPE]; p++) {
        char units[96];
        const double mib = 1048576.0;
        const int64_t *bytes = plans[p].bytes;
        const struct tv_memory_sum sum = tv_memory_sum_of(bytes);
        fprintf(out, "%5d %12" PRId64 " %7.1f %7.1f %7.1f %7.1f %7.1f %7.1f %7.3f", p,
                plans[p].params, (double)bytes[TV_MEM_PARAMS] / mib,
                (double)bytes[TV_MEM_GRADS] / mib, (double)bytes[TV_MEM_OPTIMIZER] / mib,
                (double)bytes[TV_MEM_ACTIVATIONS] / mib, (double)bytes[TV_MEM_BUFFERS] / mib,
                (double)sum.total / mib, sum.of_need);
        for (int c = 0; c < run->num_chunks; c++) {
            describe_units(run, run->pieces[tv_schedule_position(&run->schedule, p, c)], units,
                           sizeof(units));
            fprintf(out, "%s%s", c == 0 ? "  " : "; ", units);
        }
        fputc('\n', out);
    }
    print_sent(run, plans, out);
}

/* One chunk of a stage. Parameters and memory are the whole stage's, and stand with its first chunk. */
static json_t *chunk_json(const struct tv_run *run, const struct stage_plan *plan, int stage,
                          int chunk)
{
    const int L = run->model.num_layers;
    const int position = tv_schedule_position(&run->schedule, stage, chunk);
    const struct tv_unit_range units = run->pieces[position];
    json_t *layers = json_array();
    for (int u = units.first; u < units.first + units.num; u++) {
        if (u >= 1 && u <= L)
            json_array_append_new(layers, json_integer(u - 1)); /* as in Hugging Face names */
    }
    json_t *row = json_pack("{s:i, s:i, s:i, s:b, s:o, s:b}", "stage", stage, "chunk", chunk,
                            "position", position, "embedding", units.first == 0, "layers", layers,
                            "head", units.first + units.num == L + 2);
    if (chunk > 0)
        return row;
    json_t *memory = json_object();
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++)
        json_object_set_new(memory, tv_mem_kind_name((tv_mem_kind_t)k),
                            json_integer(plan->bytes[k]));
    const struct tv_memory_sum sum = tv_memory_sum_of(plan->bytes);
    json_object_set_new(memory, "total", json_integer(sum.total));
    json_object_set_new(row, "parameters_per_rank", json_integer(plan->params));
    json_object_set_new(row, "memory_bytes_per_rank", memory);
    json_object_set_new(row, "memory_of_need", json_real(sum.of_need));
    json_object_set_new(row, "sent_bytes_per_rank", tv_sent_json(plan->sent.largest));
    json_object_set_new(row, "peak_slots",
                        json_integer(tv_schedule_peak_slots(&run->schedule, stage)));
    return row;
}

static tv_status_t print_json(const struct tv_run *run, const struct stage_plan *plans, FILE *out)
{
    const struct tv_mesh_coord e = run->extent;
    const struct tv_sent all = sent_by_all(run, plans);
    json_t *stages = json_array();
    for (int p = 0; p < e.at[TV_PIPE]; p++) {
        for (int c = 0; c < run->num_chunks; c++)
            json_array_append_new(stages, chunk_json(run, &plans[p], p, c));
    }
    json_t *root = json_pack(
        "{s:{s:i, s:i, s:i}, s:i, s:i, s:s, s:s, s:i, s:s, s:s, s:i, s:I, s:I, s:s, s:I, s:o, s:o}",
        "mesh", "pp", e.at[TV_PIPE], "dp", e.at[TV_DATA], "tp", e.at[TV_TENSOR], "zero_stage",
        run->zero_stage, "zero_group_size", run->zero_group, "precision",
        tv_precision_name(run->dtype), "schedule", run->schedule.name, "vpp", run->num_chunks,
        "partition", run->options.stage_layout ? "layout" : run->options.partition, "recompute",
        tv_recompute_name(run->recompute), "micro_batches", run->num_micro, "micro_batch_size",
        (json_int_t)run->micro_batch, "global_batch_size", (json_int_t)run->global_batch, "model",
        tv_model_family_name(run->model.family), "parameters",
        (json_int_t)tv_model_num_params(&run->model), "sent_bytes", tv_sent_json(all.bytes),
        "stages", stages);
    if (root == NULL)
        return TV_ERR(TV_NO_MEMORY, "--dry-run --json");
    const int failed = json_dumpf(root, out, JSON_COMPACT) != 0 || fputc('\n', out) == EOF;
    json_decref(root);
    return failed ? TV_ERR(TV_IO, "--dry-run --json: standard output cannot be written") : TV_OK;
}

tv_status_t tv_dry_run_print(const struct tv_run *run, FILE *out)
{
    const int P = run->extent.at[TV_PIPE];
    struct stage_plan *plans = calloc((size_t)P, sizeof(*plans));
    if (plans == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d stages", P);
    tv_status_t status = TV_OK;
    for (int p = 0; p < P && status == TV_OK; p++)
        status = plan_stage(run, p, &plans[p]);
    if (status == TV_OK && run->options.is_json)
        status = print_json(run, plans, out);
    else if (status == TV_OK)
        print_text(run, plans, out);
    free(plans);
    if (status == TV_OK && (fflush(out) != 0 || ferror(out)))
        status = TV_ERR(TV_IO, "--dry-run: standard output cannot be written");
    return status;
}
