/* train/bench_step.c -- training steps under a table of kernels that times them; all ranks' times in one table. */
#include "train/bench_step.h"
#include "base/clock.h"
#include "train/loop.h"
#include "train/run_device.h"
#include "train/trainer_internal.h"
#include <stdlib.h>

const char *tv_part_name(int part)
{
    static const char *const names[] = {"communication", "idle", "other"};
    return part < TV_NUM_GROUPS ? tv_kernel_group_name((tv_kernel_group_t)part)
                                : names[part - TV_NUM_GROUPS];
}

/* ---- one rank ---- */

/* The parts of a step: kernels are what the counters grew by, waits are the trainer's account of the step. */
static void split_step(const struct tv_trainer *tr, const struct tv_kernel_times *before,
                       struct tv_step_time *step)
{
    static const int part_of[TV_NUM_ACCOUNTS] = {[TV_ACCOUNT_PIPE] = TV_PART_IDLE,
                                                 [TV_ACCOUNT_DATA] = TV_PART_COMMUNICATION,
                                                 [TV_ACCOUNT_TENSOR] = TV_PART_COMMUNICATION,
                                                 [TV_ACCOUNT_TIED] = TV_PART_COMMUNICATION,
                                                 [TV_ACCOUNT_WORLD] = TV_PART_IDLE};
    const struct tv_kernel_times *now = tr->run->kernel_times;
    double left = step->seconds;
    for (int p = 0; p < TV_NUM_PARTS; p++)
        step->parts[p] = 0;
    for (int k = 0; k < TV_NUM_KERNELS; k++)
        step->parts[tv_kernel_group((tv_kernel_t)k)] += now->of[k].seconds - before->of[k].seconds;
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++)
        step->parts[part_of[a]] += tr->account.exposed[a];
    for (int p = 0; p < TV_PART_OTHER; p++)
        left -= step->parts[p];
    step->parts[TV_PART_OTHER] = left;
}

/* Steps behind `num_before` others, each from the end of the one before it, which on a GPU runs on behind the host's
 * back. On the CPU from the end of a product between them: the ranks begin it together, before each step and after the
 * last. */
static tv_status_t time_steps(struct tv_trainer *tr, const struct tv_matrix_probe *probe,
                              int num_before, int num_steps, struct tv_step_time *times_out,
                              double *beside_out)
{
    struct tv_step_report report;
    if (probe != NULL)
        TV_TRY(tv_matrix_probe_round(probe, &beside_out[0]));
    double started = tv_clock_seconds();
    for (int s = 0; s < num_steps; s++) {
        const struct tv_kernel_times before = *tr->run->kernel_times;
        TV_TRY(tv_train_step(tr, num_before + s + 1, &report));
        const double ended = tv_clock_seconds();
        times_out[s].seconds = ended - started;
        split_step(tr, &before, &times_out[s]);
        started = ended;
        if (probe != NULL) {
            TV_TRY(tv_matrix_probe_round(probe, &beside_out[s + 1]));
            started = tv_clock_seconds();
        }
    }
    return TV_OK;
}

/* probe: NULL on a GPU */
static tv_status_t time_all_steps(struct tv_trainer *tr,
                                  const struct tv_bench_step_options *options,
                                  const struct tv_matrix_probe *probe,
                                  struct tv_step_time *times_out, double *beside_out)
{
    struct tv_kernel_times *counted = tr->run->kernel_times;
    const int num = options->num_steps, is_gpu = tv_device_kind(tr->device) == TV_DEVICE_CUDA;
    struct tv_step_report report;
    counted->is_off = is_gpu;
    for (int s = 0; s < options->num_warmup; s++)
        TV_TRY(tv_train_step(tr, s + 1, &report));
    if (is_gpu)
        TV_TRY(time_steps(tr, probe, options->num_warmup, num, times_out, beside_out));
    for (int s = 0; s < num; s++)
        times_out[s].alone = times_out[s].seconds;
    *counted = (struct tv_kernel_times){0};
    TV_TRY(time_steps(tr, probe, options->num_warmup + (is_gpu ? num : 0), num, times_out,
                      beside_out));
    for (int s = 0; s < num && !is_gpu; s++)
        times_out[s].alone = times_out[s].seconds;
    return TV_OK;
}

/* ---- all ranks ---- */

/* A device like the trainer's, whose memory is then that of training alone, and kernels that are not counted. */
struct apart {
    struct tv_device *device;
    struct tv_stream *stream;
    struct tv_peak_args args;
};

static void apart_close(struct apart *apart)
{
    tv_stream_destroy(apart->stream);
    tv_device_close(apart->device);
}

static tv_status_t apart_open(struct tv_trainer *tr, const struct tv_bench_step_options *options,
                              struct apart *apart_out)
{
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    struct apart apart = {
        .args = {.world = world,
                 .matrix_size = options->matrix_size,
                 .tensor_bytes = ((int64_t)options->triad_mib << 20) / tv_comm_size(world),
                 .seconds = options->seconds}};
    tv_status_t status =
        tv_run_open_device(world, tr->run, tv_device_num_threads(tr->device), &apart.device);
    if (status == TV_OK)
        status = tv_stream_create(apart.device, &apart.stream);
    if (status == TV_OK)
        status = tv_kernels_open(apart.device, tr->run->dtype, &apart.args.kernels);
    apart.args.stream = apart.stream;
    if (status != TV_OK) {
        apart_close(&apart);
        apart = (struct apart){0};
    }
    *apart_out = apart;
    return status;
}

/* Doubles hold the calls exactly. */
static tv_status_t sum_kernels(struct tv_comm *world, struct tv_kernel_times *kernels)
{
    enum { FIELDS = 4 };
    double sums[TV_NUM_KERNELS * FIELDS];
    for (int k = 0; k < TV_NUM_KERNELS; k++) {
        const struct tv_kernel_count *count = &kernels->of[k];
        double *row = sums + FIELDS * k;
        row[0] = (double)count->calls;
        row[1] = count->seconds;
        row[2] = count->work.flops;
        row[3] = count->work.bytes;
    }
    TV_TRY(tv_comm_all_reduce_now(world, sums, TV_NUM_KERNELS * FIELDS, TV_F64, TV_SUM));
    for (int k = 0; k < TV_NUM_KERNELS; k++) {
        const double *row = sums + FIELDS * k;
        kernels->of[k] = (struct tv_kernel_count){(int64_t)row[0], row[1], {row[2], row[3]}};
    }
    return TV_OK;
}

static tv_status_t time_beside(struct tv_trainer *tr, const struct tv_bench_step_options *options,
                               const struct tv_peak_args *args, struct tv_step_time *own,
                               struct tv_step_bench *bench)
{
    struct tv_matrix_probe probe;
    if (tv_device_kind(tr->device) == TV_DEVICE_CUDA)
        return time_all_steps(tr, options, NULL, own, NULL);
    TV_TRY(tv_matrix_probe_open(args, &probe));
    const tv_status_t status = time_all_steps(tr, options, &probe, own, bench->beside);
    tv_matrix_probe_close(&probe);
    bench->has_beside = status == TV_OK;
    return status;
}

static tv_status_t measure_apart(struct tv_trainer *tr, const struct tv_bench_step_options *options,
                                 const struct tv_peak_args *args, struct tv_step_time *own,
                                 struct tv_step_bench *bench)
{
    TV_TRY(tv_peak_raise(args, &bench->peak));
    TV_TRY(time_beside(tr, options, args, own, bench));
    bench->kernels = *tr->run->kernel_times;
    return tv_peak_raise(args, &bench->peak);
}

static tv_status_t measure(struct tv_trainer *tr, const struct tv_bench_step_options *options,
                           struct tv_step_time *own, struct tv_step_bench *bench)
{
    enum { DOUBLES = sizeof(struct tv_step_time) / sizeof(double) };
    struct tv_comm *world = tv_mesh_world(tr->mesh);
    struct tv_request *request = NULL;
    struct apart apart;
    TV_TRY(apart_open(tr, options, &apart));
    const tv_status_t status = measure_apart(tr, options, &apart.args, own, bench);
    apart_close(&apart);
    TV_TRY(status);
    TV_TRY(sum_kernels(world, &bench->kernels));
    TV_TRY(tv_comm_all_gather(world, own, bench->times, (int64_t)options->num_steps * DOUBLES,
                              TV_F64, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    return tv_trainer_account_report(tr, &bench->account);
}

/* The table of times, with room behind it for this rank's own. */
static tv_status_t alloc_times(struct tv_step_bench *bench)
{
    const size_t count = (size_t)(bench->num_ranks + 1) * (size_t)bench->num_steps;
    bench->times = calloc(count, sizeof(*bench->times));
    bench->beside = calloc((size_t)bench->num_steps + 1, sizeof(*bench->beside));
    if (bench->times == NULL || bench->beside == NULL)
        return TV_ERR(TV_NO_MEMORY, "times of %zu steps", count);
    return TV_OK;
}

tv_status_t tv_step_bench_measure(struct tv_comm *world, struct tv_run *run,
                                  const struct tv_bench_step_options *options,
                                  struct tv_step_bench *bench_out, int *is_common_out)
{
    struct tv_trainer *tr = NULL;
    struct tv_kernel_times counted = {0};
    struct tv_step_bench bench = {.num_steps = options->num_steps,
                                  .num_ranks = tv_comm_size(world)};
    int first_failed;
    run->kernel_times = &counted;
    tv_status_t status = tv_train_prepare(world, run, &tr);
    if (status == TV_OK)
        status = tv_comm_agree(world, alloc_times(&bench), &first_failed);
    *is_common_out = status != TV_PEER;
    if (status == TV_OK) {
        bench.num_threads = tv_device_num_threads(tr->device);
        bench.flops_per_token = tr->flops_per_token;
        bench.tokens_per_step = run->global_batch * run->seq_length;
        status = measure(tr, options, bench.times + bench.num_ranks * bench.num_steps, &bench);
        *is_common_out = status == TV_NUMERIC;
    }
    tv_trainer_destroy(tr);
    run->kernel_times = NULL;
    if (status != TV_OK) {
        tv_step_bench_free(&bench);
        return status;
    }
    *bench_out = bench;
    return TV_OK;
}

void tv_step_bench_free(struct tv_step_bench *bench)
{
    free(bench->times);
    free(bench->beside);
    bench->times = NULL;
    bench->beside = NULL;
    tv_account_report_free(&bench->account);
}

/* ---- numbers of the table ---- */

static double seconds_of(const struct tv_step_bench *bench, int rank, int step, int part)
{
    const struct tv_step_time *time = &bench->times[rank * bench->num_steps + step];
    if (part == TV_WHOLE_ALONE)
        return time->alone;
    return part == TV_WHOLE ? time->seconds : time->parts[part];
}

static double rank_mean(const struct tv_step_bench *bench, int rank, int part)
{
    double sum = 0;
    for (int s = 0; s < bench->num_steps; s++)
        sum += seconds_of(bench, rank, s, part);
    return sum / bench->num_steps;
}

/* Of one step: the slowest rank's, or of a part the mean of the ranks. */
static double step_seconds(const struct tv_step_bench *bench, int step, int part)
{
    double seconds = 0;
    for (int r = 0; r < bench->num_ranks; r++) {
        const double own = seconds_of(bench, r, step, part);
        if (part >= 0)
            seconds += own / bench->num_ranks;
        else if (own > seconds)
            seconds = own;
    }
    return seconds;
}

tv_status_t tv_step_bench_spread(const struct tv_step_bench *bench, int part,
                                 struct tv_spread *spread_out)
{
    double *seconds = calloc((size_t)bench->num_steps, sizeof(*seconds));
    if (seconds == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d steps", bench->num_steps);
    for (int s = 0; s < bench->num_steps; s++)
        seconds[s] = step_seconds(bench, s, part);
    *spread_out = tv_spread_of(seconds, bench->num_steps);
    free(seconds);
    return TV_OK;
}

tv_status_t tv_step_bench_share(const struct tv_step_bench *bench, struct tv_spread *share_out)
{
    const double flops = (double)bench->tokens_per_step * bench->flops_per_token;
    double *shares = calloc((size_t)bench->num_steps, sizeof(*shares));
    if (shares == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d steps", bench->num_steps);
    for (int s = 0; s < bench->num_steps; s++) {
        const double peak = (bench->beside[s] + bench->beside[s + 1]) / 2;
        shares[s] = flops / step_seconds(bench, s, TV_WHOLE_ALONE) / peak;
    }
    *share_out = tv_spread_of(shares, bench->num_steps);
    free(shares);
    return TV_OK;
}

double tv_step_bench_mean(const struct tv_step_bench *bench, int part)
{
    double sum = 0;
    for (int r = 0; r < bench->num_ranks; r++)
        sum += rank_mean(bench, r, part);
    return sum / bench->num_ranks;
}

double tv_step_bench_slowest(const struct tv_step_bench *bench, int part)
{
    double most = 0;
    for (int r = 0; r < bench->num_ranks; r++) {
        const double mean = rank_mean(bench, r, part);
        most = mean > most ? mean : most;
    }
    return most;
}
