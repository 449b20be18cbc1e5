/* kernels/hopper_internal.h -- what Hopper's own kernels are made of (sm_90a alone): products of a warpgroup out of
 * shared memory (wgmma), copies of tiles by the tensor memory accelerator (TMA), barriers that count bytes (mbarrier),
 * named barriers, registers moved between warpgroups. PTX ISA: "Asynchronous Warpgroup Level Matrix Multiply-Accumulate
 * Instructions", "cp.async.bulk.tensor", "mbarrier", "setmaxnreg". nvcc takes the instruction, the emulation of the
 * tests takes a body in C++ from emulated_hopper.h.
 *
 * Tiles. A panel is [rows, 64] of bf16, a row in 128 bytes, at a multiple of 1024 bytes (tv_shared_1024); chunk c of 16
 * bytes of row r lies at c ^ (r % 8): TMA's SWIZZLE_128B. A tile of 128 columns is two panels one behind the other,
 * the second at rows * 128 bytes. Descriptors say how a product walks a panel; both kinds read the same panel:
 *   tv_k_major   the 64 columns are summed over (k): rows are the operand's rows (m or n). A step of 16 k is 32 bytes
 *                on; behind 64 columns the next panel. 8 rows are 1024 bytes (SBO); LBO is not used.
 *   tv_mn_major  the rows are summed over (k): columns are the operand's rows (m or n), "transposed". A step of 16 k is
 *                2048 bytes on (8 rows are 1024 bytes: SBO). Behind 64 columns the next panel, `panel` bytes on (LBO).
 *
 * Products. All 128 threads of a warpgroup (four warps, the first a multiple of four) call together. d[64, N] +=
 * a[64, 16] b[16, N]; warp w of the four has rows 16 w to 16 w + 15; with g = lane / 4 and t = lane % 4,
 *   d[4 j + e]   row g + 8 (e / 2), column 8 j + 2 t + e % 2        (of 16 rows)
 *   a (from registers): the a fragment of mma_internal.h: d[8 i ..] of one product, packed, is step i of the next
 * A group: tv_wgmma_fence, products, tv_wgmma_commit; tv_wgmma_wait<n> waits for all but the last n groups. Between, d
 * and the tiles must be left alone; tv_wgmma_keep(d) after the wait (and before the fence, where d was written) keeps
 * the compiler from moving uses of d across. What threads wrote into tiles needs tv_fence_async before the barrier
 * behind which a product or a bulk copy reads it. */
#ifndef TV_KERNELS_HOPPER_INTERNAL_H
#define TV_KERNELS_HOPPER_INTERNAL_H
#include "kernels/cuda_internal.h"
#include "kernels/mma_internal.h"
#include <cuda.h>

#define TV_HOPPER static __device__ __forceinline__

constexpr int tv_k_major = 0, tv_mn_major = 1;

/* ---- the host's part: hopper_cuda.cu ---- */

/* Is the stream's device of compute capability 9.0? */
inline bool tv_is_hopper(const tv_stream *stream)
{
    return tv_cuda_facts_of(stream)->capability == 90;
}

/* Blocks of a kernel of which a processor runs one, and whose blocks take task after task. */
inline unsigned tv_hopper_blocks(const tv_stream *stream, int tasks)
{
    const int processors = tv_cuda_facts_of(stream)->processors;
    return static_cast<unsigned>(processors < tasks ? processors : tasks);
}

/* Rows of bf16 for TMA: [batch, rows, cols], rows ld elements apart, sequences rows * ld. A box is [box_rows, 64];
 * what of it lies behind `rows` (or cols) comes as zeros, and is not stored. data and 2 ld: multiples of 16 bytes.
 * Errors: TV_INTERNAL, TV_UNSUPPORTED (a driver without tensor maps). */
tv_status_t tv_tensor_map(CUtensorMap *map, const void *data, int64_t cols, int64_t rows,
                          int64_t batch, int64_t ld, int box_rows);

/* ---- places ---- */

/* Ask for 1024 bytes more of dynamic shared memory than are used from here. */
template <typename T> TV_HOPPER T *tv_shared_1024(T *dynamic)
{
    const tv_shared_at at = tv_shared_place(dynamic);
    return dynamic + ((1024 - at % 1024) % 1024) / sizeof(T);
}

/* A panel as an operand whose k are its columns (tv_k_major), from a place in its first row or in row 8 i. */
TV_HOPPER uint64_t tv_wgmma_k_major(tv_shared_at at)
{
    return (static_cast<uint64_t>(at) & 0x3ffff) >> 4 | uint64_t(1) << 16 | uint64_t(64) << 32 |
           uint64_t(1) << 62;
}

/* A panel as an operand whose k are its rows (tv_mn_major). panel: bytes to the panel of the next 64 columns. */
TV_HOPPER uint64_t tv_wgmma_mn_major(tv_shared_at at, uint32_t panel)
{
    return (static_cast<uint64_t>(at) & 0x3ffff) >> 4 | static_cast<uint64_t>(panel >> 4) << 16 |
           uint64_t(64) << 32 | uint64_t(1) << 62;
}

/* The same operand `bytes` further on. The upper half, a constant, stays out of the sum. */
TV_HOPPER uint64_t tv_wgmma_on(uint64_t operand, uint32_t bytes)
{
    const uint32_t low = static_cast<uint32_t>(operand) + (bytes >> 4);
    return (operand >> 32) << 32 | low;
}

#ifdef __CUDACC__
/* x, the same in all lanes, in a register of the warp: descriptors that are made from it need no moves there. */
TV_HOPPER uint32_t tv_uniform(uint32_t x)
{
    uint32_t y;
    asm volatile("redux.sync.or.b32 %0, %1, 0xffffffff;\n" : "=r"(y) : "r"(x));
    return y;
}

/* Four 8 x 8 matrices of 16-bit elements into shared memory: lane 8 i + r says where row r of matrix i goes (16 bytes,
 * aligned); word i is elements (g, 2t) and (g, 2t + 1) of matrix i: what tv_ldmatrix reads. */
TV_HOPPER void tv_stmatrix(tv_shared_at row, const uint32_t (&word)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(row),
                 "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3])
                 : "memory");
}

/* ---- products ---- */
TV_HOPPER void tv_wgmma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
TV_HOPPER void tv_wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int groups> TV_HOPPER void tv_wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(groups) : "memory");
}
template <int n> TV_HOPPER void tv_wgmma_keep(float (&d)[n])
{
#pragma unroll
    for (int i = 0; i < n; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

#define TV_WGMMA_OUT_8(d, i)                                                                       \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define TV_WGMMA_OUT_32(d, i)                                                                      \
    TV_WGMMA_OUT_8(d, i), TV_WGMMA_OUT_8(d, i + 8), TV_WGMMA_OUT_8(d, i + 16),                     \
        TV_WGMMA_OUT_8(d, i + 24)
#define TV_WGMMA_NAMES_32                                                                          \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TV_WGMMA_NAMES_64                                                                          \
    TV_WGMMA_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "   \
                      "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "     \
                      "%60, %61, %62, %63"

/* d += a b, or d = a b where `adds` is false; N is twice the length of d: 64 or 128. Both from shared memory. */
template <int of_a, int of_b>
TV_HOPPER void tv_wgmma_ss(float (&d)[32], uint64_t a, uint64_t b, bool adds)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TV_WGMMA_NAMES_32
                 "}, %32, %33, p, 1, 1, %35, %36;\n}\n"
                 : TV_WGMMA_OUT_32(d, 0)
                 : "l"(a), "l"(b), "r"(static_cast<int>(adds)), "n"(of_a), "n"(of_b));
}
template <int of_a, int of_b>
TV_HOPPER void tv_wgmma_ss(float (&d)[64], uint64_t a, uint64_t b, bool adds)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" TV_WGMMA_NAMES_64
                 "}, %64, %65, p, 1, 1, %67, %68;\n}\n"
                 : TV_WGMMA_OUT_32(d, 0), TV_WGMMA_OUT_32(d, 32)
                 : "l"(a), "l"(b), "r"(static_cast<int>(adds)), "n"(of_a), "n"(of_b));
}

/* The same with a from registers. */
template <int of_b>
TV_HOPPER void tv_wgmma_rs(float (&d)[32], const uint32_t (&a)[4], uint64_t b, bool adds)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TV_WGMMA_NAMES_32
                 "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}\n"
                 : TV_WGMMA_OUT_32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)),
                   "n"(of_b));
}
template <int of_b>
TV_HOPPER void tv_wgmma_rs(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool adds)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" TV_WGMMA_NAMES_64
                 "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}\n"
                 : TV_WGMMA_OUT_32(d, 0), TV_WGMMA_OUT_32(d, 32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)),
                   "n"(of_b));
}

/* ---- barriers that count arrivals and bytes (mbarrier): phases alternate in parity, from 0 ---- */

/* By one thread; then tv_barriers_ready by it and __syncthreads. */
TV_HOPPER void tv_barrier_init(uint64_t *barrier, unsigned arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(tv_shared_place(barrier)),
                 "r"(arrivals)
                 : "memory");
}
TV_HOPPER void tv_barriers_ready(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;\n" ::
                     : "memory");
}
TV_HOPPER void tv_barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(tv_shared_place(barrier))
                 : "memory");
}
/* Arrives, and lets the phase last until so many bytes have come by TMA. */
TV_HOPPER void tv_barrier_arrive_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(tv_shared_place(barrier)),
        "r"(bytes)
        : "memory");
}
/* Until the phase of that parity is over. */
TV_HOPPER void tv_barrier_wait(uint64_t *barrier, unsigned parity)
{
    asm volatile("{\n.reg .pred is_over;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 is_over, [%0], %1;\n"
                 "@is_over bra over;\n"
                 "bra again;\n"
                 "over:\n}\n" ::"r"(tv_shared_place(barrier)),
                 "r"(parity)
                 : "memory");
}

/* ---- bulk copies: by one thread ---- */
TV_HOPPER void tv_tma_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];\n" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
}
/* The box from (column, row, sequence) to a panel; its bytes (all of the box) count at the barrier. map: a kernel's
 * parameter, __grid_constant__ const. */
TV_HOPPER void tv_tma_load(const CUtensorMap *map, void *panel, uint64_t *barrier, int col, int row,
                           int sequence)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];\n" ::"r"(tv_shared_place(panel)),
                 "l"(reinterpret_cast<uint64_t>(map)), "r"(tv_shared_place(barrier)), "r"(col),
                 "r"(row), "r"(sequence)
                 : "memory");
}
TV_HOPPER void tv_tma_store(const CUtensorMap *map, const void *panel, int col, int row,
                            int sequence)
{
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group "
                 "[%0, {%2, %3, %4}], [%1];\n" ::"l"(reinterpret_cast<uint64_t>(map)),
                 "r"(tv_shared_place(panel)), "r"(col), "r"(row), "r"(sequence)
                 : "memory");
}
/* to[i] = from[i]. All multiples of 16 bytes. */
TV_HOPPER void tv_bulk_store(float *to, const float *from, uint32_t bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n" ::"l"(
                     reinterpret_cast<uint64_t>(to)),
                 "r"(tv_shared_place(from)), "r"(bytes)
                 : "memory");
}
/* to[i] += from[i], each sum atomic and their order open. All multiples of 16 bytes. */
TV_HOPPER void tv_bulk_add(float *to, const float *from, uint32_t bytes)
{
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 "
                 "[%0], [%1], %2;\n" ::"l"(reinterpret_cast<uint64_t>(to)),
                 "r"(tv_shared_place(from)), "r"(bytes)
                 : "memory");
}
/* Groups of this thread's stores and adds. */
TV_HOPPER void tv_bulk_commit(void)
{
    asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}
/* Until all but the last `groups` are done, or (read) have read shared memory. */
template <int groups> TV_HOPPER void tv_bulk_wait(void)
{
    asm volatile("cp.async.bulk.wait_group %0;\n" ::"n"(groups) : "memory");
}
template <int groups> TV_HOPPER void tv_bulk_wait_read(void)
{
    asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(groups) : "memory");
}
TV_HOPPER void tv_fence_async(void)
{
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/* ---- warpgroups ---- */

/* All threads of a warpgroup: registers of each, a multiple of 8 from 24 to 240 (256 at most in all: 64 Ki). */
template <int registers> TV_HOPPER void tv_registers_fewer(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(registers));
}
template <int registers> TV_HOPPER void tv_registers_more(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(registers));
}
/* Named barriers 1 to 15 (0 is __syncthreads'), by whole warps: `threads` come in all; those who arrive go on at
 * once. */
TV_HOPPER void tv_named_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}
TV_HOPPER void tv_named_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}
#else
#include "emulated_hopper.h"
#endif
#endif
