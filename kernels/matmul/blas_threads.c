/* blas_threads.c -- tells OpenBLAS, once per process, to run each call on the calling thread. */
#include "kernels/kernels_internal.h"
#include <cblas.h>
#include <pthread.h>

static void set_one_blas_thread(void)
{
    openblas_set_num_threads(1);
}

void tv_use_one_blas_thread(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_one_blas_thread);
}
