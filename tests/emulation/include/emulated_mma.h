// emulated_mma.h -- the bodies of kernels/mma_internal.h for the emulation: the lanes of a warp bring their fragments,
// the last one computes for all. Layouts: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix".
//
// An asynchronous copy happens when its thread waits for its group, not before, and from then on nothing of it is left
// to do: what is read without a wait, or overwritten between start and wait, shows.
#ifndef TV_TESTS_EMULATION_EMULATED_MMA_H
#define TV_TESTS_EMULATION_EMULATED_MMA_H
#include "base/dtype.h"
#include <cuda_runtime.h>

namespace emulation
{
struct Product {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
};
// Half of a word: element 0 is the lower one.
inline float element(uint32_t word, int which)
{
    return tv_bf16_to_f32(static_cast<uint16_t>(which != 0 ? word >> 16 : word & 0xffffu));
}
inline void multiply(void *const lanes[32], unsigned)
{
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const Product *from = static_cast<const Product *>(lanes[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 8; i++)
            a[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = element(from->a[i / 2], i % 2);
        for (int i = 0; i < 4; i++)
            b[2 * t + i % 2 + i / 2 * 8][g] = element(from->b[i / 2], i % 2);
    }
    for (int lane = 0; lane < 32; lane++) {
        float *c = static_cast<const Product *>(lanes[lane])->c;
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
            for (int k = 0; k < 16; k++)
                c[i] += a[row][k] * b[k][col];
        }
    }
}

struct Matrices {
    uint32_t *word;
    const uint16_t *row;
};
template <bool is_transposed> void load_matrices(void *const lanes[32], unsigned)
{
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            uint32_t pair[2];
            for (int e = 0; e < 2; e++) {
                const int row = is_transposed ? lane % 4 * 2 + e : lane / 4;
                const int col = is_transposed ? lane / 4 : lane % 4 * 2 + e;
                pair[e] = static_cast<const Matrices *>(lanes[8 * i + row])->row[col];
            }
            static_cast<Matrices *>(lanes[lane])->word[i] = pair[0] | pair[1] << 16;
        }
    }
}

struct MatricesOut {
    const uint32_t *word;
    uint16_t *row;
};
inline void store_matrices(void *const lanes[32], unsigned)
{
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            const uint32_t word = static_cast<const MatricesOut *>(lanes[lane])->word[i];
            uint16_t *to =
                static_cast<const MatricesOut *>(lanes[8 * i + lane / 4])->row + lane % 4 * 2;
            to[0] = static_cast<uint16_t>(word);
            to[1] = static_cast<uint16_t>(word >> 16);
        }
    }
}

// The copies of the calling thread: emulated_copies.cc. is_there: else zeros.
void start_copy(void *to, const void *from, size_t bytes, bool is_there);
void commit_copies();
void wait_for_copies(int groups_left);
} // namespace emulation

typedef uintptr_t tv_shared_at;
inline tv_shared_at tv_shared_place(const void *data)
{
    return reinterpret_cast<uintptr_t>(data);
}

inline void tv_mma_16x8x16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
                           tv_site site = tv_site::here())
{
    emulation::Product mine = {c, a, {b0, b1}};
    emulation::meet_warp(0xffffffffu, &mine, emulation::multiply, "mma", site);
}

template <bool is_transposed>
void tv_emulated_ldmatrix(uint32_t word[4], tv_shared_at row, tv_site site)
{
    if (row % 16 != 0)
        emulation::fail("ldmatrix of a row that is not 16-byte aligned");
    emulation::Matrices mine = {word, reinterpret_cast<const uint16_t *>(row)};
    emulation::meet_warp(0xffffffffu, &mine, emulation::load_matrices<is_transposed>, "ldmatrix",
                         site);
}
inline void tv_ldmatrix(uint32_t word[4], tv_shared_at row, tv_site site = tv_site::here())
{
    tv_emulated_ldmatrix<false>(word, row, site);
}
inline void tv_ldmatrix_transposed(uint32_t word[4], tv_shared_at row,
                                   tv_site site = tv_site::here())
{
    tv_emulated_ldmatrix<true>(word, row, site);
}

inline void tv_stmatrix(tv_shared_at row, const uint32_t (&word)[4], tv_site site = tv_site::here())
{
    if (row % 16 != 0)
        emulation::fail("stmatrix to a row that is not 16-byte aligned");
    emulation::MatricesOut mine = {word, reinterpret_cast<uint16_t *>(row)};
    emulation::meet_warp(0xffffffffu, &mine, emulation::store_matrices, "stmatrix", site);
}

inline void tv_copy_async_16(void *shared, const void *global, bool is_there)
{
    const uintptr_t both =
        reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
    if (both % 16 != 0)
        emulation::fail("cp.async from or to a place that is not 16-byte aligned");
    else
        emulation::start_copy(shared, global, 16, is_there);
}
inline void tv_copy_async_commit()
{
    emulation::commit_copies();
}
template <int groups> void tv_copy_async_wait()
{
    emulation::wait_for_copies(groups);
}

inline uint32_t tv_pack_bf16(float low, float high)
{
    return tv_bf16_from_f32(low) | static_cast<uint32_t>(tv_bf16_from_f32(high)) << 16;
}
inline void tv_store_global_16(void *to, const uint4 &x)
{
    *static_cast<uint4 *>(to) = x;
}
template <typename T> void tv_not_ahead(T &)
{
}
inline float tv_exp2(float x)
{
    return std::exp2(x);
}
#endif
