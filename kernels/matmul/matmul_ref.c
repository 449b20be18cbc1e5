/* matmul_ref.c -- the definition: c = op(a) op(b) (+ bias) (+ c). */
#include "kernels/element_internal.h"
#include "kernels/kernels_internal.h"

/* c[i, j], given what stands there now */
static float element(const struct tv_matmul_args *a, int64_t i, int64_t j, float before)
{
    const tv_element_t *left = a->a, *right = a->b, *bias = a->bias;
    double sum = a->accumulate ? (double)before : 0;
    if (bias != NULL)
        sum += (double)tv_load(bias[j]);
    for (int64_t k = 0; k < a->k; k++) {
        const float x = tv_load(a->trans_a ? left[k * a->ld_a + i] : left[i * a->ld_a + k]);
        const float y = tv_load(a->trans_b ? right[j * a->ld_b + k] : right[k * a->ld_b + j]);
        sum += (double)x * (double)y;
    }
    return (float)sum;
}

tv_status_t TV_REF(matmul)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    (void)stream;
    tv_element_t *c = a->c;
    for (int64_t i = 0; i < a->m; i++) {
        for (int64_t j = 0; j < a->n; j++)
            c[i * a->ld_c + j] = tv_store(element(a, i, j, tv_load(c[i * a->ld_c + j])));
    }
    return TV_OK;
}

tv_status_t TV_REF(matmul_to_f32)(struct tv_stream *stream, const struct tv_matmul_args *a)
{
    (void)stream;
    float *c = a->c;
    for (int64_t i = 0; i < a->m; i++) {
        for (int64_t j = 0; j < a->n; j++)
            c[i * a->ld_c + j] = element(a, i, j, c[i * a->ld_c + j]);
    }
    return TV_OK;
}
