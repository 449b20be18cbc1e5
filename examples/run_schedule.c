/* run_schedule -- runs a pipeline schedule with stage functions of your own.
 *
 *   mpiexec -n 4 ./run_schedule zb-v 8
 *
 * The model is a chain of one weight per position, y = w x, w = position + 1; the "loss" is the sum
 * of the last outputs. So dloss/dw of a position is the sum over micro-batches of the first inputs
 * times the other positions' weights, which the program checks. A stage holds one position, or
 * several chunks of the chain. */
#include <stdio.h>
#include <stdlib.h>
#include <trivet/mesh/comm_mpi.h>
#include <trivet/pipeline/executor.h>

enum { COUNT = 4, MAX_CHUNKS = 8, MAX_MICRO = 64 }; /* COUNT: floats of one message */

struct stage {
    int index;
    const struct tv_schedule *schedule;
    double dweight[MAX_CHUNKS];
    float x[MAX_MICRO][COUNT]; /* input of the first position, by micro-batch */
};

static void check(tv_status_t status)
{
    if (status == TV_OK)
        return;
    fprintf(stderr, "run_schedule: %s\n", tv_error_message());
    MPI_Abort(MPI_COMM_WORLD, tv_status_exit_code(status));
}

static float weight(const struct stage *stage, int chunk)
{
    return (float)(tv_schedule_position(stage->schedule, stage->index, chunk) + 1);
}

/* x is NULL at the first position: it makes its own input. y is NULL at the last. */
static tv_status_t forward(void *context, const struct tv_stage_call *call)
{
    struct stage *stage = context;
    const float *x = call->x;
    if (x == NULL) {
        for (int i = 0; i < COUNT; i++)
            stage->x[call->micro][i] = (float)((call->micro + i) % 8);
        x = stage->x[call->micro];
    }
    float *y = call->y;
    for (int i = 0; y != NULL && i < COUNT; i++)
        y[i] = weight(stage, call->chunk) * x[i];
    return TV_OK;
}

/* dy is NULL at the last position: dloss/dy = 1. dx is NULL at the first. */
static tv_status_t backward_input(void *context, const struct tv_stage_call *call)
{
    const float *dy = call->dy;
    float *dx = call->dx;
    for (int i = 0; dx != NULL && i < COUNT; i++)
        dx[i] = weight(context, call->chunk) * (dy != NULL ? dy[i] : 1.0f);
    return TV_OK;
}

/* x and dy are those of the input's part. */
static tv_status_t backward_weight(void *context, const struct tv_stage_call *call)
{
    struct stage *stage = context;
    const float *x = call->x != NULL ? call->x : stage->x[call->micro], *dy = call->dy;
    for (int i = 0; i < COUNT; i++)
        stage->dweight[call->chunk] += (dy != NULL ? dy[i] : 1.0) * x[i];
    return TV_OK;
}

static tv_status_t backward(void *context, const struct tv_stage_call *call)
{
    const tv_status_t status = backward_input(context, call);
    return status == TV_OK ? backward_weight(context, call) : status;
}

/* dloss/dw = (product of the other positions' weights) x (sum of all first inputs) */
static double expected_gradient(const struct stage *stage, int chunk)
{
    const struct tv_schedule *s = stage->schedule;
    double inputs = 0, others = 1;
    for (int m = 0; m < s->num_micro; m++)
        for (int i = 0; i < COUNT; i++)
            inputs += (m + i) % 8;
    for (int p = 0; p < s->num_stages * s->num_chunks; p++)
        others *= p == tv_schedule_position(s, stage->index, chunk) ? 1 : p + 1;
    return inputs * others;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "1f1b";
    const int num_micro = argc > 2 ? atoi(argv[2]) : 8;
    struct tv_comm *world;
    struct tv_device *device;
    struct tv_stream *stream;
    struct tv_schedule schedule;
    struct tv_executor *executor;
    struct tv_executor_report report;

    check(tv_comm_mpi_world(&world)); /* starts MPI; destroying it ends MPI */
    check(tv_device_open(TV_DEVICE_CPU, 1, &device));
    check(tv_stream_create(device, &stream));
    check(num_micro <= MAX_MICRO ? TV_OK
                                 : TV_ERR(TV_INVALID, "at most %d micro-batches", MAX_MICRO));
    const struct tv_schedule_args args = {
        .name = name,
        .num_stages = tv_comm_size(world),
        .num_chunks = tv_schedule_is_known(name) ? tv_schedule_default_chunks(name) : 1,
        .num_micro = num_micro};
    check(tv_schedule_build(&args, &schedule));
    check(tv_executor_create(world, stream, &schedule, COUNT, TV_F32, &executor));

    struct stage stage = {.index = tv_comm_rank(world), .schedule = &schedule};
    const struct tv_stage_functions functions = {&stage, forward, backward, backward_input,
                                                 backward_weight};
    check(tv_executor_run(executor, &functions, &report));

    int failed = 0;
    for (int c = 0; c < schedule.num_chunks; c++) {
        const double want = expected_gradient(&stage, c);
        printf("stage %d of %s, chunk %d: dw = %g (expected %g), %d slots\n", stage.index,
               schedule.name, c, stage.dweight[c], want,
               tv_schedule_chunk_slots(&schedule, stage.index, c));
        failed |= stage.dweight[c] != want;
    }
    printf("stage %d waited %.0f %% of its time\n", stage.index,
           100 * (report.warmup_seconds + report.wait_seconds + report.drain_seconds) /
               (report.ended - report.started));

    tv_executor_destroy(executor);
    tv_schedule_destroy(&schedule);
    tv_stream_destroy(stream);
    tv_device_close(device);
    tv_comm_destroy(world);
    return failed;
}
