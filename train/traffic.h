/* train/traffic.h -- what a training step sends, for the mapper: bytes per step and group that each
 * axis puts on a cut between machines.
 *
 * With B S C the micro-batch, sequence and channels, m micro-batches, v chunks, T, D, P the axes,
 * L_r layers and P_r parameters on the fullest rank, a bytes per activation, g and q bytes per
 * gradient and per gathered parameter:
 *   tensor  2 (T-1)/T  a B S C  4 L_r m   4 all-reduces per layer, forward and backward; 6 with full
 *                                         recomputation
 *   pipe    m v a B S C                   one pair of neighbours, one direction; 1/T of it with
 *                                         sequence parallelism
 *   data    (D-1)/D (g + q) P_r           a reduce-scatter and an all-gather; under --zero-stage 2
 *                                         m g for g, 3 2 m q for q too (3 m q with full recomputation)
 * With --zero-group-size N that is (N-1)/N of the same, of a group, and 2 (1 - N/D) g P_r / N for the
 * sums over the copies; before the group is known, N = D.
 * A ring that visits machine after machine crosses each cut once each way, whatever the number of
 * members inside. First and last stage hold the embedding and the head, both when they are tied.
 * Rounds, which each wait for a latency: 2 4 L_r m (6 for 4) of the tensor axis, m v of the pipe, 2 of
 * the data axis. */
#ifndef TV_TRAIN_TRAFFIC_H
#define TV_TRAIN_TRAFFIC_H
#include "mesh/mapper.h"
#include "train/run.h"

TV_BEGIN_C
/* Bytes. */
struct tv_traffic_sizes {
    int activation, gradient, gathered;
};

/* run: model, extent, ZeRO, batch, chunks, pieces and recomputation resolved; where it has no schedule,
 * pieces lie as its options' schedule (or none: in a loop) places them. alpha stays 0, exposed
 * shares 1. Errors: TV_NO_MEMORY, and those of tv_model_param_table. */
TV_MUST_CHECK tv_status_t tv_run_traffic(const struct tv_run *run, struct tv_traffic_sizes sizes,
                                         struct tv_traffic *traffic_out);
TV_END_C
#endif
