/* train/bench_kernels.c -- rounds of one kernel after the other. */
#include "train/bench_kernels.h"
#include "base/clock.h"
#include "train/run_device.h"
#include "train/setup.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_ROUNDS = 3, MOST_ROUNDS = 1000, MOST_CALLS = 100, MOST_SETS = 32 };
/* Rounds between two products. */
enum { LEAST_GROUPS = 3, MOST_GROUPS = 64, MOST_OF_GROUP = MOST_ROUNDS / LEAST_GROUPS };
#define GROUP_SECONDS 0.05

struct tv_kernel_sizes tv_kernel_sizes_of(const struct tv_run *run)
{
    const struct tv_model_config *c = &run->model;
    const int T = run->extent.at[TV_TENSOR];
    const int64_t rows = run->micro_batch * run->seq_length,
                  vocab = tv_vocabulary_share(c->vocab_size, T);
    return (struct tv_kernel_sizes){
        .family = c->family,
        .dtype = run->dtype,
        .batch = (int)run->micro_batch,
        .seq_length = (int)run->seq_length,
        .hidden = c->hidden_size,
        .num_heads = c->num_heads / T,
        .num_kv_heads = c->num_kv_heads > T ? c->num_kv_heads / T : 1,
        .head_dim = c->hidden_size / c->num_heads,
        .ffn = c->ffn_size / T,
        .vocab = vocab,
        .rows = rows,
        .head_rows = tv_vocab_chunks_of(rows, vocab, run->dtype, run->device_kind).rows,
        .device = run->device_kind,
    };
}

tv_status_t tv_kernel_case_run(const struct tv_kernel_case *one, const struct tv_kernels *kernels,
                               struct tv_stream *stream)
{
    switch (one->kernel) {
#define CASE(op, type)                                                                             \
    case TV_KERNEL_##op:                                                                           \
        return kernels->op(stream, &one->args.op);
        TV_KERNEL_LIST(CASE)
    default:
        return TV_ERR(TV_INTERNAL, "kernel %d", (int)one->kernel);
    }
}

/* One rank's device. */
struct place {
    struct tv_device *device;
    struct tv_stream *stream;
    const struct tv_kernels *kernels;
};

static void place_close(struct place *place)
{
    tv_stream_destroy(place->stream);
    tv_device_close(place->device);
}

static tv_status_t place_open(const struct tv_comm *world, const struct tv_run *run,
                              int num_threads, struct place *place)
{
    TV_TRY(tv_run_open_device(world, run, num_threads, &place->device));
    TV_TRY(tv_stream_create(place->device, &place->stream));
    return tv_kernels_open(place->device, run->dtype, &place->kernels);
}

/* The same case on several sets of tensors, which calls take in turn. */
struct sets {
    int num;
    struct tv_kernel_case of[MOST_SETS];
};

/* On a GPU as many as its cache does not hold, of whatever size the case is. */
static int num_sets(const struct place *place, int64_t num_bytes)
{
    const int64_t beyond_caches = 256 << 20, wanted = beyond_caches / (num_bytes + 1) + 1;
    if (tv_device_kind(place->device) != TV_DEVICE_CUDA)
        return 1;
    return wanted < MOST_SETS ? (int)wanted : MOST_SETS;
}

/* Seconds of each of `num_calls`, one behind the other. */
static tv_status_t time_calls(const struct sets *sets, const struct place *place, int num_calls,
                              double *seconds_out)
{
    const double started = tv_clock_seconds();
    for (int i = 0; i < num_calls; i++)
        TV_TRY(tv_kernel_case_run(&sets->of[i % sets->num], place->kernels, place->stream));
    TV_TRY(tv_stream_synchronize(place->stream));
    *seconds_out = (tv_clock_seconds() - started) / num_calls;
    return TV_OK;
}

/* Seconds of the rounds so far, and in groups of them what share of the products beside it each group has. */
struct rounds {
    double seconds[MOST_ROUNDS], shares[MOST_GROUPS];
    double spent, product; /* FLOP/s of the last product */
    int num, num_groups;
};

/* Rounds of num_calls for about `enough` seconds, then a product. probe: NULL for none. */
static tv_status_t time_group(const struct sets *sets, const struct place *place,
                              const struct tv_matrix_probe *probe, int num_calls, double enough,
                              double flops, struct rounds *rounds)
{
    double seconds = 0, product;
    int num = 0;
    while (rounds->num < MOST_ROUNDS && num < MOST_OF_GROUP && (num == 0 || seconds < enough)) {
        double *of_call = &rounds->seconds[rounds->num++];
        TV_TRY(time_calls(sets, place, num_calls, of_call));
        seconds += num_calls * *of_call;
        num++;
    }
    rounds->spent += seconds;
    if (probe == NULL)
        return TV_OK;
    TV_TRY(tv_matrix_probe_round(probe, &product));
    rounds->shares[rounds->num_groups++] =
        num * num_calls * flops / seconds / ((rounds->product + product) / 2);
    rounds->product = product;
    return TV_OK;
}

/* On a GPU a round has enough calls for its launch and the wait for it to be a small part. */
static tv_status_t time_case(const struct sets *sets, const struct place *place,
                             const struct tv_matrix_probe *probe, double enough,
                             struct tv_kernel_result *result)
{
    const double long_enough = 2e-3;
    const double of_group = fmax(fmin(enough / LEAST_GROUPS, GROUP_SECONDS), enough / MOST_GROUPS);
    struct rounds rounds = {0};
    double seconds;
    int num_calls = 1;
    TV_TRY(time_calls(sets, place, 1, &seconds)); /* to warm up */
    if (tv_device_kind(place->device) == TV_DEVICE_CUDA) {
        TV_TRY(time_calls(sets, place, 1, &seconds));
        num_calls = (int)fmin(fmax(ceil(long_enough / seconds), 1), MOST_CALLS);
    }
    if (probe != NULL)
        TV_TRY(tv_matrix_probe_round(probe, &rounds.product));
    while (rounds.num < LEAST_ROUNDS ||
           (rounds.spent < enough && rounds.num < MOST_ROUNDS && rounds.num_groups < MOST_GROUPS))
        TV_TRY(time_group(sets, place, probe, num_calls, of_group, result->work.flops, &rounds));
    result->rounds = rounds.num;
    result->seconds = tv_spread_of(rounds.seconds, rounds.num);
    result->has_beside = probe != NULL;
    if (probe != NULL)
        result->beside = tv_spread_of(rounds.shares, rounds.num_groups);
    return TV_OK;
}

/* Adds a result, where the case is one of those that are asked for. */
static tv_status_t measure_case(struct tv_kernels_bench *bench, int index,
                                const struct place *place, const struct tv_matrix_probe *probe,
                                const struct tv_bench_step_options *options)
{
    struct tv_kernel_result *result = &bench->results[bench->num_results];
    struct sets sets;
    struct tv_kernel_case *one = &sets.of[0];
    struct tv_buffer memory = {0};
    int64_t num_bytes;
    TV_TRY(tv_kernel_case_fill(&bench->sizes, index, place->stream, NULL, one, &num_bytes));
    if (options->only != NULL && strstr(one->name, options->only) == NULL)
        return TV_OK;
    bench->num_results++;
    snprintf(result->name, sizeof(result->name), "%s", one->name);
    result->kernel = one->kernel;
    sets.num = num_sets(place, num_bytes);
    TV_TRY(
        tv_buffer_create(place->device, (size_t)(sets.num * num_bytes), TV_MEM_BUFFERS, &memory));
    tv_status_t status = TV_OK;
    for (int i = 0; i < sets.num && status == TV_OK; i++)
        status = tv_kernel_case_fill(&bench->sizes, index, place->stream,
                                     (char *)memory.data + i * num_bytes, &sets.of[i], &num_bytes);
    result->work = tv_kernel_work_of(one->kernel, &one->args, bench->sizes.dtype);
    if (status == TV_OK)
        status = time_case(&sets, place, result->work.flops > 0 ? probe : NULL, options->seconds,
                           result);
    tv_buffer_destroy(&memory);
    return status;
}

static tv_status_t measure_cases(struct tv_kernels_bench *bench, int num_cases,
                                 const struct place *place, const struct tv_peak_args *args,
                                 const struct tv_bench_step_options *options)
{
    struct tv_matrix_probe probe = {0};
    const int has_probe = tv_device_kind(place->device) == TV_DEVICE_CPU;
    if (has_probe)
        TV_TRY(tv_matrix_probe_open(args, &probe));
    tv_status_t status = TV_OK;
    for (int i = 0; i < num_cases && status == TV_OK; i++)
        status = measure_case(bench, i, place, has_probe ? &probe : NULL, options);
    tv_matrix_probe_close(&probe);
    return status;
}

static void hold_against_peaks(struct tv_kernels_bench *bench)
{
    for (int i = 0; i < bench->num_results; i++) {
        struct tv_kernel_result *r = &bench->results[i];
        const double compute = r->work.flops / bench->peak.flops_per_second;
        const double memory = r->work.bytes / bench->peak.bytes_per_second;
        r->is_compute_bound = compute > memory;
        r->roofline = fmax(compute, memory);
    }
}

static tv_status_t measure(struct tv_comm *world, const struct place *place,
                           const struct tv_bench_step_options *options,
                           struct tv_kernels_bench *bench)
{
    const int num_cases = tv_kernel_num_cases(&bench->sizes);
    bench->results = calloc((size_t)num_cases, sizeof(*bench->results));
    if (bench->results == NULL)
        return TV_ERR(TV_NO_MEMORY, "results of %d kernels", num_cases);
    const struct tv_peak_args args = {.world = world,
                                      .stream = place->stream,
                                      .kernels = place->kernels,
                                      .matrix_size = options->matrix_size,
                                      .tensor_bytes = (int64_t)options->triad_mib << 20,
                                      .seconds = options->seconds};
    TV_TRY(tv_peak_raise(&args, &bench->peak));
    TV_TRY(measure_cases(bench, num_cases, place, &args, options));
    if (bench->num_results == 0)
        return TV_ERR(TV_INVALID,
                      "--only %s: no kernel's name holds that; without it all are timed and named",
                      options->only);
    TV_TRY(tv_peak_raise(&args, &bench->peak));
    hold_against_peaks(bench);
    return TV_OK;
}

tv_status_t tv_kernels_bench_measure(struct tv_comm *world, const struct tv_run *run,
                                     const struct tv_bench_step_options *options,
                                     struct tv_kernels_bench *bench_out)
{
    struct place place = {0};
    struct tv_kernels_bench bench = {.sizes = tv_kernel_sizes_of(run)};
    if (tv_comm_size(world) != 1)
        return TV_ERR(TV_INVALID,
                      "bench kernels times one rank, there are %d; --tp says whose share it has",
                      tv_comm_size(world));
    TV_TRY(tv_fair_threads(world, run->options.num_threads, &bench.num_threads));
    tv_status_t status = place_open(world, run, bench.num_threads, &place);
    if (status == TV_OK)
        status = measure(world, &place, options, &bench);
    place_close(&place);
    if (status != TV_OK) {
        tv_kernels_bench_free(&bench);
        return status;
    }
    *bench_out = bench;
    return TV_OK;
}

void tv_kernels_bench_free(struct tv_kernels_bench *bench)
{
    free(bench->results);
    bench->results = NULL;
}
