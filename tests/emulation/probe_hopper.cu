// probe_hopper.cu -- small kernels of Hopper's instructions, some of them wrong.
#include "emulation/probe_hopper.h"
#include "kernels/hopper_internal.h"

namespace
{
constexpr int panel = 64 * 128; // bytes of 64 rows

// A step of 16 k of an operand whose tile of 64 k starts there.
uint64_t step(const unsigned char *tile, bool is_mn, int k)
{
    return is_mn ? tv_wgmma_on(tv_wgmma_mn_major(tv_shared_place(tile), panel), k * 2048u)
                 : tv_wgmma_on(tv_wgmma_k_major(tv_shared_place(tile)), k * 32u);
}

template <int n>
void multiply(float (&d)[n], const ProbeProduct &p, const uint32_t (&held)[4][4],
              const unsigned char *a, const unsigned char *b)
{
    for (int k = 0; k < 4; k++) {
        const bool is_other = p.fault == probe_other_operand && threadIdx.x / 32 == 2;
        const uint64_t at_a = step(a, p.is_a_mn, is_other ? 0 : k), at_b = step(b, p.is_b_mn, k);
        if (p.has_a && p.is_b_mn)
            tv_wgmma_rs<tv_mn_major>(d, held[k], at_b, k > 0);
        else if (p.has_a)
            tv_wgmma_rs<tv_k_major>(d, held[k], at_b, k > 0);
        else if (p.is_a_mn && p.is_b_mn)
            tv_wgmma_ss<tv_mn_major, tv_mn_major>(d, at_a, at_b, k > 0);
        else if (p.is_a_mn)
            tv_wgmma_ss<tv_mn_major, tv_k_major>(d, at_a, at_b, k > 0);
        else if (p.is_b_mn)
            tv_wgmma_ss<tv_k_major, tv_mn_major>(d, at_a, at_b, k > 0);
        else
            tv_wgmma_ss<tv_k_major, tv_k_major>(d, at_a, at_b, k > 0);
    }
}

struct Maps {
    CUtensorMap a, b;
};

template <int n> void product(const Maps maps, const uint16_t *a, float *d, const ProbeProduct p)
{
    TV_SHARED_DYNAMIC(unsigned char, dynamic);
    __shared__ uint64_t barrier;
    unsigned char *tile_a = tv_shared_1024(dynamic), *tile_b = tile_a + panel;
    const int b_panels = p.is_b_mn ? n / 32 : 1, b_rows = p.is_b_mn ? 64 : 2 * n;
    if (threadIdx.x == 0) {
        tv_barrier_init(&barrier, 1);
        tv_barriers_ready();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        tv_tma_prefetch(&maps.a);
        const int more = p.fault == probe_too_few_bytes ? 16 : 0;
        tv_barrier_arrive_expect(&barrier,
                                 static_cast<uint32_t>(panel + b_panels * b_rows * 128 + more));
        tv_tma_load(&maps.a, tile_a, &barrier, 0, 0, 0);
        for (int i = 0; i < b_panels; i++)
            tv_tma_load(&maps.b, tile_b + i * panel, &barrier, 64 * i, 0, 0);
    }
    if (p.fault != probe_no_barrier)
        tv_barrier_wait(&barrier, 0);

    const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    uint32_t held[4][4];
    for (unsigned i = 0; i < 16; i++) {
        const unsigned at = (row + i % 2 * 8) * 64 + i / 4 * 16 + i % 4 / 2 * 8 + lane % 4 * 2;
        held[i / 4][i % 4] = a[at] | static_cast<uint32_t>(a[at + 1]) << 16;
    }
    float sum[n];
    if (p.fault != probe_no_fence)
        tv_wgmma_fence();
    multiply(sum, p, held, tile_a, tile_b);
    tv_wgmma_commit();
    if (p.fault == probe_changed)
        sum[3] = 7;
    if (p.fault == probe_early_overwrite && threadIdx.x == 0) {
        tv_barrier_arrive_expect(&barrier, panel);
        tv_tma_load(&maps.a, tile_a, &barrier, 0, 0, 0);
    }
    if (p.fault != probe_no_wait)
        tv_wgmma_wait<0>();
    tv_wgmma_keep(sum);
    for (unsigned i = 0; i < n; i++)
        d[(row + i % 4 / 2 * 8) * 2 * n + i / 4 * 8 + lane % 4 * 2 + i % 2] = sum[i];
    if (p.fault == probe_early_overwrite)
        tv_barrier_wait(&barrier, 1);
}

CUtensorMap map_of(const uint16_t *data, int cols, int rows, int box_rows)
{
    using Encode = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    void *function = nullptr;
    cudaDriverEntryPointQueryResult result;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                     &result);
    const cuuint64_t dims[3] = {(cuuint64_t)cols, (cuuint64_t)rows, 1};
    const cuuint64_t strides[2] = {(cuuint64_t)cols * 2, (cuuint64_t)cols * (cuuint64_t)rows * 2};
    const cuuint32_t box[3] = {64, (cuuint32_t)box_rows, 1}, steps[3] = {1, 1, 1};
    CUtensorMap map = {};
    reinterpret_cast<Encode>(function)(
        &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<uint16_t *>(data), dims, strides, box,
        steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return map;
}

// x: 64 rows from row 3, of 80; y: 70 rows, of which the store's second half has 6.
void bulk(const Maps maps, float *z, bool has_wait)
{
    TV_SHARED_DYNAMIC(unsigned char, dynamic);
    __shared__ uint64_t barrier;
    unsigned char *tile = tv_shared_1024(dynamic);
    float *ones = reinterpret_cast<float *>(tile + panel);
    if (threadIdx.x == 0)
        tv_barrier_init(&barrier, 1);
    if (threadIdx.x < 64)
        ones[threadIdx.x] = 1;
    tv_fence_async();
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    tv_barrier_arrive_expect(&barrier, panel);
    tv_tma_load(&maps.a, tile, &barrier, 0, 3, 0);
    tv_barrier_wait(&barrier, 0);
    tv_tma_store(&maps.b, tile, 0, 0, 0);
    tv_tma_store(&maps.b, tile, 0, 64, 0); // 6 rows of it
    tv_bulk_add(z, ones, 256);
    tv_bulk_commit();
    tv_bulk_add(z, ones, 256);
    tv_bulk_commit();
    if (has_wait) {
        tv_bulk_wait_read<1>();
        tv_bulk_wait<0>();
    }
}

void turns(float *order, bool all_arrive)
{
    __shared__ int count;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x == 0)
        count = 0;
    __syncthreads();
    if (warp < 3)
        tv_named_sync(1 + warp, 64); // warp 3 is first, warp 0 last
    if (threadIdx.x % 32 == 0)
        order[count++] = static_cast<float>(warp);
    __syncwarp();
    if (warp > 0 && (all_arrive || warp != 2))
        tv_named_arrive(warp, 64);
}

template <typename... Params, typename... Args>
cudaError_t start(cudaStream_t stream, void (*kernel)(Params...), Args... args)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = 1;
    config.blockDim = 128;
    config.dynamicSmemBytes = 4 * panel + 1024;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, args...);
}
} // namespace

cudaError_t probe_warpgroup(cudaStream_t stream, const uint16_t *a, const uint16_t *b, float *d,
                            const ProbeProduct &p)
{
    const Maps maps = {map_of(a, 64, p.rows_there, 64), p.is_b_mn
                                                            ? map_of(b, p.columns, p.rows_there, 64)
                                                            : map_of(b, 64, p.columns, p.columns)};
    return p.columns == 64 ? start(stream, product<32>, maps, a, d, p)
                           : start(stream, product<64>, maps, a, d, p);
}

cudaError_t probe_bulk(cudaStream_t stream, const uint16_t *x, uint16_t *y, float *z, bool has_wait)
{
    return start(stream, bulk, Maps{map_of(x, 64, 80, 64), map_of(y, 64, 70, 64)}, z, has_wait);
}

cudaError_t probe_turns(cudaStream_t stream, float *order, bool all_arrive)
{
    return start(stream, turns, order, all_arrive);
}
