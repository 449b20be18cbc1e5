/* kernels/matmul/matmul_cuda.cu -- c = op(a) op(b) (+ bias) (+ c) by cuBLASLt, fp32 sums in every table.
 *
 * cuBLASLt's matrices are column-major: our row-major c[m, n] is its D[n, m], so our b is its A and our a its B, each
 * transposed where ours is. A bias, one number per column of c, is then one per row of D, which its epilogue adds.
 *
 * The sums of one product come in one order: of the ways to cut k over blocks of threads only those are allowed that
 * add partial sums in fp32 in a fixed order. An algorithm is looked for once per plan (plans_internal.h). */
#include "kernels/matmul/plans_internal.h"

namespace
{
/* Where the epilogue cannot add the bias, or there is nothing to add it to: c = bias (+ c). */
template <typename Stored, typename Result> struct add_bias {
    const Stored *bias;
    int accumulate;
    int64_t ld;
    Result *c;
    template <int N> __device__ void run(int64_t row, int64_t col) const
    {
        Result *at = c + row * ld + col;
        const float before = accumulate ? tv_to_float(*at) : 0.0f;
        *at = tv_from_float<Result>(before + (bias != nullptr ? tv_to_float(bias[col]) : 0.0f));
    }
};

template <typename Stored, typename Result>
tv_status_t start_c(tv_stream *stream, const tv_matmul_args *a)
{
    const add_bias<Stored, Result> work = {static_cast<const Stored *>(a->bias), a->accumulate,
                                           a->ld_c, static_cast<Result *>(a->c)};
    return tv_map<1>(stream, false, a->m, a->n, work);
}

template <typename Stored, typename Result>
tv_status_t multiply(tv_stream *stream, const tv_matmul_args *a)
{
    tv_matmul_args product = *a;
    if (a->m == 0 || a->n == 0)
        return TV_OK;
    if (a->k == 0)
        return start_c<Stored, Result>(stream, a);
    if (a->bias != nullptr && !tv_lt_adds_bias<Stored, Result>(a)) {
        TV_TRY((start_c<Stored, Result>(stream, a)));
        product.bias = nullptr;
        product.accumulate = 1;
    }
    return tv_lt_multiply(stream, tv_lt_type<Stored>(), tv_lt_type<Result>(), &product);
}
} // namespace

#define ENTRY(op, storage, Stored, Result)                                                         \
    extern "C" tv_status_t TV_KERNEL_NAME(op, cuda, storage)(tv_stream * stream,                   \
                                                             const tv_matmul_args *a)              \
    {                                                                                              \
        return multiply<Stored, Result>(stream, a);                                                \
    }
ENTRY(matmul, f32, float, float)
ENTRY(matmul_to_f32, f32, float, float)
ENTRY(matmul, bf16, __nv_bfloat16, __nv_bfloat16)
ENTRY(matmul_to_f32, bf16, __nv_bfloat16, float)
