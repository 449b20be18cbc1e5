/* sgemm_onednn.c -- tv_sgemm by oneDNN, whose code is written for the CPU's instruction set when the program runs. */
#include "kernels/kernels_internal.h"
#include <oneapi/dnnl/dnnl.h>
#include <stdatomic.h>

/* Of omp.h, which not every compiler has where the rest is built without OpenMP. */
int omp_get_max_threads(void);
void omp_set_num_threads(int num_threads);

static atomic_int has_failed;

void tv_sgemm(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t ld_a, const float *b, int64_t ld_b, float beta, float *c,
              int64_t ld_c)
{
    const int threads = omp_get_max_threads(); /* of this thread's next parallel region */
    if (threads > 1)
        omp_set_num_threads(1);
    if (dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, ld_a, b, ld_b, beta,
                   c, ld_c) != dnnl_success)
        atomic_store(&has_failed, 1);
    if (threads > 1)
        omp_set_num_threads(threads);
}

tv_status_t tv_sgemm_status(void)
{
    return atomic_load(&has_failed)
               ? TV_ERR(TV_NO_MEMORY, "no memory for a matrix product's copies")
               : TV_OK;
}
