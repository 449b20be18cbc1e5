/* sgemm_openblas.c -- tv_sgemm by OpenBLAS, where oneDNN writes no code for the CPU. */
#include "kernels/kernels_internal.h"
#include <cblas.h>
#include <pthread.h>

static void set_one_thread(void)
{
    openblas_set_num_threads(1);
}

void tv_sgemm(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t ld_a, const float *b, int64_t ld_b, float beta, float *c,
              int64_t ld_c)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_one_thread);
    cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
                trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a, (int)ld_a, b,
                (int)ld_b, beta, c, (int)ld_c);
}

tv_status_t tv_sgemm_status(void)
{
    return TV_OK; /* OpenBLAS has no other answer */
}
