/* train/bench_kernels_report.c -- the figures of `trivet bench kernels` for people and for scripts. */
#include "train/bench_kernels.h"
#include <inttypes.h>
#include <jansson.h>

static void print_result(FILE *out, const struct tv_kernel_result *r)
{
    char flops[32] = "-", beside[32] = "-";
    if (r->work.flops > 0)
        snprintf(flops, sizeof(flops), "%.2f", r->work.flops / r->seconds.median / 1e9);
    if (r->has_beside)
        snprintf(beside, sizeof(beside), "%.1f", 100 * r->beside.median);
    fprintf(out, "%-22s %9.3f %9.3f %7s %6.1f %7s %7.1f %6s\n", r->name, 1e3 * r->seconds.median,
            1e3 * r->seconds.low, flops, r->work.bytes / r->seconds.median / 1e9,
            r->is_compute_bound ? "compute" : "memory", 100 * r->roofline / r->seconds.median,
            beside);
}

static void print_text(FILE *out, const struct tv_kernels_bench *bench,
                       const struct tv_bench_step_options *options)
{
    const struct tv_kernel_sizes *s = &bench->sizes;
    fprintf(out,
            "%s: %d x %d tokens, %d channels, %d heads on %d of %d, ffn %d, vocabulary %" PRId64
            "\n%s, %d thread(s)\npeaks: matrix %.2f GFLOP/s (%d x %d x %d), memory %.2f GB/s\n\n",
            tv_model_family_name(s->family), s->batch, s->seq_length, s->hidden, s->num_heads,
            s->num_kv_heads, s->head_dim, s->ffn, s->vocab, tv_precision_name(s->dtype),
            bench->num_threads, bench->peak.flops_per_second / 1e9, options->matrix_size,
            options->matrix_size, options->matrix_size, bench->peak.bytes_per_second / 1e9);
    fprintf(out, "%-22s %9s %9s %7s %6s %7s %7s %6s\n", "kernel", "median ms", "lowest ms",
            "GFLOP/s", "GB/s", "bound", "% of it", "beside");
    for (int i = 0; i < bench->num_results; i++)
        print_result(out, &bench->results[i]);
    fputs("\nMore than 100 % of a memory bound: the tensors stay in a cache.\n", out);
    if (s->device == TV_DEVICE_CPU)
        fputs("beside: % of products between the calls, for machines whose speed moves.\n", out);
}

static json_t *result_json(const struct tv_kernel_result *r)
{
    return json_pack(
        "{s:s, s:s, s:s, s:i, s:o, s:f, s:f, s:s, s:f, s:f, s:o}", "name", r->name, "kernel",
        tv_kernel_name(r->kernel), "group", tv_kernel_group_name(tv_kernel_group(r->kernel)),
        "rounds", r->rounds, "seconds", tv_spread_json(r->seconds), "flops", r->work.flops, "bytes",
        r->work.bytes, "bound", r->is_compute_bound ? "compute" : "memory", "roofline_seconds",
        r->roofline, "share_of_roofline", r->roofline / r->seconds.median,
        "share_of_products_beside", r->has_beside ? tv_spread_json(r->beside) : json_null());
}

static json_t *make_json(const struct tv_kernels_bench *bench,
                         const struct tv_bench_step_options *options)
{
    const struct tv_kernel_sizes *s = &bench->sizes;
    json_t *results = json_array();
    for (int i = 0; i < bench->num_results; i++)
        json_array_append_new(results, result_json(&bench->results[i]));
    json_t *sizes = json_pack(
        "{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:i}", "model",
        tv_model_family_name(s->family), "precision", tv_precision_name(s->dtype), "batch",
        s->batch, "seq_length", s->seq_length, "hidden_size", s->hidden, "heads", s->num_heads,
        "kv_heads", s->num_kv_heads, "head_dim", s->head_dim, "ffn", s->ffn, "vocab",
        (json_int_t)s->vocab, "head_rows", (json_int_t)s->head_rows, "threads", bench->num_threads);
    return json_pack("{s:o, s:{s:f, s:i, s:f, s:i}, s:o}", "sizes", sizes, "peak",
                     "flops_per_second", bench->peak.flops_per_second, "matrix_size",
                     options->matrix_size, "bytes_per_second", bench->peak.bytes_per_second,
                     "memory_mib", options->triad_mib, "kernels", results);
}

tv_status_t tv_kernels_bench_print(const struct tv_kernels_bench *bench,
                                   const struct tv_bench_step_options *options, FILE *out)
{
    if (!options->is_json) {
        print_text(out, bench, options);
        return TV_OK;
    }
    json_t *root = make_json(bench, options);
    if (root == NULL)
        return TV_ERR(TV_NO_MEMORY, "bench kernels --json");
    const int failed = json_dumpf(root, out, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 ||
                       putc('\n', out) == EOF;
    json_decref(root);
    return failed ? TV_ERR(TV_IO, "standard output cannot be written") : TV_OK;
}
