/* sgemm_openblas.c -- tv_sgemm by OpenBLAS, opened when the program starts and told which of its kernels to take.
 *
 * OpenBLAS chooses by the CPU's model number, and takes its SSE3 kernels without a word where it does not know
 * that number. It reads OPENBLAS_CORETYPE once, as it is loaded: so it is opened here, behind a constructor that
 * has set the variable by what the CPU can do. Where somebody has set it, or has loaded OpenBLAS, that stands. */
#include "base/log.h"
#include "kernels/kernels_internal.h"
#include <cblas.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <strings.h>

#define LIBRARY  "libopenblas.so.0"
#define VARIABLE "OPENBLAS_CORETYPE"

static struct {
    __typeof__(cblas_sgemm) *sgemm; /* NULL: could not be opened, and `reason` says why */
    const char *core;               /* the kernels that it takes, as it names them */
    const char *wanted;             /* that it was told to take, or NULL */
    char reason[256];
} blas;

static const char *core_for_this_cpu(void)
{
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return "SkylakeX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return __builtin_cpu_is("amd") ? "Zen" : "Haswell";
#endif
    return NULL;
}

static void *open_library(void)
{
    if (getenv(VARIABLE) == NULL)
        blas.wanted = core_for_this_cpu();
    if (blas.wanted != NULL)
        setenv(VARIABLE, blas.wanted, 0);
    void *library =
        dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL); /* stays open for the life of the process */
    if (blas.wanted != NULL)
        unsetenv(VARIABLE);
    return library;
}

/* In a constructor no other thread reads the environment. */
__attribute__((constructor)) static void open_blas(void)
{
    void *library = open_library();
    void *sgemm = library != NULL ? dlsym(library, "cblas_sgemm") : NULL;
    void *core = library != NULL ? dlsym(library, "openblas_get_corename") : NULL;
    void *threads = library != NULL ? dlsym(library, "openblas_set_num_threads") : NULL;
    if (sgemm == NULL || core == NULL || threads == NULL) {
        snprintf(blas.reason, sizeof(blas.reason), "%s", dlerror());
        return;
    }
    ((__typeof__(openblas_set_num_threads) *)threads)(1);
    blas.core = ((__typeof__(openblas_get_corename) *)core)();
    blas.sgemm = (__typeof__(cblas_sgemm) *)sgemm;
}

tv_status_t tv_blas_check(void)
{
    if (blas.sgemm == NULL)
        return TV_ERR(TV_UNSUPPORTED, "matrix products need OpenBLAS: %s", blas.reason);
    if (blas.wanted != NULL && strcasecmp(blas.wanted, blas.core) != 0)
        tv_log(TV_LOG_WARN,
               "OpenBLAS was loaded before trivet and computes with its %s kernels; %s=%s would be "
               "faster",
               blas.core, VARIABLE, blas.wanted);
    return TV_OK;
}

const char *tv_blas_core(void)
{
    return blas.core != NULL ? blas.core : "none";
}

void tv_sgemm(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t ld_a, const float *b, int64_t ld_b, float beta, float *c,
              int64_t ld_c)
{
    blas.sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
               trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a, (int)ld_a, b,
               (int)ld_b, beta, c, (int)ld_c);
}
