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

char *tv_request_part_at(const struct tv_request *r, const void *data, int rank, int64_t *bytes)
{
    int64_t first;
    *bytes = tv_request_bytes(r, tv_request_part(r, rank, &first));
    return *bytes > 0 ? (char *)(uintptr_t)data + tv_request_bytes(r, first) : NULL;
}

/* ---- arithmetic ---- */

/* out may be a or b: every element is read before it is written, and no other is. */
#define REDUCE_LOOP(type, expression)                                                              \
    do {                                                                                           \
        type *into = (type *)out;                                                                  \
        const type *one = (const type *)a, *two = (const type *)b;                                 \
        _Pragma("GCC ivdep") for (int64_t i = 0; i < count; i++)                                   \
        {                                                                                          \
            const type x = one[i], y = two[i];                                                     \
            into[i] = (expression);                                                                \
        }                                                                                          \
    } while (0)

#define REDUCE_TYPE(type)                                                                          \
    do {                                                                                           \
        if (op == TV_SUM)                                                                          \
            REDUCE_LOOP(type, x + y);                                                              \
        else if (op == TV_MAX)                                                                     \
            REDUCE_LOOP(type, x > y || x != x ? x : y);                                            \
        else                                                                                       \
            REDUCE_LOOP(type, x < y || x != x ? x : y);                                            \
    } while (0)

/* out = a (op) b; a NaN on either side stays */
static void reduce(void *out, const void *a, const void *b, int64_t count, tv_dtype_t dtype,
                   tv_reduce_op_t op)
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

static void reduce_bf16(const struct tv_request *r, int64_t count, char *out)
{
    enum { BLOCK = 256 };
    float sum[BLOCK], part[BLOCK];
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t num = count - first < BLOCK ? count - first : BLOCK;
        for (int rank = 0; rank < r->comm->size; rank++) {
            const uint16_t *from = r->parts[rank];
            for (int64_t i = 0; i < num; i++)
                part[i] = tv_bf16_to_f32(from[first + i]);
            if (rank == 0)
                memcpy(sum, part, (size_t)num * sizeof(*sum));
            else
                reduce(sum, sum, part, num, TV_F32, r->reduce);
        }
        for (int64_t i = 0; i < num; i++)
            ((uint16_t *)(void *)out)[first + i] = tv_bf16_from_f32(sum[i]);
    }
}

/* Sums of more than two parts stay in the first cache until the last part: `out` may be any of them. */
void tv_reduce_in_rank_order(const struct tv_request *r, int64_t count, char *out)
{
    enum { AT_ONCE = 512 };
    double sum[AT_ONCE]; /* of elements of up to 8 bytes */
    const size_t element = tv_dtype_bytes(r->dtype);
    const int last = r->comm->size - 1;
    if (r->dtype == TV_BF16)
        reduce_bf16(r, count, out);
    for (int64_t first = 0; r->dtype != TV_BF16 && first < count; first += AT_ONCE) {
        const int64_t num = count - first < AT_ONCE ? count - first : AT_ONCE;
        const size_t place = (size_t)first * element;
        const void *so_far = (const char *)r->parts[0] + place;
        for (int rank = 1; rank <= last; rank++) {
            void *const into = rank == last ? (void *)(out + place) : sum;
            reduce(into, so_far, (const char *)r->parts[rank] + place, num, r->dtype, r->reduce);
            so_far = into;
        }
    }
}

void tv_request_set_parts(struct tv_request *r, const void *own, const char *others, int64_t count)
{
    const int64_t bytes = tv_request_bytes(r, count);
    for (int rank = 0; rank < r->comm->size; rank++) {
        r->parts[rank] = rank == r->comm->rank ? own : others;
        others = rank == r->comm->rank || others == NULL ? others : others + bytes;
    }
}
