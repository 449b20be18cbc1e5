// vector_types.h -- CUDA's qualifiers and short vectors, for the emulation.
#ifndef TV_TESTS_EMULATION_VECTOR_TYPES_H
#define TV_TESTS_EMULATION_VECTOR_TYPES_H

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__  inline
#define __shared__       static thread_local
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __grid_constant__

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
#define TV_EMULATED_VECTORS(type, name)                                                            \
    struct alignas(2 * sizeof(type)) name##2                                                       \
    {                                                                                              \
        type x, y;                                                                                 \
    };                                                                                             \
    struct alignas(sizeof(type) == 8 ? 16 : 4 * sizeof(type)) name##4                              \
    {                                                                                              \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    inline name##2 make_##name##2(type x, type y)                                                  \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    inline name##4 make_##name##4(type x, type y, type z, type w)                                  \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }
TV_EMULATED_VECTORS(float, float)
TV_EMULATED_VECTORS(int, int)
TV_EMULATED_VECTORS(unsigned, uint)
TV_EMULATED_VECTORS(double, double)
TV_EMULATED_VECTORS(unsigned short, ushort)
#undef TV_EMULATED_VECTORS
#endif
