/* product_blas.c -- products of matrices by OpenBLAS, on CPUs for which there are none of ours: opened when the program
 * starts and told which of its kernels to take.
 *
 * OpenBLAS chooses by the CPU's model number, and takes its SSE3 kernels without a word where it does not know
 * that number. It reads OPENBLAS_CORETYPE once, as it is loaded: so it is opened here, behind a constructor that
 * has set the variable by what the CPU can do. Where somebody has set it, or has loaded OpenBLAS, that stands. */
#include "base/log.h"
#include "kernels/kernels_internal.h"
#include "kernels/matmul/product_internal.h"
#include <cblas.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LIBRARY  "libopenblas.so.0"
#define VARIABLE "OPENBLAS_CORETYPE"

static struct {
    __typeof__(cblas_sgemm) *sgemm; /* NULL: could not be opened, and `reason` says why */
    const char *core;               /* the kernels that it takes, as it names them */
    const char *wanted;             /* that it was told to take, or NULL */
    char name[64];                  /* "OpenBLAS SkylakeX" */
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

void tv_blas_open(void)
{
    if (blas.sgemm != NULL)
        return;
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
    snprintf(blas.name, sizeof(blas.name), "OpenBLAS %s", blas.core);
    blas.sgemm = (__typeof__(cblas_sgemm) *)sgemm;
}

/* In a constructor no other thread reads the environment. */
__attribute__((constructor)) static void open_where_needed(void)
{
    if (tv_product(0) == tv_product_blas)
        tv_blas_open();
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

const char *tv_blas_name(void)
{
    return blas.sgemm != NULL ? blas.name : "none";
}

/* init is c, or is copied to it: the library adds to c or clears it. */
static float beta_of(const struct tv_product_args *p)
{
    for (int64_t r = 0; p->init != NULL && p->init != p->c && r < p->m; r++)
        memcpy(p->c + r * p->ld_c, p->init + r * p->ld_init, (size_t)p->n * sizeof(float));
    return p->init != NULL ? 1.0f : 0.0f;
}

void tv_product_blas(const struct tv_product_args *p)
{
    if (p->m == 0 || p->n == 0)
        return;
    const float beta = beta_of(p);
    blas.sgemm(CblasRowMajor, p->trans_a ? CblasTrans : CblasNoTrans,
               p->trans_b ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n, (int)p->k, 1.0f, p->a,
               (int)p->ld_a, p->b, (int)p->ld_b, beta, p->c, (int)p->ld_c);
}
