// probe_hopper.h -- kernels of Hopper's instructions, some with planted faults, for the tests of the emulation itself.
#ifndef TV_TESTS_EMULATION_PROBE_HOPPER_H
#define TV_TESTS_EMULATION_PROBE_HOPPER_H
#include <cstdint>
#include <cuda_runtime.h>

enum ProbeFault {
    probe_right,
    probe_no_fence,       // before the products
    probe_no_wait,        // for the products
    probe_changed,        // d, while the products are under way
    probe_other_operand,  // in one warp
    probe_no_barrier,     // threads do not wait for the tiles
    probe_too_few_bytes,  // come: the barrier's phase never ends
    probe_early_overwrite // of a tile, before the products are over
};
struct ProbeProduct {
    int columns;           // 64 or 128
    bool has_a;            // in registers
    bool is_a_mn, is_b_mn; // major
    int rows_there;        // of a and b in memory; what is behind comes as zeros
    ProbeFault fault;
};
// d[64, columns] = a[64, 64] b[64, columns] by one warpgroup. In memory, of bf16: a [64, 64] (m, k), or (k, m) where
// is_a_mn; b [columns, 64] (n, k), or [64, columns] (k, n) where is_b_mn.
cudaError_t probe_warpgroup(cudaStream_t stream, const uint16_t *a, const uint16_t *b, float *d,
                            const ProbeProduct &product);
// Rows 3 to 66 of x [80, 64] through shared memory to y [70, 64], of bf16; z[0 .. 63] += 1 twice, in bulk.
cudaError_t probe_bulk(cudaStream_t stream, const uint16_t *x, uint16_t *y, float *z,
                       bool has_wait);
// Four warps take turns by named barriers: each appends its number. order[4]
cudaError_t probe_turns(cudaStream_t stream, float *order, bool all_arrive);
#endif
