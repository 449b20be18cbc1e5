/* kernels/matmul/plans_cuda.cu -- one handle and one table of plans for each stream that multiplies.
 *
 * A plan is the operation, three layouts and an algorithm of those that fit the workspace; the same key gives the same
 * plan, and a plan the same order of sums. Steps repeat their shapes, so the table stops growing after the first.
 *
 * The algorithm that cuBLASLt's heuristic puts first is up to a quarter slower than another of its candidates. So with
 * the first large product of a plan all are tried on the operands at hand, and the fastest is taken of those whose
 * results have the bits of the first one's: which it is may differ from run to run, the bits do not. They write to c,
 * which the product itself then overwrites; what it adds to waits in host memory meanwhile. */
#include "kernels/matmul/plans_internal.h"
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
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

enum { MOST_CANDIDATES = 8, TIMED_LAUNCHES = 3, SUM_THREADS = 256 };
constexpr int64_t sum_blocks = 512;

/* Algorithms that can be used, as the heuristic orders them; at least one. */
struct candidates {
    cublasLtMatmulHeuristicResult_t of[MOST_CANDIDATES];
    int num = 0;
};

struct plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr; /* cuBLASLt's A is our b */
    candidates found;
    int chosen = 0;
    bool is_open = false; /* they are still to be tried */
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

cublasStatus_t search(cublasLtHandle_t handle, const key &k, const plan &p, candidates *found)
{
    cublasLtMatmulPreference_t preference = nullptr;
    int num = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    status = prefer(k, preference);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(handle, p.operation, p.a, p.b, p.c, p.c, preference,
                                                MOST_CANDIDATES, found->of, &num);
    cublasLtMatmulPreferenceDestroy(preference);
    for (int i = 0; i < num && status == CUBLAS_STATUS_SUCCESS; i++) {
        const cublasLtMatmulHeuristicResult_t one = found->of[i];
        if (one.state == CUBLAS_STATUS_SUCCESS && one.workspaceSize <= TV_LT_WORKSPACE_BYTES)
            found->of[found->num++] = one;
    }
    return status == CUBLAS_STATUS_SUCCESS && found->num == 0 ? CUBLAS_STATUS_NOT_SUPPORTED
                                                              : status;
}

/* c = op(a) op(b) (+ bias) (+ c) */
cublasStatus_t launch(tv_stream *stream, const multiplier &all, const plan &p,
                      const cublasLtMatmulHeuristicResult_t &candidate, const tv_matmul_args *a,
                      bool adds, void *workspace)
{
    const float one = 1, beta = adds ? 1 : 0;
    return cublasLtMatmul(all.handle, p.operation, &one, a->b, p.a, a->a, p.b, &beta, a->c, p.c,
                          a->c, p.c, &candidate.algo, workspace, candidate.workspaceSize,
                          static_cast<cudaStream_t>(tv_cuda_stream(stream)));
}

/* A sum of all words, each times an odd number that belongs to its place (SplitMix64): the same for the same bits, 0 of
 * zeros, and else different but once in 2^63. */
template <typename Word>
__global__ void __launch_bounds__(SUM_THREADS)
    sum_words_kernel(const Word *c, int64_t rows, int64_t cols, int64_t ld,
                     unsigned long long *sums)
{
    unsigned long long sum = 0;
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x)
        for (int64_t i = threadIdx.x; i < cols; i += blockDim.x) {
            unsigned long long z = (unsigned long long)(r * cols + i) + 0x9E3779B97F4A7C15u;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
            sum += c[r * ld + i] * ((z ^ (z >> 31)) | 1);
        }
    sum = tv_block_sum(sum);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = sum;
}

/* Trials of one plan's candidates. The host waits as tv_stream_synchronize does, under the deadline. */
struct trial {
    tv_stream *stream;
    const multiplier *all;
    const plan *p;
    const tv_matmul_args *args;
    cudaDataType_t result;
    void *workspace = nullptr;
    cudaEvent_t started = nullptr, ended = nullptr;
    std::unique_ptr<char[]> kept; /* what c held, of a product that adds to it */
    trial(tv_stream *stream_, const multiplier *all_, const plan *p_, const tv_matmul_args *args_,
          cudaDataType_t result_)
        : stream(stream_), all(all_), p(p_), args(args_), result(result_)
    {
    }
    trial(const trial &) = delete;
    trial &operator=(const trial &) = delete;
    ~trial()
    {
        if (started != nullptr)
            cudaEventDestroy(started);
        if (ended != nullptr)
            cudaEventDestroy(ended);
    }

    size_t bytes() const
    {
        return (size_t)(args->m * args->n) * (result == CUDA_R_32F ? 4 : 2);
    }

    tv_status_t open()
    {
        TV_TRY(tv_cuda_workspace(stream, TV_LT_WORKSPACE_BYTES, &workspace));
        TV_TRY(tv_cuda_status(cudaEventCreate(&started), "an event"));
        TV_TRY(tv_cuda_status(cudaEventCreate(&ended), "an event"));
        if (!args->accumulate)
            return TV_OK;
        kept.reset(new (std::nothrow) char[bytes()]);
        if (kept == nullptr)
            return TV_ERR(TV_NO_MEMORY,
                          "no %zu bytes of host memory to keep what a product of %lld x %lld x "
                          "%lld adds to while its algorithms are tried",
                          bytes(), (long long)args->m, (long long)args->n, (long long)args->k);
        return tv_cuda_copy(stream, kept.get(), args->c, bytes());
    }

    tv_status_t close() const
    {
        return kept != nullptr ? tv_cuda_copy(stream, args->c, kept.get(), bytes()) : TV_OK;
    }

    cublasStatus_t run(const cublasLtMatmulHeuristicResult_t &one, bool adds) const
    {
        return launch(stream, *all, *p, one, args, adds, workspace);
    }

    template <typename Word> tv_status_t sum(unsigned long long *sum_out) const
    {
        const auto blocks = (unsigned)(args->m < sum_blocks ? args->m : sum_blocks);
        unsigned long long sums[sum_blocks], total = 0;
        TV_TRY(tv_launch(sum_words_kernel<Word>, blocks, SUM_THREADS, 0, stream,
                         static_cast<const Word *>(args->c), args->m, args->n, args->ld_c,
                         static_cast<unsigned long long *>(workspace)));
        TV_TRY(tv_cuda_copy(stream, sums, workspace, blocks * sizeof(sums[0])));
        for (unsigned i = 0; i < blocks; i++)
            total += sums[i];
        *sum_out = total;
        return TV_OK;
    }

    /* Sums of the words of a product, and of one that adds to that: both are in the plan. Zeros where the algorithm
     * does not run after all. */
    tv_status_t sums(const cublasLtMatmulHeuristicResult_t &one, unsigned long long of[2]) const
    {
        of[0] = of[1] = 0;
        for (int adds = 0; adds < 2; adds++) {
            if (run(one, adds != 0) != CUBLAS_STATUS_SUCCESS)
                return TV_OK;
            TV_TRY(result == CUDA_R_32F ? sum<uint32_t>(&of[adds]) : sum<uint16_t>(&of[adds]));
        }
        return TV_OK;
    }

    /* Of some launches behind one that is not timed, during which the host launches them; infinite where the algorithm
     * does not run after all. */
    tv_status_t time(const cublasLtMatmulHeuristicResult_t &one, float *milliseconds_out) const
    {
        const auto on = static_cast<cudaStream_t>(tv_cuda_stream(stream));
        *milliseconds_out = INFINITY;
        for (int i = 0; i <= TIMED_LAUNCHES; i++) {
            if (run(one, args->accumulate != 0) != CUBLAS_STATUS_SUCCESS)
                return TV_OK;
            if (i == 0)
                TV_TRY(tv_cuda_status(cudaEventRecord(started, on), "an event"));
        }
        TV_TRY(tv_cuda_status(cudaEventRecord(ended, on), "an event"));
        TV_TRY(tv_cuda_synchronize(stream));
        return tv_cuda_status(cudaEventElapsedTime(milliseconds_out, started, ended),
                              "the time between events");
    }
};

/* The index of the fastest candidate with the first one's bits; 0 where that cannot be told. */
tv_status_t fastest(const trial &t, const candidates &found, int *index_out)
{
    unsigned long long want[2], got[2];
    float least = INFINITY, milliseconds;
    *index_out = 0;
    for (int i = 0; i < found.num; i++) {
        TV_TRY(t.sums(found.of[i], i == 0 ? want : got));
        if (want[0] == 0 || want[1] == 0)
            return TV_OK; /* zeros, or no first one: nothing to go by */
        if (i > 0 && (got[0] != want[0] || got[1] != want[1]))
            continue;
        TV_TRY(t.time(found.of[i], &milliseconds));
        if (milliseconds < least) {
            least = milliseconds;
            *index_out = i;
        }
    }
    return TV_OK;
}

tv_status_t make_plan(const multiplier &all, const key &k, const tv_matmul_args *a, plan *made)
{
    cublasStatus_t status = describe(k, a->bias, made);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = search(all.handle, k, *made, &made->found);
    if (status != CUBLAS_STATUS_SUCCESS) {
        char what[160];
        std::snprintf(what, sizeof(what), "no algorithm for a product of %lld x %lld x %lld",
                      (long long)k.m, (long long)k.n, (long long)k.k);
        return failed(what, status);
    }
    made->is_open = made->found.num > 1 &&
                    2.0 * (double)k.m * (double)k.n * (double)k.k >= TV_LT_MEASURED_FLOPS;
    return TV_OK;
}

/* Between rows that lie apart others may write while c is kept: an open plan then waits for a product that does not
 * add. */
tv_status_t try_candidates(tv_stream *stream, const multiplier &all, cudaDataType_t result,
                           const tv_matmul_args *a, plan *p)
{
    if (!p->is_open || (a->accumulate && a->ld_c != a->n))
        return TV_OK;
    trial t(stream, &all, p, a, result);
    TV_TRY(t.open());
    TV_TRY(fastest(t, p->found, &p->chosen));
    p->is_open = false;
    return t.close();
}

tv_status_t plan_of(multiplier *all, const key &k, const tv_matmul_args *a, plan **plan_out)
{
    const auto place = all->plans.find(k);
    if (place == all->plans.end()) {
        auto made = std::make_unique<plan>();
        TV_TRY(make_plan(*all, k, a, made.get()));
        *plan_out = made.get();
        all->plans[k] = std::move(made);
        return TV_OK;
    }
    *plan_out = place->second.get();
    return TV_OK;
}
} // namespace

tv_status_t tv_lt_multiply(tv_stream *stream, cudaDataType_t stored, cudaDataType_t result,
                           const tv_matmul_args *a)
{
    multiplier *all = nullptr;
    plan *p = nullptr;
    void *workspace = nullptr;
    TV_TRY(multiplier_of(stream, &all));
    TV_TRY(plan_of(all, key_of(stream, stored, result, a), a, &p));
    TV_TRY(try_candidates(stream, *all, result, a, p));
    const cublasLtMatmulHeuristicResult_t &chosen = p->found.of[p->chosen];
    if (chosen.workspaceSize > 0)
        TV_TRY(tv_cuda_workspace(stream, chosen.workspaceSize, &workspace));
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (a->bias != nullptr)
        status = set(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, a->bias);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = launch(stream, *all, *p, chosen, a, a->accumulate != 0, workspace);
    return status == CUBLAS_STATUS_SUCCESS ? TV_OK : failed("a matrix product", status);
}
