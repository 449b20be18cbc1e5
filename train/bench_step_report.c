/* train/bench_step_report.c -- the figures of `trivet bench step` for people and for scripts. */
#include "train/account_report.h"
#include "train/bench_step.h"
#include "train/metrics.h"
#include <inttypes.h>
#include <jansson.h>

/* Per second, over the steps. */
static struct tv_spread rate_of(struct tv_spread seconds, double work)
{
    return (struct tv_spread){work / seconds.high, work / seconds.median, work / seconds.low};
}

/* Bytes of all kernels' tensors in a step, all ranks, each read and written once; and the seconds that they take at the
 * memory peak. */
struct traffic {
    double bytes, seconds_at_peak;
};

static struct traffic traffic_of(const struct tv_step_bench *bench)
{
    struct traffic traffic = {0};
    for (int k = 0; k < TV_NUM_KERNELS; k++)
        traffic.bytes += bench->kernels.of[k].work.bytes / bench->num_steps;
    traffic.seconds_at_peak = traffic.bytes / bench->peak.bytes_per_second;
    return traffic;
}

/* ---- text ---- */

static void print_head(FILE *out, const struct tv_step_bench *bench, const struct tv_run *run)
{
    const struct tv_mesh_coord e = run->extent;
    fprintf(out,
            "%s, %.1fM %s parameters, on pp %d x dp %d x tp %d, schedule %s\n"
            "%d rank(s) of %d thread(s), %d step(s) of %" PRId64 " x %" PRId64
            " tokens, micro-batches of %" PRId64 "\n\n",
            tv_model_family_name(run->model.family), (double)tv_model_num_params(&run->model) / 1e6,
            tv_precision_name(run->dtype), e.at[TV_PIPE], e.at[TV_DATA], e.at[TV_TENSOR],
            run->schedule.name, bench->num_ranks, bench->num_threads, bench->num_steps,
            run->global_batch, run->seq_length, run->micro_batch);
}

static void print_spread(FILE *out, const char *name, struct tv_spread spread, const char *format)
{
    char text[3][32];
    snprintf(text[0], sizeof(text[0]), format, spread.median);
    snprintf(text[1], sizeof(text[1]), format, spread.low);
    snprintf(text[2], sizeof(text[2]), format, spread.high);
    fprintf(out, "%-24s %12s  (%s to %s)\n", name, text[0], text[1], text[2]);
}

static void print_rates(FILE *out, const struct tv_step_bench *bench, struct tv_spread step,
                        struct tv_spread beside, int matrix_size)
{
    const double tokens = (double)bench->tokens_per_step;
    const struct tv_spread flops = rate_of(step, tokens * bench->flops_per_token / 1e9);
    const double peak = bench->peak.flops_per_second / 1e9;
    const struct tv_spread share = {100 * flops.low / peak, 100 * flops.median / peak,
                                    100 * flops.high / peak};
    print_spread(out, "step, ms",
                 (struct tv_spread){1e3 * step.low, 1e3 * step.median, 1e3 * step.high}, "%.2f");
    print_spread(out, "tokens/s", rate_of(step, tokens), "%.1f");
    print_spread(out, "GFLOP/s of the model", flops, "%.2f");
    print_spread(out, "% of the matrix peak", share, "%.2f");
    if (bench->has_beside)
        print_spread(out, "% of products beside it",
                     (struct tv_spread){100 * beside.low, 100 * beside.median, 100 * beside.high},
                     "%.2f");
    fprintf(out, "%-24s %12.2f  GFLOP/s, %d x %d x %d, all ranks\n", "matrix peak", peak,
            matrix_size, matrix_size, matrix_size);
    fprintf(out, "%-24s %12.2f  GFLOP/s, median round: %.1f %% reached\n", "",
            bench->peak.median_flops_per_second / 1e9,
            1e11 * flops.median / bench->peak.median_flops_per_second);
    fprintf(out, "%-24s %12.2f  GB/s, y = a + b or a copy, all ranks\n", "memory peak",
            bench->peak.bytes_per_second / 1e9);
    const struct traffic traffic = traffic_of(bench);
    fprintf(out, "%-24s %12.3f  GB, at the memory peak %.1f %% of a step\n",
            "memory traffic a step", traffic.bytes / 1e9,
            100 * traffic.seconds_at_peak / step.median);
    fprintf(out, "%-24s %12.0f  6 N + 12 L C S\n", "FLOPs a token", bench->flops_per_token);
}

static tv_status_t print_parts(FILE *out, const struct tv_step_bench *bench)
{
    const double whole = tv_step_bench_mean(bench, TV_WHOLE);
    fprintf(out, "\n%-20s %9s %9s %9s %9s %9s %7s\n", "ms a step", "median", "lowest", "highest",
            "mean", "slowest", "%");
    for (int p = -1; p < TV_NUM_PARTS; p++) {
        const int part = p + 1 < TV_NUM_PARTS ? p + 1 : TV_WHOLE; /* which comes last */
        struct tv_spread s;
        TV_TRY(tv_step_bench_spread(bench, part, &s));
        const double mean = tv_step_bench_mean(bench, part);
        fprintf(out, "%-20s %9.3f %9.3f %9.3f %9.3f %9.3f %7.2f\n",
                part < 0 ? "step" : tv_part_name(part), 1e3 * s.median, 1e3 * s.low, 1e3 * s.high,
                1e3 * mean, 1e3 * tv_step_bench_slowest(bench, part), 100 * mean / whole);
    }
    return TV_OK;
}

/* Rates over the ranks that run at the same time: sums of work by the mean of times. */
static void print_kernels(FILE *out, const struct tv_step_bench *bench)
{
    const double whole = tv_step_bench_mean(bench, TV_WHOLE);
    fprintf(out, "\n%-24s %9s %10s %7s %10s %10s\n", "kernel, all ranks", "calls", "ms a rank", "%",
            "GFLOP/s", "GB/s");
    for (int k = 0; k < TV_NUM_KERNELS; k++) {
        const struct tv_kernel_count *c = &bench->kernels.of[k];
        const double seconds = c->seconds / bench->num_ranks;
        char flops[32] = "-";
        if (c->calls == 0)
            continue;
        if (c->work.flops > 0)
            snprintf(flops, sizeof(flops), "%.2f", c->work.flops / seconds / 1e9);
        fprintf(out, "%-24s %9" PRId64 " %10.3f %7.2f %10s %10.2f\n",
                tv_kernel_name((tv_kernel_t)k), c->calls / bench->num_steps,
                1e3 * seconds / bench->num_steps, 100 * seconds / bench->num_steps / whole, flops,
                c->work.bytes / seconds / 1e9);
    }
}

static tv_status_t print_text(FILE *out, const struct tv_step_bench *bench,
                              const struct tv_run *run, int matrix_size)
{
    struct tv_spread step, beside = {0};
    TV_TRY(tv_step_bench_spread(bench, TV_WHOLE_ALONE, &step));
    if (bench->has_beside)
        TV_TRY(tv_step_bench_share(bench, &beside));
    print_head(out, bench, run);
    print_rates(out, bench, step, beside, matrix_size);
    TV_TRY(print_parts(out, bench));
    print_kernels(out, bench);
    fputc('\n', out);
    tv_stages_memory_print(out, &bench->account);
    return TV_OK;
}

/* ---- JSON ---- */

static tv_status_t parts_json(const struct tv_step_bench *bench, json_t **parts_out)
{
    json_t *parts = json_array();
    for (int p = 0; p < TV_NUM_PARTS; p++) {
        struct tv_spread spread;
        const tv_status_t status = tv_step_bench_spread(bench, p, &spread);
        if (status != TV_OK) {
            json_decref(parts);
            return status;
        }
        json_array_append_new(
            parts, json_pack("{s:s, s:o, s:f, s:f, s:f}", "name", tv_part_name(p), "seconds",
                             tv_spread_json(spread), "mean", tv_step_bench_mean(bench, p),
                             "slowest", tv_step_bench_slowest(bench, p), "share",
                             tv_step_bench_mean(bench, p) / tv_step_bench_mean(bench, TV_WHOLE)));
    }
    *parts_out = parts;
    return TV_OK;
}

/* Every rank's every step: [ranks][steps] {"alone", "seconds", "parts": [..]}. */
static json_t *ranks_json(const struct tv_step_bench *bench)
{
    json_t *ranks = json_array();
    for (int r = 0; r < bench->num_ranks; r++) {
        json_t *steps = json_array();
        for (int s = 0; s < bench->num_steps; s++) {
            const struct tv_step_time *time = &bench->times[r * bench->num_steps + s];
            json_t *parts = json_array();
            for (int p = 0; p < TV_NUM_PARTS; p++)
                json_array_append_new(parts, json_real(time->parts[p]));
            json_array_append_new(steps, json_pack("{s:f, s:f, s:o}", "alone", time->alone,
                                                   "seconds", time->seconds, "parts", parts));
        }
        json_array_append_new(ranks, steps);
    }
    return ranks;
}

static json_t *kernels_json(const struct tv_step_bench *bench)
{
    json_t *kernels = json_array();
    for (int k = 0; k < TV_NUM_KERNELS; k++) {
        const struct tv_kernel_count *c = &bench->kernels.of[k];
        if (c->calls == 0)
            continue;
        json_array_append_new(kernels,
                              json_pack("{s:s, s:s, s:I, s:f, s:f, s:f}", "name",
                                        tv_kernel_name((tv_kernel_t)k), "group",
                                        tv_kernel_group_name(tv_kernel_group((tv_kernel_t)k)),
                                        "calls", (json_int_t)c->calls, "seconds", c->seconds,
                                        "flops", c->work.flops, "bytes", c->work.bytes));
    }
    return kernels;
}

static json_t *sizes_json(const struct tv_step_bench *bench, const struct tv_run *run)
{
    const struct tv_model_config *c = &run->model;
    const struct tv_mesh_coord e = run->extent;
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:s, s:s, s:s, s:i, "
        "s:i}",
        "model", tv_model_family_name(c->family), "num_layers", c->num_layers, "hidden_size",
        c->hidden_size, "num_attention_heads", c->num_heads, "num_query_groups", c->num_kv_heads,
        "ffn_hidden_size", c->ffn_size, "vocab_size", (json_int_t)c->vocab_size, "seq_length",
        (json_int_t)run->seq_length, "micro_batch_size", (json_int_t)run->micro_batch,
        "global_batch_size", (json_int_t)run->global_batch, "pp", e.at[TV_PIPE], "dp",
        e.at[TV_DATA], "tp", e.at[TV_TENSOR], "schedule", run->schedule.name, "recompute",
        tv_recompute_name(run->recompute), "precision", tv_precision_name(run->dtype), "ranks",
        bench->num_ranks, "threads", bench->num_threads);
}

/* NULL on a GPU */
static json_t *beside_json(const struct tv_step_bench *bench)
{
    json_t *rates = bench->has_beside ? json_array() : NULL;
    for (int s = 0; rates != NULL && s <= bench->num_steps; s++)
        json_array_append_new(rates, json_real(bench->beside[s]));
    return rates;
}

static tv_status_t make_json(const struct tv_step_bench *bench, const struct tv_run *run,
                             const struct tv_bench_step_options *options, json_t **root_out)
{
    struct tv_spread step, timed, beside = {0};
    json_t *parts = NULL;
    const double tokens = (double)bench->tokens_per_step;
    TV_TRY(tv_step_bench_spread(bench, TV_WHOLE_ALONE, &step));
    TV_TRY(tv_step_bench_spread(bench, TV_WHOLE, &timed));
    if (bench->has_beside)
        TV_TRY(tv_step_bench_share(bench, &beside));
    const struct tv_spread flops = rate_of(step, tokens * bench->flops_per_token);
    const double peak = bench->peak.flops_per_second;
    const struct tv_spread share = {flops.low / peak, flops.median / peak, flops.high / peak};
    TV_TRY(parts_json(bench, &parts));
    const struct traffic traffic = traffic_of(bench);
    *root_out = json_pack(
        "{s:o, s:i, s:i, s:I, s:f, s:o, s:o, s:o, s:o, s:o, s:o*, s:o*, s:{s:f, s:f, s:i, s:f, "
        "s:i}, "
        "s:{s:f, s:f, s:f}, s:o, s:o, s:o, s:o}",
        "sizes", sizes_json(bench, run), "steps", bench->num_steps, "warmup_steps",
        options->num_warmup, "tokens_per_step", (json_int_t)bench->tokens_per_step,
        "flops_per_token", bench->flops_per_token, "step_seconds", tv_spread_json(step),
        "timed_step_seconds", tv_spread_json(timed), "tokens_per_second",
        tv_spread_json(rate_of(step, tokens)), "model_flops_per_second", tv_spread_json(flops),
        "share_of_peak", tv_spread_json(share), "share_of_products_beside",
        bench->has_beside ? tv_spread_json(beside) : NULL, "flops_per_second_beside",
        beside_json(bench), "peak", "flops_per_second", peak, "median_flops_per_second",
        bench->peak.median_flops_per_second, "matrix_size", options->matrix_size,
        "bytes_per_second", bench->peak.bytes_per_second, "memory_mib", options->triad_mib,
        "memory_traffic", "bytes_per_step", traffic.bytes, "seconds_at_peak",
        traffic.seconds_at_peak, "share_of_step", traffic.seconds_at_peak / step.median, "parts",
        parts, "kernels", kernels_json(bench), "ranks", ranks_json(bench), "memory_bytes",
        tv_stages_memory_json(&bench->account));
    return *root_out != NULL ? TV_OK : TV_ERR(TV_NO_MEMORY, "bench step --json");
}

tv_status_t tv_step_bench_print(const struct tv_step_bench *bench, const struct tv_run *run,
                                const struct tv_bench_step_options *options, FILE *out)
{
    if (!options->is_json)
        return print_text(out, bench, run, options->matrix_size);
    json_t *root = NULL;
    TV_TRY(make_json(bench, run, options, &root));
    const int failed = json_dumpf(root, out, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 ||
                       putc('\n', out) == EOF;
    json_decref(root);
    return failed ? TV_ERR(TV_IO, "standard output cannot be written") : TV_OK;
}
