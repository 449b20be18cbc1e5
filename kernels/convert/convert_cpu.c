/* convert_cpu.c -- a block at a time through the stack, which is what lets y be x. */
#include "kernels/kernels_internal.h"

enum { BLOCK = 256 };

static int64_t block_at(int64_t first, int64_t count)
{
    return count - first < BLOCK ? count - first : BLOCK;
}

tv_status_t TV_CPU(to_bf16)(struct tv_stream *stream, const struct tv_to_bf16_args *a)
{
    (void)stream;
    uint16_t block[BLOCK];
    for (int64_t first = 0; first < a->count; first += BLOCK) {
        const int64_t num = block_at(first, a->count);
        const float *x = a->x + first;
#pragma omp simd
        for (int64_t i = 0; i < num; i++)
            block[i] = tv_bf16_from_f32(x[i]);
        memcpy(tv_at(a->y, first, TV_BF16), block, (size_t)num * sizeof(*block));
    }
    return TV_OK;
}

tv_status_t TV_CPU(from_bf16)(struct tv_stream *stream, const struct tv_from_bf16_args *a)
{
    (void)stream;
    uint16_t block[BLOCK];
    for (int64_t first = (a->count - 1) / BLOCK * BLOCK; first >= 0; first -= BLOCK) {
        const int64_t num = block_at(first, a->count);
        float *y = a->y + first;
        if (num > 0)
            memcpy(block, tv_const_at(a->x, first, TV_BF16), (size_t)num * sizeof(*block));
#pragma omp simd
        for (int64_t i = 0; i < num; i++)
            y[i] = tv_bf16_to_f32(block[i]);
    }
    return TV_OK;
}
