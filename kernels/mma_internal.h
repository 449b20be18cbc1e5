/* kernels/mma_internal.h -- the tensor cores and the asynchronous copies, as the PTX ISA has them ("Warp-level matrix
 * instructions", "cp.async"); sm_80 and later. Thin wrappers: nvcc takes the instruction, the emulation of the tests
 * takes a body in C++ from emulated_mma.h.
 *
 * All lanes of a warp call together. With g = lane / 4 and t = lane % 4, the fragments of c[16, 8] += a[16, 16] b[16,
 * 8] hold, a pair of bf16 in each 32-bit word, the lower column (a) or row (b) in the lower half:
 *   a: word 0 (g, 2t..), word 1 (g + 8, 2t..), word 2 (g, 2t + 8..), word 3 (g + 8, 2t + 8..)      row, columns
 *   b: word 0 (2t.., g), word 1 (2t + 8.., g)                                                      rows, column
 *   c: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
 * so two c fragments side by side, packed, are one a fragment of the next product. */
#ifndef TV_KERNELS_MMA_INTERNAL_H
#define TV_KERNELS_MMA_INTERNAL_H
#include <stdint.h>

#ifdef __CUDACC__
/* An address in shared memory. */
typedef uint32_t tv_shared_at;
static __device__ __forceinline__ tv_shared_at tv_shared_place(const void *data)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(data));
}

/* c += a b */
static __device__ __forceinline__ void tv_mma_16x8x16(float c[4], const uint32_t a[4], uint32_t b0,
                                                      uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of bf16 out of shared memory: lane 8 i + r says where row r of matrix i is (16 bytes, aligned);
 * word i is elements (g, 2t) and (g, 2t + 1) of matrix i. */
static __device__ __forceinline__ void tv_ldmatrix(uint32_t word[4], tv_shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"(row)
                 : "memory");
}

/* The same matrices transposed: word i is elements (2t, g) and (2t + 1, g). */
static __device__ __forceinline__ void tv_ldmatrix_transposed(uint32_t word[4], tv_shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"(row)
                 : "memory");
}

/* 16 bytes, both ends aligned, from global to shared memory; zeros (nothing is read) unless `is_there`. */
static __device__ __forceinline__ void tv_copy_async_16(void *shared, const void *global,
                                                        bool is_there)
{
    const int bytes = is_there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(tv_shared_place(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}

/* Close the group of the copies that this thread has started since the last call. */
static __device__ __forceinline__ void tv_copy_async_commit(void)
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Wait until all but this thread's last `groups` are there; other threads see them after a barrier. */
template <int groups> static __device__ __forceinline__ void tv_copy_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(groups) : "memory");
}

/* Two floats as bf16, rounded to nearest, ties to even. */
static __device__ __forceinline__ uint32_t tv_pack_bf16(float low, float high)
{
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

/* 16 bytes, to a multiple of 16 bytes in global memory. */
static __device__ __forceinline__ void tv_store_global_16(void *to, const uint4 &x)
{
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "r"(x.x), "r"(x.y),
                 "r"(x.z), "r"(x.w)
                 : "memory");
}

/* Keeps the compiler from working out before a loop, into registers, what follows from x alone. */
static __device__ __forceinline__ void tv_not_ahead(uint64_t &x)
{
    asm volatile("" : "+l"(x));
}
static __device__ __forceinline__ void tv_not_ahead(uint32_t &x)
{
    asm volatile("" : "+r"(x));
}

/* 2^x, good to 2 units in the last place; 0 for -inf and where the result is no normal number. */
static __device__ __forceinline__ float tv_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}
#else
#include "emulated_mma.h"
#endif
#endif
