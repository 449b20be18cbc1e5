// device_functions.h -- what CUDA gives to a kernel: its place in the grid, barriers, shuffles, votes, intrinsics.
//
// Threads of a block meet through two functions, meet_warp and meet_block; what a warp does together (here: shuffles
// and votes; in kernels: the products of tensor cores) is a function over what its lanes brought.
#ifndef TV_TESTS_EMULATION_DEVICE_FUNCTIONS_H
#define TV_TESTS_EMULATION_DEVICE_FUNCTIONS_H
#ifndef TV_TESTS_EMULATION_CUDA_RUNTIME_H
#error "include cuda_runtime.h"
#endif

extern __thread uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulation
{
struct Site { // where in the sources
    const char *file;
    int line;
    static Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE())
    {
        return {file, line};
    }
};
// The calling thread waits until every lane of `mask` has called with the same `work` from the same place; the last one
// runs work(lanes, mask), lanes[i] being what lane i passed as `mine`; then all go on. A lane that never comes, has
// ended, or waits elsewhere, fails the launch with a sentence.
using WarpWork = void (*)(void *const lanes[32], unsigned mask);
void meet_warp(unsigned mask, void *mine, WarpWork work, const char *what, Site site);
// The same for all threads of the block, in the order of their numbers.
using BlockWork = void (*)(void *const *threads, unsigned count);
void meet_block(void *mine, BlockWork work, const char *what, Site site);
// The calling thread waits until the condition holds; the scheduler asks between the runs of other threads.
void wait_until(const std::function<bool()> &condition, const char *what, Site site);
int lane();               // of the calling thread in its warp
unsigned thread_number(); // of the calling thread in its block
void *dynamic_shared();   // the block's dynamic shared memory
size_t dynamic_shared_bytes();
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

template <typename T> struct Shuffled {
    T value, result;
    int source;
};
template <typename T> T shuffle(unsigned mask, T value, int source, Site site)
{
    Shuffled<T> mine = {value, value, source};
    meet_warp(
        mask, &mine,
        [](void *const lanes[32], unsigned in) {
            for (int i = 0; i < 32; i++) {
                if (!(in >> i & 1))
                    continue;
                Shuffled<T> *to = static_cast<Shuffled<T> *>(lanes[i]);
                if (!(in >> to->source & 1))
                    fail("lane %d shuffles from lane %d, which takes no part", i, to->source);
                else
                    to->result = static_cast<Shuffled<T> *>(lanes[to->source])->value;
            }
        },
        "a shuffle", site);
    return mine.result;
}
struct Vote {
    bool value;
    unsigned ballot;
};
inline unsigned ballot(unsigned mask, bool value, Site site)
{
    Vote mine = {value, 0};
    meet_warp(
        mask, &mine,
        [](void *const lanes[32], unsigned in) {
            unsigned bits = 0;
            for (int i = 0; i < 32; i++)
                if (in >> i & 1)
                    bits |= (unsigned)static_cast<Vote *>(lanes[i])->value << i;
            for (int i = 0; i < 32; i++)
                if (in >> i & 1)
                    static_cast<Vote *>(lanes[i])->ballot = bits;
        },
        "a vote", site);
    return mine.ballot;
}
struct Count {
    bool value;
    unsigned count;
};
inline unsigned count_block(bool value, Site site)
{
    Count mine = {value, 0};
    meet_block(
        &mine,
        [](void *const *threads, unsigned num) {
            unsigned count = 0;
            for (unsigned i = 0; i < num; i++)
                count += static_cast<Count *>(threads[i])->value;
            for (unsigned i = 0; i < num; i++)
                static_cast<Count *>(threads[i])->count = count;
        },
        "__syncthreads", site);
    return mine.count;
}
inline int group(int width) // the first lane of the caller's part of the warp
{
    return lane() & ~(width - 1);
}
} // namespace emulation

#define TV_SHARED_DYNAMIC(type, name)                                                              \
    type *const name = static_cast<type *>(emulation::dynamic_shared())

using tv_site = emulation::Site;
inline void __syncthreads(tv_site site = tv_site::here())
{
    emulation::meet_block(nullptr, nullptr, "__syncthreads", site);
}
inline int __syncthreads_count(int value, tv_site site = tv_site::here())
{
    return (int)emulation::count_block(value != 0, site);
}
inline int __syncthreads_or(int value, tv_site site = tv_site::here())
{
    return emulation::count_block(value != 0, site) > 0;
}
inline int __syncthreads_and(int value, tv_site site = tv_site::here())
{
    return emulation::count_block(value == 0, site) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, tv_site site = tv_site::here())
{
    emulation::meet_warp(mask, nullptr, nullptr, "__syncwarp", site);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, tv_site site = tv_site::here())
{
    return emulation::shuffle(mask, value, emulation::group(width) + (source & (width - 1)), site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, tv_site site = tv_site::here())
{
    const int source = emulation::lane() ^ bits;
    const bool is_inside = source < emulation::group(width) + width;
    return emulation::shuffle(mask, value, is_inside ? source : emulation::lane(), site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 tv_site site = tv_site::here())
{
    const int source = emulation::lane() - (int)by;
    const bool is_inside = source >= emulation::group(width);
    return emulation::shuffle(mask, value, is_inside ? source : emulation::lane(), site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   tv_site site = tv_site::here())
{
    const int source = emulation::lane() + (int)by;
    const bool is_inside = source < emulation::group(width) + width;
    return emulation::shuffle(mask, value, is_inside ? source : emulation::lane(), site);
}
inline unsigned __ballot_sync(unsigned mask, int value, tv_site site = tv_site::here())
{
    return emulation::ballot(mask, value != 0, site);
}
inline int __any_sync(unsigned mask, int value, tv_site site = tv_site::here())
{
    return emulation::ballot(mask, value != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int value, tv_site site = tv_site::here())
{
    return emulation::ballot(mask, value != 0, site) == mask;
}

// One CUDA thread runs at a time, so a plain read and write is atomic, unless blocks of two launches meet: trivet has
// no such pair.
template <typename T> T atomicAdd(T *to, T value)
{
    static_assert(!std::is_floating_point_v<T>, "trivet has no atomics on floats");
    const T before = *to;
    *to = before + value;
    return before;
}
template <typename T> T atomicExch(T *to, T value)
{
    const T before = *to;
    *to = value;
    return before;
}
template <typename T> T atomicCAS(T *to, T expected, T value)
{
    const T before = *to;
    if (before == expected)
        *to = value;
    return before;
}
template <typename T> T atomicMax(T *to, T value)
{
    const T before = *to;
    *to = before > value ? before : value;
    return before;
}
inline void __threadfence()
{
}
inline void __threadfence_block()
{
}
template <typename T> T __ldg(const T *from)
{
    return *from;
}
template <typename To, typename From> To tv_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "the same number of bytes");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}
inline unsigned __float_as_uint(float x)
{
    return tv_bits<unsigned>(x);
}
inline int __float_as_int(float x)
{
    return tv_bits<int>(x);
}
inline float __uint_as_float(unsigned x)
{
    return tv_bits<float>(x);
}
inline float __int_as_float(int x)
{
    return tv_bits<float>(x);
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline float rsqrtf(float x)
{
    return 1.0f / std::sqrt(x);
}
inline float __expf(float x)
{
    return std::exp(x);
}
inline float __fdividef(float a, float b)
{
    return a / b;
}
inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
inline float __fmaf_rn(float a, float b, float c)
{
    return std::fma(a, b, c);
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
#endif
