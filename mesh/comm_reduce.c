/* mesh/comm_reduce.c -- which elements of a collective are whose, and their sums in rank order: sums of bf16 are added
 * up in fp32 and rounded once. */
#include "mesh/collectives_internal.h"
#include <string.h>

int64_t tv_request_bytes(const struct tv_request *r, int64_t count)
{
    return count * (int64_t)tv_dtype_bytes(r->dtype);
}

int64_t tv_piece_of(int64_t total, int n, int rank, int64_t *first)
{
    const int64_t whole = (total + n - 1) / n;
    *first = whole * rank < total ? whole * rank : total;
    return total - *first < whole ? total - *first : whole;
}

int64_t tv_request_part(const struct tv_request *r, int rank, int64_t *first)
{
    *first = r->counts == NULL ? r->count * rank : 0;
    for (int before = 0; r->counts != NULL && before < rank; before++)
        *first += r->counts[before];
    return r->counts == NULL ? r->count : r->counts[rank];
}

/* ---- arithmetic ---- */

#define REDUCE_LOOP(type, expression)                                                              \
    do {                                                                                           \
        type *restrict a = (type *)into;                                                           \
        const type *restrict b = (const type *)from;                                               \
        for (int64_t i = 0; i < count; i++)                                                        \
            a[i] = (expression);                                                                   \
    } while (0)

#define REDUCE_TYPE(type)                                                                          \
    do {                                                                                           \
        if (op == TV_SUM)                                                                          \
            REDUCE_LOOP(type, a[i] + b[i]);                                                        \
        else if (op == TV_MAX)                                                                     \
            REDUCE_LOOP(type, a[i] > b[i] || a[i] != a[i] ? a[i] : b[i]);                          \
        else                                                                                       \
            REDUCE_LOOP(type, a[i] < b[i] || a[i] != a[i] ? a[i] : b[i]);                          \
    } while (0)

/* into = into (op) from; a NaN on either side stays */
static void reduce(void *into, const void *from, int64_t count, tv_dtype_t dtype, tv_reduce_op_t op)
{
    switch (dtype) {
    case TV_F32:
        REDUCE_TYPE(float);
        break;
    case TV_F64:
        REDUCE_TYPE(double);
        break;
    case TV_I32:
        REDUCE_TYPE(int32_t);
        break;
    case TV_I64:
        REDUCE_TYPE(int64_t);
        break;
    case TV_BF16: /* reduce_bf16 */
    case TV_U8:   /* refused at the start */
        break;
    }
}

/* The rank's part of tv_reduce_in_rank_order. */
static const void *part_from(const struct tv_request *r, int rank, const void *own,
                             const char *others, size_t bytes)
{
    const int own_rank = r->comm->rank;
    return rank == own_rank ? own : others + bytes * (size_t)(rank < own_rank ? rank : rank - 1);
}

static void reduce_bf16(const struct tv_request *r, const void *own, const char *others,
                        int64_t count, char *out)
{
    enum { BLOCK = 256 };
    const size_t bytes = (size_t)count * sizeof(uint16_t);
    float sum[BLOCK], part[BLOCK];
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t num = count - first < BLOCK ? count - first : BLOCK;
        for (int rank = 0; rank < r->comm->size; rank++) {
            const uint16_t *from = part_from(r, rank, own, others, bytes);
            for (int64_t i = 0; i < num; i++)
                part[i] = tv_bf16_to_f32(from[first + i]);
            if (rank == 0)
                memcpy(sum, part, (size_t)num * sizeof(*sum));
            else
                reduce(sum, part, num, TV_F32, r->reduce);
        }
        for (int64_t i = 0; i < num; i++)
            ((uint16_t *)(void *)out)[first + i] = tv_bf16_from_f32(sum[i]);
    }
}

void tv_reduce_in_rank_order(const struct tv_request *r, const void *own, const char *others,
                             int64_t count, char *out)
{
    enum { AT_ONCE = 512 };
    double sum[AT_ONCE]; /* of elements of up to 8 bytes */
    const size_t element = tv_dtype_bytes(r->dtype), bytes = (size_t)count * element;
    if (r->dtype == TV_BF16)
        reduce_bf16(r, own, others, count, out);
    for (int64_t first = 0; r->dtype != TV_BF16 && first < count; first += AT_ONCE) {
        const int64_t num = count - first < AT_ONCE ? count - first : AT_ONCE;
        const size_t place = (size_t)first * element;
        for (int rank = 0; rank < r->comm->size; rank++) {
            const char *part = (const char *)part_from(r, rank, own, others, bytes) + place;
            if (rank == 0)
                memcpy(sum, part, (size_t)num * element);
            else
                reduce(sum, part, num, r->dtype, r->reduce);
        }
        memcpy(out + place, sum, (size_t)num * element);
    }
}
