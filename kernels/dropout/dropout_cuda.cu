/* dropout_cuda.cu -- dropout: one Philox block for four columns. */
#include "kernels/dropout/dropout_cuda_internal.h"

namespace
{
template <typename T> struct dropout_work {
    tv_dropout dropout;
    int64_t cols;
    const T *x;
    T *y;
    template <int N> __device__ void run(int64_t row, int64_t col) const
    {
        float v[N];
        uint4 words;
        tv_load_floats<N>(x + row * cols + col, v);
#pragma unroll
        for (int k = 0; k < N; k++) {
            if (k % 4 == 0) /* col is a multiple of N, 1 or some fours */
                words = tv_dropout_words(dropout, row, 0, (int64_t)((uint64_t)col / 4) + k / 4);
            const uint32_t word = tv_dropout_word(words, N == 1 ? (int)col & 3 : k % 4);
            v[k] *= word < dropout.threshold ? 0.0f : dropout.scale;
        }
        tv_store_floats<N>(y + row * cols + col, v);
    }
};

template <typename T> tv_status_t dropout(tv_stream *stream, const tv_dropout_args *a)
{
    constexpr int width = tv_width<T>;
    const dropout_work<T> work = {a->dropout, a->cols, static_cast<const T *>(a->x),
                                  static_cast<T *>(a->y)};
    const bool is_aligned =
        tv_is_aligned<width>(work.x, a->cols) && tv_is_aligned<width>(work.y, a->cols);
    return tv_map<width>(stream, is_aligned, a->rows, a->cols, work);
}
} // namespace

TV_CUDA_ENTRIES(dropout, tv_dropout_args, dropout)
