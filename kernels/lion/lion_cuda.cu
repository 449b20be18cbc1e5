/* lion_cuda.cu -- Lion (arXiv:2302.06675), in place: one pass, 16 bytes at a time; in double, and without fused
 * multiply-add, for the same signs as in the other tables. */
#include "kernels/cuda_internal.h"

namespace
{
struct lion_work {
    tv_lion_args a;
    template <int N> __device__ void run(int64_t, int64_t i) const
    {
        float param[N], moment[N], grad[N];
        tv_load_floats<N>(a.param + i, param);
        tv_load_floats<N>(a.m + i, moment);
        tv_load_floats<N>(a.grad + i, grad);
#pragma unroll
        for (int k = 0; k < N; k++) {
            const double g = (double)grad[k] * a.grad_scale, m = moment[k], p = param[k];
            const double c = a.beta1 * m + (1 - a.beta1) * g;
            const double sign = c > 0 ? 1 : c < 0 ? -1 : 0;
            param[k] = (float)(p - a.lr * (sign + a.weight_decay * p));
            moment[k] = (float)(a.beta2 * m + (1 - a.beta2) * g);
        }
        tv_store_floats<N>(a.param + i, param);
        tv_store_floats<N>(a.m + i, moment);
    }
};

tv_status_t lion(tv_stream *stream, const tv_lion_args *a)
{
    const bool is_aligned =
        tv_is_aligned<4>(a->param) && tv_is_aligned<4>(a->m) && tv_is_aligned<4>(a->grad);
    return tv_map<4>(stream, is_aligned, 1, a->count, lion_work{*a});
}
} // namespace

TV_CUDA_ENTRIES_OF_FLOATS(lion, tv_lion_args, lion)
