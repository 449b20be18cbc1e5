// nccl_sums.cc -- the arithmetic of the double of NCCL.
#include "emulation/nccl_sums.h"
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace emulation
{
namespace
{
float widen(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

uint16_t narrow(float x)
{
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return x != x ? (uint16_t)(bits >> 16 | 0x40u)
                  : (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <class T> T combine(T a, T b, ncclRedOp_t op)
{
    if (op == ncclSum)
        return a + b;
    if (a != a || b != b)
        return a != a ? a : b;
    return op == ncclMax ? std::max(a, b) : std::min(a, b);
}

template <class T> void add_up_as(const Sum &s, void *out)
{
    std::vector<T> sum(s.count), next(s.count);
    for (const auto &[rank, data] : s.brought) {
        std::memcpy(next.data(), data.data() + s.first * sizeof(T), s.count * sizeof(T));
        for (size_t i = 0; i < s.count; i++)
            sum[i] = rank == 0 ? next[i] : combine(sum[i], next[i], s.op);
    }
    std::memcpy(out, sum.data(), s.count * sizeof(T));
}

void add_up_bf16(const Sum &s, void *out)
{
    for (size_t i = 0; i < s.count; i++) {
        float sum = 0;
        for (const auto &[rank, data] : s.brought) {
            uint16_t x;
            std::memcpy(&x, data.data() + (s.first + i) * sizeof(x), sizeof(x));
            sum = rank == 0 ? widen(x) : combine(sum, widen(x), s.op);
        }
        const uint16_t rounded = narrow(sum);
        std::memcpy(static_cast<char *>(out) + i * sizeof(rounded), &rounded, sizeof(rounded));
    }
}
} // namespace

void add_up(const Sum &sum, void *out)
{
    if (sum.type == ncclFloat32)
        add_up_as<float>(sum, out);
    else if (sum.type == ncclFloat64)
        add_up_as<double>(sum, out);
    else if (sum.type == ncclInt32)
        add_up_as<int32_t>(sum, out);
    else if (sum.type == ncclInt64)
        add_up_as<int64_t>(sum, out);
    else
        add_up_bf16(sum, out);
}
} // namespace emulation
