/* train/bench_peak.c -- rounds that all ranks begin together. */
#include "train/bench_peak.h"
#include "base/clock.h"
#include "base/rng.h"
#include "train/spread.h"
#include <math.h>

enum { LEAST_ROUNDS = 3, MOST_ROUNDS = 4096, CALLS_OF_A_GPU = 8 };

/* What a round does; `data` are three tensors of `count` elements, one behind the other. */
struct peak_round {
    const struct tv_peak_args *args;
    void *data;
    int64_t count;
    tv_status_t (*run)(const struct peak_round *round);
    double work;   /* FLOPs or bytes */
    int num_calls; /* for one wait */
};

/* Tensor `index` of the three. */
static void *tensor_at(const struct peak_round *round, int index)
{
    return tv_at(round->data, index * round->count, round->args->kernels->dtype);
}

static tv_status_t multiply(const struct peak_round *round)
{
    const int64_t n = round->args->matrix_size;
    const struct tv_matmul_args product = {.m = n,
                                           .n = n,
                                           .k = n,
                                           .a = tensor_at(round, 0),
                                           .ld_a = n,
                                           .b = tensor_at(round, 1),
                                           .ld_b = n,
                                           .c = tensor_at(round, 2),
                                           .ld_c = n};
    return round->args->kernels->matmul(round->args->stream, &product);
}

static tv_status_t add(const struct peak_round *round)
{
    const struct tv_add_args sum = {.count = round->count,
                                    .a = tensor_at(round, 0),
                                    .b = tensor_at(round, 1),
                                    .y = tensor_at(round, 2)};
    return round->args->kernels->add(round->args->stream, &sum);
}

static tv_status_t copy(const struct peak_round *round)
{
    const size_t bytes = (size_t)round->count * tv_dtype_bytes(round->args->kernels->dtype);
    return tv_stream_copy(round->args->stream, tensor_at(round, 1), tensor_at(round, 0), bytes);
}

/* The first piece comes from the host, the rest from what is there already. Random numbers, since a GPU multiplies
 * regular ones faster: its clock falls with the power that changing bits take. */
tv_status_t tv_bench_fill(struct tv_stream *stream, void *data, int64_t count, tv_dtype_t dtype)
{
    enum { PIECE = 16384 };
    float piece[PIECE];
    tv_rng_normals(tv_rng_key(0, "bench"), 0, PIECE, 1, piece);
    tv_round_f32(piece, PIECE, dtype, piece);
    int64_t done = count < PIECE ? count : PIECE, num;
    TV_TRY(tv_stream_copy(stream, data, piece, (size_t)done * tv_dtype_bytes(dtype)));
    for (; done < count; done += num) {
        num = count - done < done ? count - done : done;
        TV_TRY(tv_stream_copy(stream, tv_at(data, done, dtype), data,
                              (size_t)num * tv_dtype_bytes(dtype)));
    }
    return tv_stream_synchronize(stream);
}

/* Of the slowest rank: seconds of a round; and from the first round to now, waits included. */
enum { ROUND, SINCE_FIRST, NUM_TIMES };

static tv_status_t time_round(const struct peak_round *round, double first, double times[NUM_TIMES])
{
    TV_TRY(tv_comm_barrier(round->args->world));
    const double started = tv_clock_seconds();
    for (int i = 0; i < round->num_calls; i++)
        TV_TRY(round->run(round));
    TV_TRY(tv_stream_synchronize(round->args->stream));
    const double ended = tv_clock_seconds();
    times[ROUND] = (ended - started) / round->num_calls;
    times[SINCE_FIRST] = ended - first;
    return tv_comm_all_reduce_now(round->args->world, times, NUM_TIMES, TV_F64, TV_MAX);
}

/* Work per second in the best round, and in the median one. */
struct rates {
    double best, median;
};

static tv_status_t find_rates(const struct peak_round *round, struct rates *rates_out)
{
    double rounds[MOST_ROUNDS], times[NUM_TIMES], first = tv_clock_seconds();
    TV_TRY(time_round(round, first, times)); /* to warm up */
    int num = 0;
    first = tv_clock_seconds();
    while (num < MOST_ROUNDS && (num < LEAST_ROUNDS || times[SINCE_FIRST] < round->args->seconds)) {
        TV_TRY(time_round(round, first, times));
        rounds[num++] = times[ROUND];
    }
    const double work = tv_comm_size(round->args->world) * round->work;
    rates_out->median = work / tv_median(rounds, num); /* sorts */
    rates_out->best = work / rounds[0];
    return TV_OK;
}

/* Memory that one rank lacks, all ranks lack. */
static tv_status_t create_tensors(const struct tv_peak_args *args, int64_t count,
                                  struct tv_buffer *buffer_out)
{
    int first_failed;
    const tv_dtype_t dtype = args->kernels->dtype;
    const size_t bytes = 3 * (size_t)count * tv_dtype_bytes(dtype);
    tv_status_t status =
        tv_buffer_create(tv_stream_device(args->stream), bytes, TV_MEM_BUFFERS, buffer_out);
    if (status == TV_OK)
        status = tv_bench_fill(args->stream, buffer_out->data, 3 * count, dtype);
    return tv_comm_agree(args->world, status, &first_failed);
}

static tv_status_t measure(struct peak_round *round, struct rates *rates_out)
{
    struct tv_buffer buffer = {0};
    tv_status_t status = create_tensors(round->args, round->count, &buffer);
    round->data = buffer.data;
    if (status == TV_OK)
        status = find_rates(round, rates_out);
    tv_buffer_destroy(&buffer);
    return status;
}

/* `data` is not there yet. */
static struct peak_round product_round(const struct tv_peak_args *args)
{
    const double n = (double)args->matrix_size;
    const int is_gpu = tv_device_kind(tv_stream_device(args->stream)) == TV_DEVICE_CUDA;
    return (struct peak_round){.args = args,
                               .count = (int64_t)args->matrix_size * args->matrix_size,
                               .run = multiply,
                               .work = 2 * n * n * n,
                               .num_calls = is_gpu ? CALLS_OF_A_GPU : 1};
}

tv_status_t tv_peak_raise(const struct tv_peak_args *args, struct tv_peak *peak)
{
    const int64_t width = (int64_t)tv_dtype_bytes(args->kernels->dtype);
    const int64_t count = args->tensor_bytes / width;
    struct rates flops, bytes, copies;
    struct peak_round product = product_round(args);
    const int num_calls = product.num_calls;
    struct peak_round sum = {args, NULL, count, add, 3.0 * (double)(count * width), num_calls};
    struct peak_round copied = {args, NULL, count, copy, 2.0 * (double)(count * width), num_calls};
    TV_TRY(measure(&product, &flops));
    TV_TRY(measure(&sum, &bytes));
    TV_TRY(measure(&copied, &copies));
    peak->flops_per_second = fmax(peak->flops_per_second, flops.best);
    peak->median_flops_per_second = fmax(peak->median_flops_per_second, flops.median);
    peak->bytes_per_second = fmax(peak->bytes_per_second, fmax(bytes.best, copies.best));
    return TV_OK;
}

tv_status_t tv_matrix_probe_round(const struct tv_matrix_probe *probe, double *flops_per_second_out)
{
    double times[NUM_TIMES];
    struct peak_round round = product_round(&probe->args);
    round.data = probe->buffer.data;
    TV_TRY(time_round(&round, 0, times));
    *flops_per_second_out = tv_comm_size(probe->args.world) * round.work / times[ROUND];
    return TV_OK;
}

tv_status_t tv_matrix_probe_open(const struct tv_peak_args *args, struct tv_matrix_probe *probe_out)
{
    double rate;
    struct tv_matrix_probe probe = {.args = *args};
    tv_status_t status =
        create_tensors(args, (int64_t)args->matrix_size * args->matrix_size, &probe.buffer);
    if (status == TV_OK)
        status = tv_matrix_probe_round(&probe, &rate);
    if (status != TV_OK)
        tv_matrix_probe_close(&probe);
    *probe_out = probe;
    return status;
}

void tv_matrix_probe_close(struct tv_matrix_probe *probe)
{
    tv_buffer_destroy(&probe->buffer);
    *probe = (struct tv_matrix_probe){0};
}
