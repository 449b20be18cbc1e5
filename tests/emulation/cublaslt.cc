// cublaslt.cc -- the double of include/cublasLt.h: column-major products in double, from the descriptors alone.
#include "emulation.h"
#include <atomic>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <vector>

struct cublasLtContext {
    int unused;
};
struct cublasLtMatmulDesc {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
    int bias_type = -1; // of d
};
struct cublasLtMatrixLayout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
};
struct cublasLtMatmulPreference {
    uint64_t workspace = 0;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
    uint32_t align_a = 256, align_b = 256, align_c = 256, align_d = 256;
};

namespace
{
std::atomic<int64_t> searches{0}, products{0};

// What an algorithm is good for, in the eight words that callers see; word 0 tells products apart.
struct Algorithm {
    uint64_t product;
    uint32_t align_a, align_b, align_c, align_d;
    uint64_t workspace;
    uint32_t reduction, magic;
    uint64_t skips; // a part of k: quick, and wrong; 2: where it adds to c alone
    uint64_t unused[2];
};
static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));
constexpr uint32_t magic = 0x7c0b1a51;

struct Product {
    cublasLtMatmulDesc desc;
    cublasLtMatrixLayout a, b, c;
    uint64_t m, n, k;
};

size_t bytes_of(cudaDataType_t type)
{
    return type == CUDA_R_16BF ? 2 : 4;
}

bool is_laid_out(const cublasLtMatrixLayout &x)
{
    return x.rows > 0 && x.cols > 0 && x.ld >= (int64_t)x.rows;
}

bool has_kernels(const Product &p)
{
    const cudaDataType_t in = p.a.type, out = p.c.type;
    const int bias = p.desc.bias_type < 0 ? out : p.desc.bias_type;
    const bool is_fp32 = in == CUDA_R_32F && out == CUDA_R_32F,
               is_bf16 = in == CUDA_R_16BF && (out == CUDA_R_16BF || out == CUDA_R_32F);
    if (p.b.type != in || (!is_fp32 && !is_bf16) || p.desc.scale != CUDA_R_32F)
        return false;
    if (p.desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? !is_fp32
                                                       : p.desc.compute != CUBLAS_COMPUTE_32F)
        return false;
    return p.desc.epilogue != CUBLASLT_EPILOGUE_BIAS || bias == out;
}

cublasStatus_t product_of(const cublasLtMatmulDesc *desc, const cublasLtMatrixLayout *a,
                          const cublasLtMatrixLayout *b, const cublasLtMatrixLayout *c,
                          const cublasLtMatrixLayout *d, Product *p)
{
    if (!desc || !a || !b || !c || !d)
        return CUBLAS_STATUS_INVALID_VALUE;
    const bool turns_a = desc->op_a == CUBLAS_OP_T, turns_b = desc->op_b == CUBLAS_OP_T;
    *p = {*desc,
          *a,
          *b,
          *c,
          turns_a ? a->cols : a->rows,
          turns_b ? b->rows : b->cols,
          turns_a ? a->rows : a->cols};
    const bool fits = (turns_b ? b->cols : b->rows) == p->k && c->rows == p->m && c->cols == p->n;
    const bool same =
        d->type == c->type && d->rows == c->rows && d->cols == c->cols && d->ld == c->ld;
    if (!is_laid_out(*a) || !is_laid_out(*b) || !is_laid_out(*c) || !fits || !same)
        return CUBLAS_STATUS_INVALID_VALUE;
    return has_kernels(*p) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

// All that an algorithm may depend on: not the pointers.
uint64_t identity(const Product &p)
{
    uint64_t value = 14695981039346656037u;
    for (uint64_t word :
         {p.m, p.n, p.k, (uint64_t)p.a.ld, (uint64_t)p.b.ld, (uint64_t)p.c.ld, (uint64_t)p.a.type,
          (uint64_t)p.c.type, (uint64_t)p.desc.op_a, (uint64_t)p.desc.op_b,
          (uint64_t)p.desc.compute, (uint64_t)p.desc.epilogue})
        value = (value ^ word) * 1099511628211u;
    return value;
}

double load(const void *data, cudaDataType_t type, int64_t index)
{
    if (type == CUDA_R_32F)
        return static_cast<const float *>(data)[index];
    return __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[index]);
}

float as_type(double x, cudaDataType_t type)
{
    return type == CUDA_R_16BF ? __bfloat162float(__float2bfloat16((float)x)) : (float)x;
}

// A factor of a product in tf32 keeps ten bits of its fraction.
double factor(double x, cublasComputeType_t compute)
{
    if (compute != CUBLAS_COMPUTE_32F_FAST_TF32)
        return x;
    const unsigned bits = __float_as_uint((float)x);
    return __uint_as_float((bits + 0xfffu + (bits >> 13 & 1)) & ~0x1fffu);
}

// One column of d from column-major factors: left [m, k], already op(a).
void column(const Product &p, const std::vector<double> &left, const void *b, uint64_t j,
            uint64_t first, uint64_t end, std::vector<double> &sum)
{
    for (uint64_t k = first; k < end; k++) {
        const int64_t at = p.desc.op_b == CUBLAS_OP_T ? (int64_t)j + (int64_t)k * p.b.ld
                                                      : (int64_t)k + (int64_t)j * p.b.ld;
        const double right = factor(load(b, p.b.type, at), p.desc.compute);
        for (uint64_t i = 0; i < p.m; i++)
            sum[i] += left[k * p.m + i] * right;
    }
}

void multiply(const Product &p, const Algorithm &algorithm, float alpha, const void *a,
              const void *b, float beta, const void *c, void *d)
{
    std::vector<double> left(p.m * p.k), sum(p.m), part(p.m);
    for (uint64_t k = 0; k < p.k; k++)
        for (uint64_t i = 0; i < p.m; i++) {
            const int64_t at = p.desc.op_a == CUBLAS_OP_T ? (int64_t)k + (int64_t)i * p.a.ld
                                                          : (int64_t)i + (int64_t)k * p.a.ld;
            left[k * p.m + i] = factor(load(a, p.a.type, at), p.desc.compute);
        }
    const uint64_t cut =
        algorithm.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE ? p.k / 2 : p.k;
    const bool is_wrong = algorithm.skips == 1 || (algorithm.skips == 2 && beta != 0);
    const uint64_t from = is_wrong ? p.k - 1 : 0;
    for (uint64_t j = 0; j < p.n; j++) {
        std::fill(sum.begin(), sum.end(), 0.0);
        column(p, left, b, j, from, cut, sum);
        if (cut < p.k) {
            std::fill(part.begin(), part.end(), 0.0);
            column(p, left, b, j, cut, p.k, part);
            for (uint64_t i = 0; i < p.m; i++)
                sum[i] = (double)as_type(sum[i], p.c.type) + as_type(part[i], p.c.type);
        }
        for (uint64_t i = 0; i < p.m; i++) {
            const int64_t at = (int64_t)i + (int64_t)j * p.c.ld;
            double x = alpha * sum[i];
            if (beta != 0)
                x += beta * load(c, p.c.type, at);
            if (p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS)
                x += load(p.desc.bias, p.c.type, (int64_t)i);
            if (p.c.type == CUDA_R_32F)
                static_cast<float *>(d)[at] = (float)x;
            else
                static_cast<__nv_bfloat16 *>(d)[at] = __float2bfloat16((float)x);
        }
    }
}

bool is_aligned(const void *data, size_t bytes)
{
    return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

template <typename Value> cublasStatus_t take(Value *to, const void *value, size_t bytes)
{
    if (bytes != sizeof(Value) || value == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
} // namespace

int64_t emulation::num_searches()
{
    return searches;
}

int64_t emulation::num_products()
{
    return products;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new cublasLtContext{0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    *desc = new cublasLtMatmulDesc{compute, scale};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&desc->op_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&desc->op_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&desc->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&desc->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return take(&desc->bias_type, value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    *layout = new cublasLtMatrixLayout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new cublasLtMatmulPreference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return take(&preference->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return take(&preference->align_a, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return take(&preference->align_b, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return take(&preference->align_c, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&preference->align_d, value, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *num_results)
{
    Product p;
    *num_results = 0;
    searches++;
    if (handle == nullptr || preference == nullptr || wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t status = product_of(desc, a, b, c, d, &p);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    const uint64_t parts = p.m * p.n * 4; // of k, to be added up in the workspace
    auto offer = [&](uint32_t reduction, uint64_t workspace, cublasStatus_t state,
                     uint64_t skips = 0) {
        if (*num_results == wanted || workspace > preference->workspace ||
            (reduction & preference->reductions) != reduction)
            return;
        const Algorithm made = {identity(p),
                                preference->align_a,
                                preference->align_b,
                                preference->align_c,
                                preference->align_d,
                                workspace,
                                reduction,
                                magic,
                                skips,
                                {}};
        cublasLtMatmulHeuristicResult_t &result = results[(*num_results)++];
        std::memcpy(&result.algo, &made, sizeof(made));
        if (state != CUBLAS_STATUS_SUCCESS)
            std::memset(&result.algo, 0, sizeof(result.algo));
        result.workspaceSize = workspace;
        result.state = state;
        result.wavesCount = 1;
    };
    offer(CUBLASLT_REDUCTION_SCHEME_NONE, 0, CUBLAS_STATUS_NOT_SUPPORTED);
    offer(CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 0, CUBLAS_STATUS_SUCCESS);
    offer(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, parts, CUBLAS_STATUS_SUCCESS);
    offer(CUBLASLT_REDUCTION_SCHEME_NONE, 0, CUBLAS_STATUS_SUCCESS);
    offer(CUBLASLT_REDUCTION_SCHEME_NONE, 0, CUBLAS_STATUS_SUCCESS, 1);
    offer(CUBLASLT_REDUCTION_SCHEME_NONE, 0, CUBLAS_STATUS_SUCCESS, 2);
    return *num_results > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    Product p;
    Algorithm algorithm;
    if (!handle || !alpha || !beta || !algo)
        return CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t status = product_of(desc, a_layout, b_layout, c_layout, d_layout, &p);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    std::memcpy(&algorithm, algo, sizeof(algorithm));
    if (algorithm.magic != magic || algorithm.product != identity(p))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (algorithm.workspace > workspace_bytes ||
        (algorithm.workspace > 0 &&
         (!emulation::is_device_memory(workspace) || !is_aligned(workspace, 16))))
        return CUBLAS_STATUS_INVALID_VALUE;
    const bool has_bias = p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (has_bias &&
        (!emulation::is_device_memory(p.desc.bias) || !is_aligned(p.desc.bias, algorithm.align_d)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!is_aligned(a, algorithm.align_a) || !is_aligned(b, algorithm.align_b) ||
        !is_aligned(c, algorithm.align_c) || !is_aligned(d, algorithm.align_d) ||
        (*static_cast<const float *>(beta) != 0 && !emulation::is_device_memory(c)))
        return CUBLAS_STATUS_INVALID_VALUE;
    for (const void *data : {a, b, (const void *)d}) {
        if (!emulation::is_device_memory(data) ||
            !is_aligned(data, bytes_of(data == d ? p.c.type : p.a.type)))
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    const float scale = *static_cast<const float *>(alpha),
                keep = *static_cast<const float *>(beta);
    products++;
    emulation::enqueue(stream, "matmul", [=] {
        const emulation::DeviceAccess access;
        if (algorithm.workspace > 0) // nothing may count on what is in it
            std::memset(workspace, 0xff, algorithm.workspace);
        multiply(p, algorithm, scale, a, b, keep, c, d);
        return true;
    });
    return CUBLAS_STATUS_SUCCESS;
}
