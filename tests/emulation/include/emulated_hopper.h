// emulated_hopper.h -- the bodies of kernels/hopper_internal.h for the emulation: hopper.cc.
//
// Everything asynchronous happens as late as it may, and what it will write holds the fill (NaN) until then: a product
// when its warpgroup waits for its group, a copy by TMA when a thread waits at its barrier, a bulk store or add when
// its thread waits for its group. Operands are read then, too, out of shared memory by their descriptors, bit by bit as
// the PTX ISA has them: a missing wait, a tile that is overwritten too early, a wrong descriptor, stride or swizzle
// show as wrong numbers. Not held: fences between what threads wrote and what products or bulk copies read.
#ifndef TV_TESTS_EMULATION_EMULATED_HOPPER_H
#define TV_TESTS_EMULATION_EMULATED_HOPPER_H
#include <cuda.h>
#include <cuda_runtime.h>

namespace emulation
{
// A product as one thread issues it.
struct WarpgroupProduct {
    float *d;
    int columns; // N
    bool has_a;  // in registers
    uint32_t a_words[4];
    uint64_t a, b; // descriptors
    bool is_a_transposed, is_b_transposed, adds;
    Site site;
};
void fence_products();
void start_product(const WarpgroupProduct &product);
void commit_products(Site site);
void wait_for_products(int groups_left, Site site);

void init_barrier(uint64_t *barrier, unsigned arrivals);
void arrive(uint64_t *barrier, uint32_t expected_bytes);
void wait_for_barrier(uint64_t *barrier, unsigned parity, Site site);

void start_load(const CUtensorMap *map, void *panel, uint64_t *barrier, int col, int row,
                int sequence);
void start_store(const CUtensorMap *map, const void *panel, int col, int row, int sequence);
void start_floats(float *to, const float *from, uint32_t bytes, bool adds);
void commit_bulk();
void wait_for_bulk(int groups_left);

void set_registers(int registers, Site site);
void name_barrier(int id, int threads, bool waits, Site site);
} // namespace emulation

inline uint32_t tv_uniform(uint32_t x)
{
    return x;
}
inline void tv_wgmma_fence()
{
    emulation::fence_products();
}
inline void tv_wgmma_commit(tv_site site = tv_site::here())
{
    emulation::commit_products(site);
}
template <int groups> void tv_wgmma_wait(tv_site site = tv_site::here())
{
    emulation::wait_for_products(groups, site);
}
template <int n> void tv_wgmma_keep(float (&)[n])
{
}
template <int of_a, int of_b, int n>
void tv_wgmma_ss(float (&d)[n], uint64_t a, uint64_t b, bool adds, tv_site site = tv_site::here())
{
    static_assert(n == 32 || n == 64, "N is 64 or 128");
    emulation::start_product({d, 2 * n, false, {}, a, b, of_a == 1, of_b == 1, adds, site});
}
template <int of_b, int n>
void tv_wgmma_rs(float (&d)[n], const uint32_t (&a)[4], uint64_t b, bool adds,
                 tv_site site = tv_site::here())
{
    static_assert(n == 32 || n == 64, "N is 64 or 128");
    emulation::start_product(
        {d, 2 * n, true, {a[0], a[1], a[2], a[3]}, 0, b, false, of_b == 1, adds, site});
}

inline void tv_barrier_init(uint64_t *barrier, unsigned arrivals)
{
    emulation::init_barrier(barrier, arrivals);
}
inline void tv_barriers_ready()
{
}
inline void tv_barrier_arrive(uint64_t *barrier)
{
    emulation::arrive(barrier, 0);
}
inline void tv_barrier_arrive_expect(uint64_t *barrier, uint32_t bytes)
{
    emulation::arrive(barrier, bytes);
}
inline void tv_barrier_wait(uint64_t *barrier, unsigned parity, tv_site site = tv_site::here())
{
    emulation::wait_for_barrier(barrier, parity, site);
}

inline void tv_tma_prefetch(const CUtensorMap *)
{
}
inline void tv_tma_load(const CUtensorMap *map, void *panel, uint64_t *barrier, int col, int row,
                        int sequence)
{
    emulation::start_load(map, panel, barrier, col, row, sequence);
}
inline void tv_tma_store(const CUtensorMap *map, const void *panel, int col, int row, int sequence)
{
    emulation::start_store(map, panel, col, row, sequence);
}
inline void tv_bulk_add(float *to, const float *from, uint32_t bytes)
{
    emulation::start_floats(to, from, bytes, true);
}
inline void tv_bulk_store(float *to, const float *from, uint32_t bytes)
{
    emulation::start_floats(to, from, bytes, false);
}
inline void tv_bulk_commit()
{
    emulation::commit_bulk();
}
template <int groups> void tv_bulk_wait()
{
    emulation::wait_for_bulk(groups);
}
template <int groups> void tv_bulk_wait_read()
{
    emulation::wait_for_bulk(groups);
}
inline void tv_fence_async()
{
}

template <int registers> void tv_registers_fewer(tv_site site = tv_site::here())
{
    emulation::set_registers(registers, site);
}
template <int registers> void tv_registers_more(tv_site site = tv_site::here())
{
    emulation::set_registers(registers, site);
}
inline void tv_named_sync(int id, int threads, tv_site site = tv_site::here())
{
    emulation::name_barrier(id, threads, true, site);
}
inline void tv_named_arrive(int id, int threads, tv_site site = tv_site::here())
{
    emulation::name_barrier(id, threads, false, site);
}
#endif
