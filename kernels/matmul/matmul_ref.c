/* matmul_ref.c -- the definition: c = op(a) op(b) (+ bias) (+ c). */
#include "kernels/kernels_internal.h"

tv_status_t tv_matmul_ref(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    (void)stream;
    for (int64_t i = 0; i < a->m; i++) {
        for (int64_t j = 0; j < a->n; j++) {
            double sum = a->accumulate ? (double)a->c[i * a->ld_c + j] : 0;
            if (a->bias != NULL)
                sum += (double)a->bias[j];
            for (int64_t k = 0; k < a->k; k++) {
                const float x = a->trans_a ? a->a[k * a->ld_a + i] : a->a[i * a->ld_a + k];
                const float y = a->trans_b ? a->b[j * a->ld_b + k] : a->b[k * a->ld_b + j];
                sum += (double)x * (double)y;
            }
            a->c[i * a->ld_c + j] = (float)sum;
        }
    }
    return TV_OK;
}
