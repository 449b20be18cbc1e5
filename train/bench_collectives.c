/* train/bench_collectives.c -- rounds of a copy and of collectives, one after the other, so that what disturbs one
 * disturbs all. */
#include "train/bench_collectives.h"
#include "base/clock.h"
#include "base/device.h"
#include "train/run_device.h"
#include "train/spread.h"
#include <stdlib.h>
#include <string.h>

enum { LEAST_ROUNDS = 5, MOST_ROUNDS = 500, COPY = TV_NUM_RATES, NUM_TIMED };

/* Two places of memory, one for each end of a copy: buffers as those of weights and gradients. */
struct ends {
    struct tv_comm *comm;
    struct tv_device *device;
    struct tv_buffer buffers[2];
    float *from, *to;       /* [count] */
    int64_t count, of_rank; /* of_rank: a multiple of it is `count` */
};

const char *tv_rate_name(int rate)
{
    static const char *const names[] = {"all_reduce", "reduce_scatter", "all_gather"};
    return names[rate];
}

static tv_status_t run(const struct ends *e, int what)
{
    struct tv_request *request = NULL;
    switch (what) {
    case TV_RATE_ALL_REDUCE:
        TV_TRY(tv_comm_all_reduce(e->comm, e->from, e->count, TV_F32, TV_SUM, NULL, &request));
        break;
    case TV_RATE_REDUCE_SCATTER:
        TV_TRY(tv_comm_reduce_scatter(e->comm, e->from, e->to, e->of_rank, TV_F32, TV_SUM, NULL,
                                      &request));
        break;
    case TV_RATE_ALL_GATHER:
        TV_TRY(tv_comm_all_gather(e->comm, e->from, e->to, e->of_rank, TV_F32, NULL, &request));
        break;
    default:
        memcpy(e->to, e->from, (size_t)e->count * sizeof(*e->to));
    }
    return tv_request_wait(&request);
}

/* What each rank receives in it. */
static double received_bytes(const struct ends *e, int what)
{
    const double peers = tv_comm_size(e->comm) - 1, of_rank = (double)e->of_rank * sizeof(float);
    return what == COPY ? of_rank * (peers + 1)
                        : of_rank * peers * (what == TV_RATE_ALL_REDUCE ? 2 : 1);
}

/* What each rank must read and write at least: of b bytes among n ranks, all b of what it adds up or gathers, and the
 * result; by an all_reduce n pieces of b / n and as many copies of their sum. */
static double moved_bytes(const struct ends *e, int what)
{
    const double all = (double)e->count * sizeof(float);
    return what == TV_RATE_REDUCE_SCATTER ? all + all / tv_comm_size(e->comm) : 2 * all;
}

/* Seconds of the slowest rank. */
static tv_status_t time_one(const struct ends *e, int what, double *seconds_out)
{
    TV_TRY(tv_comm_barrier(e->comm));
    const double started = tv_clock_seconds();
    TV_TRY(run(e, what));
    *seconds_out = tv_clock_seconds() - started;
    return tv_comm_all_reduce_now(e->comm, seconds_out, 1, TV_F64, TV_MAX);
}

/* All ranks see the same times, so all do the same number of rounds. */
static tv_status_t time_rounds(const struct ends *e, double seconds,
                               double times[NUM_TIMED][MOST_ROUNDS], int *num_out)
{
    double spent = 0, warm;
    for (int what = 0; what < NUM_TIMED; what++)
        TV_TRY(time_one(e, what, &warm));
    int num = 0;
    for (; num < MOST_ROUNDS && (num < LEAST_ROUNDS || spent < seconds); num++) {
        for (int what = 0; what < NUM_TIMED; what++) {
            TV_TRY(time_one(e, what, &times[what][num]));
            spent += times[what][num];
        }
    }
    *num_out = num;
    return TV_OK;
}

static void take_medians(const struct ends *e, double times[NUM_TIMED][MOST_ROUNDS], int num,
                         struct tv_collective_rates *rates)
{
    double shares[MOST_ROUNDS];
    for (int what = 0; what < TV_NUM_RATES; what++) {
        const double bytes = received_bytes(e, what);
        for (int i = 0; i < num; i++)
            shares[i] =
                moved_bytes(e, what) / times[what][i] / (moved_bytes(e, COPY) / times[COPY][i]);
        rates->share_of_copy[what] = tv_median(shares, num);
        rates->gbps[what] = bytes / tv_median(times[what], num) * 1e-9;
    }
    rates->copy_gbps = received_bytes(e, COPY) / tv_median(times[COPY], num) * 1e-9;
}

/* No page is new later; a sum of zeros stays one. */
static tv_status_t open_ends(struct ends *e)
{
    const size_t bytes = (size_t)e->count * sizeof(float);
    TV_TRY(tv_open_rank_cpu(e->comm, 1, &e->device));
    for (int i = 0; i < 2; i++)
        TV_TRY(tv_buffer_create(e->device, bytes, TV_MEM_BUFFERS, &e->buffers[i]));
    e->from = e->buffers[0].data;
    e->to = e->buffers[1].data;
    return TV_OK;
}

static void close_ends(struct ends *e)
{
    for (int i = 0; i < 2; i++)
        tv_buffer_destroy(&e->buffers[i]);
    tv_device_close(e->device);
}

tv_status_t tv_collective_rates_measure(struct tv_comm *comm, int64_t bytes, double seconds,
                                        struct tv_collective_rates *rates_out)
{
    const int size = tv_comm_size(comm);
    const int64_t of_rank = bytes / (int64_t)sizeof(float) / size;
    struct ends ends = {.comm = comm, .count = of_rank * size, .of_rank = of_rank};
    double(*times)[MOST_ROUNDS] = malloc(sizeof(double[NUM_TIMED][MOST_ROUNDS]));
    int first_failed, num = 0;
    tv_status_t status = open_ends(&ends);
    if (status == TV_OK && times == NULL)
        status = TV_ERR(TV_NO_MEMORY, "times of %d rounds", MOST_ROUNDS);
    status = tv_comm_agree(comm, status, &first_failed);
    if (status == TV_OK)
        status = time_rounds(&ends, seconds, times, &num);
    if (status == TV_OK)
        take_medians(&ends, times, num, rates_out);
    close_ends(&ends);
    free(times);
    return status;
}
