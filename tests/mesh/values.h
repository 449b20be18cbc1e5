/* tests/mesh/values.h -- what each rank contributes to a collective, and the sum in rank order that it must give. */
#ifndef TESTS_MESH_VALUES_H
#define TESTS_MESH_VALUES_H
#include "base/dtype.h"
#include "mesh/comm.h"
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

inline uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Signed, exact in a float, and spread over 2^-12 ... 2^20, so that a sum in another order rounds to other bits. */
template <class T> T value_of(int rank, int64_t i)
{
    const uint64_t bits = mix((uint64_t)i * 64 + (uint64_t)rank + 1);
    if constexpr (std::is_integral_v<T>)
        return (T)(int32_t)(bits & 0xfffff) - 0x80000;
    const double mantissa = (double)(bits & 0xffffff) - 0x800000;
    return (T)std::ldexp(mantissa, (int)(bits >> 40) % 20 - 20);
}

template <class T> T combine(T a, T b, tv_reduce_op_t op)
{
    return op == TV_SUM ? a + b : op == TV_MAX ? std::max(a, b) : std::min(a, b);
}

/* Tables of the longest length, made once for all ranks that are threads and all shorter lengths: sanitizers are slow.
 */
inline constexpr int64_t longest = 101000;
inline std::recursive_mutex tables_lock;

template <class T> std::vector<T> &table(std::array<int, 3> key)
{
    static std::map<std::array<int, 3>, std::vector<T>> tables;
    return tables[key];
}

template <class T> const std::vector<T> &values_table(int rank)
{
    const std::lock_guard<std::recursive_mutex> lock(tables_lock);
    std::vector<T> &values = table<T>({rank, 0, 0});
    for (int64_t i = (int64_t)values.size(); i < longest; i++)
        values.push_back(value_of<T>(rank, i));
    return values;
}

template <class T>
const std::vector<T> &reduced_table(int size, tv_reduce_op_t op, bool is_reversed)
{
    const std::lock_guard<std::recursive_mutex> lock(tables_lock);
    std::vector<T> &sum = table<T>({-size, (int)op, is_reversed});
    if (!sum.empty())
        return sum;
    sum = values_table<T>(is_reversed ? size - 1 : 0);
    for (int r = 1; r < size; r++) {
        const std::vector<T> &next = values_table<T>(is_reversed ? size - 1 - r : r);
        for (size_t i = 0; i < sum.size(); i++)
            sum[i] = combine(sum[i], next[i], op);
    }
    return sum;
}

template <class T> std::vector<T> values_of(int rank, int64_t count)
{
    const std::vector<T> &all = values_table<T>(rank);
    return std::vector<T>(all.begin(), all.begin() + count);
}

/* Over `size` ranks, from rank 0 up, or from the last rank down. */
template <class T>
std::vector<T> reduced(int size, int64_t count, tv_reduce_op_t op, bool is_reversed = false)
{
    const std::vector<T> &all = reduced_table<T>(size, op, is_reversed);
    return std::vector<T>(all.begin(), all.begin() + count);
}

template <class T> bool same_bits(const std::vector<T> &a, const std::vector<T> &b)
{
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/* FNV-1a, 64 bits. */
template <class T> uint64_t checksum(const std::vector<T> &values)
{
    uint64_t hash = 0xcbf29ce484222325u;
    const auto *bytes = reinterpret_cast<const unsigned char *>(values.data());
    for (size_t i = 0; i < values.size() * sizeof(T); i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

template <class T> constexpr tv_dtype_t dtype_of()
{
    if constexpr (std::is_same_v<T, float>)
        return TV_F32;
    else if constexpr (std::is_same_v<T, double>)
        return TV_F64;
    else if constexpr (std::is_same_v<T, int32_t>)
        return TV_I32;
    else if constexpr (std::is_same_v<T, int64_t>)
        return TV_I64;
    else if constexpr (std::is_same_v<T, uint16_t>)
        return TV_BF16;
    else
        return TV_U8;
}
#endif
