/* run_schedule -- runs a pipeline schedule with stage functions of your own.
 *
 *   mpiexec -n 4 ./run_schedule 1f1b 8
 *
 * The model is a chain of one weight per stage, y = w x; the "loss" is the sum of the last outputs.
 * So dloss/dw of stage r is the sum over micro-batches of the inputs times the other stages'
 * weights, which the program checks. */
#include <stdio.h>
#include <stdlib.h>
#include <trivet/mesh/comm_mpi.h>
#include <trivet/pipeline/executor.h>

enum { COUNT = 4 }; /* floats of one message */

struct stage {
    int index, num_stages;
    float weight, dweight;
    float x[64][COUNT]; /* input of the first stage, by micro-batch */
};

static void check(tv_status_t status)
{
    if (status == TV_OK)
        return;
    fprintf(stderr, "run_schedule: %s\n", tv_error_message());
    MPI_Abort(MPI_COMM_WORLD, tv_status_exit_code(status));
}

/* x is NULL on the first stage: it makes its own input. y is NULL on the last. */
static tv_status_t forward(void *context, const struct tv_stage_call *call)
{
    struct stage *stage = context;
    const float *x = call->x;
    if (x == NULL) {
        for (int i = 0; i < COUNT; i++)
            stage->x[call->micro][i] = (float)(call->micro + i);
        x = stage->x[call->micro];
    }
    for (int i = 0; call->y != NULL && i < COUNT; i++)
        call->y[i] = stage->weight * x[i];
    return TV_OK;
}

/* dy is NULL on the last stage: dloss/dy = 1. dx is NULL on the first. */
static tv_status_t backward(void *context, const struct tv_stage_call *call)
{
    struct stage *stage = context;
    const float *x = call->x != NULL ? call->x : stage->x[call->micro];
    for (int i = 0; i < COUNT; i++) {
        const float dy = call->dy != NULL ? call->dy[i] : 1.0f;
        stage->dweight += dy * x[i];
        if (call->dx != NULL)
            call->dx[i] = dy * stage->weight;
    }
    return TV_OK;
}

/* dloss/dw = (product of the other stages' weights) x (sum of all first inputs) */
static float expected_gradient(const struct stage *stage, int num_micro)
{
    float inputs = 0, others = 1;
    for (int m = 0; m < num_micro; m++)
        for (int i = 0; i < COUNT; i++)
            inputs += (float)(m + i);
    for (int s = 0; s < stage->num_stages; s++)
        others *= s == stage->index ? 1 : (float)(s + 1);
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
    check(num_micro <= 64 ? TV_OK : TV_ERR(TV_INVALID, "at most 64 micro-batches"));
    const struct tv_schedule_args args = {
        .name = name, .num_stages = tv_comm_size(world), .num_chunks = 1, .num_micro = num_micro};
    check(tv_schedule_build(&args, &schedule));
    check(tv_executor_create(world, stream, &schedule, COUNT, &executor));

    struct stage stage = {.index = tv_comm_rank(world), .num_stages = tv_comm_size(world)};
    stage.weight = (float)(stage.index + 1);
    const struct tv_stage_functions functions = {&stage, forward, backward};
    check(tv_executor_run(executor, &functions, &report));

    const float want = expected_gradient(&stage, num_micro);
    printf("stage %d of %s: dw = %g (expected %g), %d slots, waited %.0f %%\n", stage.index,
           schedule.name, (double)stage.dweight, (double)want, tv_executor_num_slots(executor),
           100 * report.wait_seconds / report.window_seconds);
    const int failed = stage.dweight != want;

    tv_executor_destroy(executor);
    tv_schedule_destroy(&schedule);
    tv_stream_destroy(stream);
    tv_device_close(device);
    tv_comm_destroy(world);
    return failed;
}
