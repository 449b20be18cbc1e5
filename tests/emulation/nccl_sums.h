// nccl_sums.h -- what the double of NCCL computes: sums, maxima and minima over ranks, in rank order.
#ifndef TV_TESTS_EMULATION_NCCL_SUMS_H
#define TV_TESTS_EMULATION_NCCL_SUMS_H
#include <map>
#include <nccl.h>
#include <vector>

namespace emulation
{
struct Sum {
    const std::map<int, std::vector<char>> &brought; // by rank
    size_t first, count;                             // elements of each
    ncclDataType_t type;
    ncclRedOp_t op;
};
// bf16 is added up as floats and rounded once.
void add_up(const Sum &sum, void *out);
} // namespace emulation
#endif
