/* kernels/matmul/plans_cuda.cu -- one handle and one table of plans for each stream that multiplies.
 *
 * A plan is the operation, three layouts and the algorithm that cuBLASLt's heuristic put first of those that fit the
 * workspace; the same key gives the same plan, and a plan the same order of sums. Steps repeat their shapes, so the
 * table stops growing after the first. */
#include "kernels/matmul/plans_internal.h"
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>

namespace
{
/* What tells plans apart; no padding, compared byte by byte. */
struct key {
    int64_t m, n, k, ld_a, ld_b, ld_c;
    int32_t trans_a, trans_b, stored, result, has_bias, is_tf32;
    uint32_t align_a, align_b, align_c, align_bias;
    bool operator==(const key &other) const
    {
        return std::memcmp(this, &other, sizeof(*this)) == 0;
    }
};
static_assert(sizeof(key) == 6 * 8 + 10 * 4, "no padding");

struct hash {
    size_t operator()(const key &k) const /* FNV-1a */
    {
        const unsigned char *bytes = reinterpret_cast<const unsigned char *>(&k);
        uint64_t value = 14695981039346656037u;
        for (size_t i = 0; i < sizeof(k); i++)
            value = (value ^ bytes[i]) * 1099511628211u;
        return value;
    }
};

struct plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr; /* cuBLASLt's A is our b */
    cublasLtMatmulAlgo_t algorithm = {};
    size_t workspace_bytes = 0;
    plan() = default;
    plan(const plan &) = delete;
    plan &operator=(const plan &) = delete;
    ~plan()
    {
        if (operation != nullptr)
            cublasLtMatmulDescDestroy(operation);
        for (cublasLtMatrixLayout_t layout : {a, b, c}) {
            if (layout != nullptr)
                cublasLtMatrixLayoutDestroy(layout);
        }
    }
};

struct multiplier {
    cublasLtHandle_t handle = nullptr;
    std::unordered_map<key, std::unique_ptr<plan>, hash> plans;
    multiplier() = default;
    multiplier(const multiplier &) = delete;
    multiplier &operator=(const multiplier &) = delete;
    ~multiplier()
    {
        plans.clear();
        if (handle != nullptr)
            cublasLtDestroy(handle);
    }
};

tv_status_t failed(const char *what, cublasStatus_t status)
{
    return TV_ERR(status == CUBLAS_STATUS_ALLOC_FAILED ? TV_NO_MEMORY : TV_INTERNAL,
                  "%s: cuBLASLt says %d", what, (int)status);
}

void end_multiplier(void *companion)
{
    delete static_cast<multiplier *>(companion);
}

tv_status_t multiplier_of(tv_stream *stream, multiplier **found_out)
{
    tv_cuda_companion *companion = tv_cuda_companion_of(stream);
    if (companion->data == nullptr) {
        auto made = std::make_unique<multiplier>();
        const cublasStatus_t status = cublasLtCreate(&made->handle);
        if (status != CUBLAS_STATUS_SUCCESS)
            return failed("cublasLtCreate", status);
        *companion = {made.release(), end_multiplier};
    }
    *found_out = static_cast<multiplier *>(companion->data);
    return TV_OK;
}

/* The largest power of two, up to 256, that divides the address. */
uint32_t alignment_of(const void *data)
{
    const uintptr_t bits = reinterpret_cast<uintptr_t>(data) | 256;
    return (uint32_t)(bits & (~bits + 1));
}

key key_of(const tv_stream *stream, cudaDataType_t stored, cudaDataType_t result,
           const tv_matmul_args *a)
{
    key k = {};
    k.m = a->m;
    k.n = a->n;
    k.k = a->k;
    k.ld_a = a->ld_a;
    k.ld_b = a->ld_b;
    k.ld_c = a->ld_c;
    k.trans_a = a->trans_a != 0;
    k.trans_b = a->trans_b != 0;
    k.stored = stored;
    k.result = result;
    k.has_bias = a->bias != nullptr;
    k.is_tf32 = stored == CUDA_R_32F && tv_cuda_uses_tf32(stream);
    k.align_a = alignment_of(a->a);
    k.align_b = alignment_of(a->b);
    k.align_c = alignment_of(a->c);
    k.align_bias = k.has_bias ? alignment_of(a->bias) : 256;
    return k;
}

template <typename Value>
cublasStatus_t set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                   const Value &value)
{
    return cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value));
}

template <typename Value>
cublasStatus_t set(cublasLtMatmulPreference_t preference,
                   cublasLtMatmulPreferenceAttributes_t attribute, const Value &value)
{
    return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
}

cublasStatus_t describe(const key &k, const void *bias, plan *p)
{
    const cublasOperation_t turn_a = k.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            turn_b = k.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const auto stored = (cudaDataType_t)k.stored, result = (cudaDataType_t)k.result;
    cublasStatus_t status = cublasLtMatmulDescCreate(
        &p->operation, k.is_tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(p->operation, CUBLASLT_MATMUL_DESC_TRANSA, turn_a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(p->operation, CUBLASLT_MATMUL_DESC_TRANSB, turn_b);
    if (status == CUBLAS_STATUS_SUCCESS && k.has_bias)
        status = set(p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    if (status == CUBLAS_STATUS_SUCCESS && k.has_bias)
        status = set(p->operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, result);
    if (status == CUBLAS_STATUS_SUCCESS && k.has_bias)
        status = set(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&p->a, stored, (uint64_t)(k.trans_b ? k.k : k.n),
                                            (uint64_t)(k.trans_b ? k.n : k.k), k.ld_b);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&p->b, stored, (uint64_t)(k.trans_a ? k.m : k.k),
                                            (uint64_t)(k.trans_a ? k.k : k.m), k.ld_a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&p->c, result, (uint64_t)k.n, (uint64_t)k.m, k.ld_c);
    return status;
}

/* Fixed orders of fp32 sums, room for the workspace, and no faith in alignment that is not there. */
cublasStatus_t prefer(const key &k, cublasLtMatmulPreference_t preference)
{
    const uint64_t workspace = TV_LT_WORKSPACE_BYTES;
    const uint32_t reductions =
        CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t align_d = k.align_c < k.align_bias ? k.align_c : k.align_bias;
    cublasStatus_t status = set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, k.align_b);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, k.align_a);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, k.align_c);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_d);
    return status;
}

cublasStatus_t choose(cublasLtHandle_t handle, const key &k, plan *p)
{
    enum { MOST = 8 };
    cublasLtMatmulHeuristicResult_t found[MOST];
    cublasLtMatmulPreference_t preference = nullptr;
    int num = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    status = prefer(k, preference);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(handle, p->operation, p->a, p->b, p->c, p->c,
                                                preference, MOST, found, &num);
    cublasLtMatmulPreferenceDestroy(preference);
    for (int i = 0; i < num && status == CUBLAS_STATUS_SUCCESS; i++) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS ||
            found[i].workspaceSize > TV_LT_WORKSPACE_BYTES)
            continue;
        p->algorithm = found[i].algo;
        p->workspace_bytes = found[i].workspaceSize;
        return CUBLAS_STATUS_SUCCESS;
    }
    return status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_NOT_SUPPORTED;
}

tv_status_t plan_of(multiplier *all, const key &k, const void *bias, plan **plan_out)
{
    std::unique_ptr<plan> &place = all->plans[k];
    if (place == nullptr) {
        auto made = std::make_unique<plan>();
        cublasStatus_t status = describe(k, bias, made.get());
        if (status == CUBLAS_STATUS_SUCCESS)
            status = choose(all->handle, k, made.get());
        if (status != CUBLAS_STATUS_SUCCESS) {
            all->plans.erase(k);
            char what[160];
            std::snprintf(what, sizeof(what), "no algorithm for a product of %lld x %lld x %lld",
                          (long long)k.m, (long long)k.n, (long long)k.k);
            return failed(what, status);
        }
        place = std::move(made);
    }
    *plan_out = place.get();
    return TV_OK;
}
} // namespace

tv_status_t tv_lt_multiply(tv_stream *stream, cudaDataType_t stored, cudaDataType_t result,
                           const tv_matmul_args *a)
{
    const float one = 1, beta = a->accumulate ? 1 : 0;
    multiplier *all = nullptr;
    plan *p = nullptr;
    void *workspace = nullptr;
    TV_TRY(multiplier_of(stream, &all));
    TV_TRY(plan_of(all, key_of(stream, stored, result, a), a->bias, &p));
    if (p->workspace_bytes > 0)
        TV_TRY(tv_cuda_workspace(stream, p->workspace_bytes, &workspace));
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (a->bias != nullptr)
        status = set(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, a->bias);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            cublasLtMatmul(all->handle, p->operation, &one, a->b, p->a, a->a, p->b, &beta, a->c,
                           p->c, a->c, p->c, &p->algorithm, workspace, p->workspace_bytes,
                           static_cast<cudaStream_t>(tv_cuda_stream(stream)));
    return status == CUBLAS_STATUS_SUCCESS ? TV_OK : failed("a matrix product", status);
}
