// tma.h -- what hopper.cc and tma.cc share.
#ifndef TV_TESTS_EMULATION_TMA_H
#define TV_TESTS_EMULATION_TMA_H
#include "emulation/include/emulated_mma.h"
#include <cstdint>

namespace emulation
{
// Where a byte lies under 128-byte swizzle: bits 4 to 6 of the address change with bits 7 to 9.
uint64_t swizzled(uint64_t address);
// So many bytes that a barrier expected have come.
void count_bytes(uint64_t *barrier, uint32_t bytes);
// Runs the loads under way that report to this barrier.
void run_loads(const uint64_t *barrier);
// A block has ended, as end_hopper's.
void end_bulk(unsigned num_threads);
} // namespace emulation
#endif
