/* train/bench_collectives.h -- how fast large collectives among all ranks are, against what copying memory allows. */
#ifndef TV_TRAIN_BENCH_COLLECTIVES_H
#define TV_TRAIN_BENCH_COLLECTIVES_H
#include "mesh/comm.h"

TV_BEGIN_C
enum { TV_RATE_ALL_REDUCE, TV_RATE_REDUCE_SCATTER, TV_RATE_ALL_GATHER, TV_NUM_RATES };
const char *tv_rate_name(int rate); /* "all_reduce" */

/* GB/s that each rank receives, as if everything came once from where it lies: of b bytes among n ranks 2 (n-1)/n b for
 * an all_reduce, (n-1)/n b for the others. copy_gbps: bytes that each rank copies from one place of its memory to
 * another while all others do the same. By the slowest rank; medians over the rounds. */
struct tv_collective_rates {
    double copy_gbps, gbps[TV_NUM_RATES];
    /* Bytes a second that each rank must read and write at least, of what the copy in the same round does: for b bytes
     * the copy, an all_reduce and an all_gather 2 b, a reduce_scatter b + b / n. */
    double share_of_copy[TV_NUM_RATES];
};
/* A round is a copy and each collective, of `bytes` bytes of fp32; as many as fit into `seconds`, 5 at least.
 * Collective over comm; the same on every rank. Errors: TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_collective_rates_measure(struct tv_comm *comm, int64_t bytes,
                                                      double seconds,
                                                      struct tv_collective_rates *rates_out);
TV_END_C
#endif
