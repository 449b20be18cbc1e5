/* data/muon.h -- Muon for one matrix of a layer.
 *
 * m = momentum m + g; u = g + momentum m (Nesterov); p -= lr (s O(u) + weight_decay p). O makes a
 * matrix [r, c] nearly orthogonal: from X = u / ||u||, five times
 *     A = X X^T (or X^T X, the smaller one),  X = a X + (b A + c A A) X
 * with (a, b, c) = (3.4445, -4.7750, 2.0315), after which singular values lie within about 0.7..1.2
 * (Jordan et al. 2024). s = 0.2 sqrt(max(r, c)) gives an update the root mean square of AdamW's, so
 * that both can share a learning rate (Liu et al. 2025, arXiv:2502.16982).
 *
 * A fused query/key/value matrix is three matrices. A matrix that is cut over the tensor axis is
 * gathered, and every rank works out the whole O: any T gives the update of T = 1. */
#ifndef TV_DATA_MUON_H
#define TV_DATA_MUON_H
#include "base/param.h"
#include "kernels/kernels.h"
#include "mesh/comm.h"

TV_BEGIN_C
struct tv_muon_args {
    struct tv_stream *stream;
    const struct tv_kernels *kernels;
    struct tv_comm *tensor;
    const struct tv_param *matrix;
    float *param, *m;  /* this rank's piece */
    const float *grad; /* of it */
    double lr, momentum, weight_decay, grad_scale;
    float *work; /* [tv_muon_work_count] */
};
/* Collective over the tensor axis. */
TV_MUST_CHECK tv_status_t tv_muon_step(const struct tv_muon_args *args);
/* Floats to work in, for a matrix cut over T ranks. */
int64_t tv_muon_work_count(const struct tv_param *matrix, int T);
/* O of x [rows, cols] on this rank alone, for tv_muon_step and tests. work: [rows cols + 2 n n], n =
 * min(rows, cols); x is overwritten, the result is the returned pointer, x or a part of work. */
TV_MUST_CHECK tv_status_t tv_muon_orthogonalize(struct tv_stream *stream,
                                                const struct tv_kernels *kernels, int64_t rows,
                                                int64_t cols, float *x, float *work,
                                                const float **result_out);
TV_END_C
#endif
