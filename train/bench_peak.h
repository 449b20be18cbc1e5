/* train/bench_peak.h -- what the ranks of a job can do at most, all at once, through trivet's own kernels: FLOPs of one
 * large square product, bytes of the sum of two tensors that are too large for a cache (STREAM's add: each
 * element of three tensors once). */
#ifndef TV_TRAIN_BENCH_PEAK_H
#define TV_TRAIN_BENCH_PEAK_H
#include "kernels/kernels.h"
#include "mesh/comm.h"

TV_BEGIN_C
struct tv_peak_args {
    struct tv_comm *world;
    struct tv_stream *stream;         /* with the threads that are measured */
    const struct tv_kernels *kernels; /* whose dtype the tensors have */
    int matrix_size;                  /* n of c[n, n] = a[n, n] b[n, n] */
    int64_t tensor_bytes; /* of each of the three tensors of the sum, of this rank; >= 4 */
    double seconds;       /* of each of the two, about; 3 rounds at least */
};
/* Of all ranks together: work of a round by the time of its slowest rank, the best round. */
struct tv_peak {
    double flops_per_second, bytes_per_second;
    double median_flops_per_second; /* of the median round, for a step's median */
};
/* Measures and keeps the better of what `peak` held and of now; {0}: of now. Collective over world; the same result on
 * every rank. Errors: TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_peak_raise(const struct tv_peak_args *args, struct tv_peak *peak);

/* Single rounds of the product, for the rate just before or after something else: what a machine can do moves from
 * second to second where others share it. */
struct tv_matrix_probe {
    struct tv_peak_args args; /* tensor_bytes and seconds are not looked at */
    struct tv_buffer buffer;
};
/* Collective over args->world, as all three; with one round to warm up. What args point to must live as long.
 * Errors: TV_NO_MEMORY, TV_PEER; the probe is {0} then. */
TV_MUST_CHECK tv_status_t tv_matrix_probe_open(const struct tv_peak_args *args,
                                               struct tv_matrix_probe *probe_out);
TV_MUST_CHECK tv_status_t tv_matrix_probe_round(const struct tv_matrix_probe *probe,
                                                double *flops_per_second_out);
void tv_matrix_probe_close(struct tv_matrix_probe *probe);

/* data [count] of a dtype that is TV_F32 or TV_BF16, on the stream's device, becomes standard
 * normal numbers, the same 16384 again and again. Memory that was never written may be one page of zeros, which is
 * faster than memory is. */
TV_MUST_CHECK tv_status_t tv_bench_fill(struct tv_stream *stream, void *data, int64_t count,
                                        tv_dtype_t dtype);
TV_END_C
#endif
