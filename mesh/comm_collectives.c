/* mesh/comm_collectives.c -- collectives as state machines over messages; a sum over ranks is
 * always ((x0 + x1) + x2) + ...
 *
 * all_reduce of b <= SMALL_BYTES: everybody sends everything to everybody and adds for itself; one
 * round, (n-1) b bytes sent per rank.
 * all_reduce of more: rank j adds the j-th of n pieces for all, then hands its sum to everybody: 2 (n-1)/n b
 * bytes, as a ring sends. A piece goes in some blocks of LEAST_BLOCK_BYTES or more: while one is added, others are on
 * their way to be added and to be handed round. All are posted at once: over TCP a large message waits for both ranks
 * to look at it before it moves. Both add in rank order, so the size changes no bit. Sums of bf16 are added up in fp32
 * and rounded once.
 * reduce_scatter, all_gather, broadcast: every piece goes straight to where it is needed. */
#include "mesh/comm_internal.h"
#include <string.h>

enum { SMALL_BYTES = 8192, LEAST_BLOCK_BYTES = 512 << 10 };

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

/* The rank's part of reduce_in_rank_order. */
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

/* out [count] = the parts of all ranks, combined in order; own [count] is this rank's, and others
 * [size - 1, count] are the rest in rank order. out may be own. */
static void reduce_in_rank_order(const struct tv_request *r, const void *own, const char *others,
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

static int64_t bytes_of(const struct tv_request *r, int64_t count)
{
    return count * (int64_t)tv_dtype_bytes(r->dtype);
}

/* Elements [*first, *first + count) are the rank's piece of `total` over n ranks; returns count. */
static int64_t piece_of(int64_t total, int n, int rank, int64_t *first)
{
    const int64_t whole = (total + n - 1) / n;
    *first = whole * rank < total ? whole * rank : total;
    return total - *first < whole ? total - *first : whole;
}

/* The same of a reduce_scatter or all_gather, whose sizes the caller may have given. */
static int64_t part_of(const struct tv_request *r, int rank, int64_t *first)
{
    *first = r->counts == NULL ? r->count * rank : 0;
    for (int before = 0; r->counts != NULL && before < rank; before++)
        *first += r->counts[before];
    return r->counts == NULL ? r->count : r->counts[rank];
}

/* The rank's piece in an array of all pieces, which may be NULL when it is empty; its bytes. */
static char *part_at(const struct tv_request *r, const void *data, int rank, int64_t *bytes)
{
    int64_t first;
    *bytes = bytes_of(r, part_of(r, rank, &first));
    return *bytes > 0 ? (char *)(uintptr_t)data + bytes_of(r, first) : NULL;
}

static int is_small(const struct tv_request *r)
{
    return bytes_of(r, r->count) <= SMALL_BYTES;
}

int64_t tv_all_reduce_sent_bytes(int64_t count, tv_dtype_t dtype, int size, int rank, int peer)
{
    const int64_t element = (int64_t)tv_dtype_bytes(dtype), num_peers = size - 1;
    int64_t first;
    if (count * element <= SMALL_BYTES)
        return count * element * (peer < 0 ? num_peers : peer != rank);
    const int64_t own = piece_of(count, size, rank, &first);
    if (peer < 0)
        return (count - own + num_peers * own) * element;
    return peer == rank ? 0 : (piece_of(count, size, peer, &first) + own) * element;
}

/* ---- blocks of a large all_reduce ---- */

/* How a piece is cut: the same for all ranks; a shorter piece has shorter blocks at its end. */
struct blocks {
    int64_t count; /* of all but the last */
    int num;
};

static int most_blocks(int size)
{
    enum { MESSAGES = 16 };
    return MESSAGES / (size - 1) > 1 ? MESSAGES / (size - 1) : 1;
}

static struct blocks blocks_of(int64_t count, tv_dtype_t dtype, int size)
{
    const int64_t least = LEAST_BLOCK_BYTES / (int64_t)tv_dtype_bytes(dtype);
    const int64_t whole = (count + size - 1) / size;
    int64_t of_one = (whole + most_blocks(size) - 1) / most_blocks(size);
    of_one = of_one > least ? of_one : least;
    of_one = of_one < whole ? of_one : whole;
    return (struct blocks){of_one, (int)((whole + of_one - 1) / of_one)};
}

/* From and to every peer, to be added and to be handed round. */
int tv_collective_max_messages(int size)
{
    return size == 1 ? 1 : 4 * most_blocks(size) * (size - 1);
}

/* The parts that a rank receives. */
static size_t scratch_bytes(const struct tv_comm *comm, tv_op_t op, int64_t count, tv_dtype_t dtype)
{
    const size_t num_peers = (size_t)comm->size - 1, element = tv_dtype_bytes(dtype);
    const size_t bytes = (size_t)count * element;
    if (num_peers == 0 || (op != TV_OP_ALL_REDUCE && op != TV_OP_REDUCE_SCATTER))
        return 0;
    if (op == TV_OP_REDUCE_SCATTER || bytes <= SMALL_BYTES)
        return num_peers * bytes;
    const struct blocks blocks = blocks_of(count, dtype, comm->size);
    return num_peers * (size_t)(blocks.num * blocks.count) * element;
}

/* Receive [size - 1, count] elements, a row from every other rank, into `place` of the scratch. */
static tv_status_t receive_all(struct tv_request *r, int64_t count, char *place)
{
    const int64_t bytes = bytes_of(r, count);
    for (int peer = 0; peer < r->comm->size; peer++) {
        if (peer == r->comm->rank)
            continue;
        TV_TRY(tv_request_post(r, 1, bytes > 0 ? place : NULL, bytes, peer));
        place = bytes > 0 ? place + bytes : place;
    }
    return TV_OK;
}

/* Peers in an order that starts behind this rank: not everybody sends to rank 0 first. */
static int nth_peer(const struct tv_request *r, int i)
{
    return (r->comm->rank + i) % r->comm->size;
}

static tv_status_t send_to_all(struct tv_request *r, const void *data, int64_t bytes)
{
    for (int i = 1; i < r->comm->size; i++)
        TV_TRY(tv_request_post(r, 0, (void *)(uintptr_t)data, bytes, nth_peer(r, i)));
    return TV_OK;
}

/* Send the peer's piece of r->send to each peer. */
static tv_status_t send_pieces(struct tv_request *r)
{
    for (int i = 1; i < r->comm->size; i++) {
        int64_t bytes;
        char *part = part_at(r, r->send, nth_peer(r, i), &bytes);
        TV_TRY(tv_request_post(r, 0, part, bytes, nth_peer(r, i)));
    }
    return TV_OK;
}

/* Receive every peer's piece where it belongs in r->recv. */
static tv_status_t receive_pieces(struct tv_request *r)
{
    for (int peer = 0; peer < r->comm->size; peer++) {
        int64_t bytes;
        char *part = part_at(r, r->recv, peer, &bytes);
        if (peer != r->comm->rank)
            TV_TRY(tv_request_post(r, 1, part, bytes, peer));
    }
    return TV_OK;
}

/* The rank's block k in the buffer, NULL when it is empty; its elements. */
static char *block_at(const struct tv_request *r, int rank, int k, int64_t *count)
{
    const struct blocks blocks = blocks_of(r->count, r->dtype, r->comm->size);
    int64_t first;
    const int64_t left = piece_of(r->count, r->comm->size, rank, &first) - blocks.count * k;
    *count = left < 0 ? 0 : left < blocks.count ? left : blocks.count;
    return *count > 0 ? (char *)r->recv + bytes_of(r, first + blocks.count * k) : NULL;
}

/* Where the others' parts of this rank's block k arrive. */
static char *parts_of_block(const struct tv_request *r, int k)
{
    const struct blocks blocks = blocks_of(r->count, r->dtype, r->comm->size);
    return (char *)r->scratch + bytes_of(r, blocks.count) * (r->comm->size - 1) * k;
}

/* Every rank's block k goes to the rank that adds it. */
static tv_status_t scatter_block(struct tv_request *r, int k)
{
    int64_t count;
    block_at(r, r->comm->rank, k, &count);
    TV_TRY(receive_all(r, count, parts_of_block(r, k)));
    for (int i = 1; i < r->comm->size; i++) {
        char *block = block_at(r, nth_peer(r, i), k, &count);
        TV_TRY(tv_request_post(r, 0, block, bytes_of(r, count), nth_peer(r, i)));
    }
    return TV_OK;
}

/* The sum of this rank's block k goes to everybody. */
static tv_status_t hand_round(struct tv_request *r, int k)
{
    int64_t count;
    for (int peer = 0; peer < r->comm->size; peer++) {
        char *block = block_at(r, peer, k, &count);
        if (peer != r->comm->rank)
            TV_TRY(tv_request_post(r, 1, block, bytes_of(r, count), peer));
    }
    char *own = block_at(r, r->comm->rank, k, &count);
    return send_to_all(r, own, bytes_of(r, count));
}

static tv_status_t start_all_reduce(struct tv_request *r)
{
    if (is_small(r)) {
        TV_TRY(receive_all(r, r->count, r->scratch));
        return send_to_all(r, r->send, bytes_of(r, r->count));
    }
    const int num = blocks_of(r->count, r->dtype, r->comm->size).num;
    for (int k = 0; k < num; k++)
        TV_TRY(scatter_block(r, k));
    r->peers_need_step = 1;
    r->num_awaited = r->num_messages / num; /* those of the first block */
    return TV_OK;
}

/* Block r->phase is here from all ranks: add it and hand the sum round. */
static tv_status_t step_all_reduce(struct tv_request *r, int *done_out)
{
    const int num = blocks_of(r->count, r->dtype, r->comm->size).num, k = r->phase;
    int64_t count;
    *done_out = k == num; /* all sums are here too */
    if (k == num)
        return TV_OK;
    char *own = block_at(r, r->comm->rank, k, &count);
    reduce_in_rank_order(r, own, parts_of_block(r, k), count, own);
    TV_TRY(hand_round(r, k));
    r->phase++;
    r->peers_need_step = r->phase < num;
    r->num_awaited = r->phase < num ? 2 * (r->comm->size - 1) * (r->phase + 1) : r->num_messages;
    return TV_OK;
}

static tv_status_t start_all_gather(struct tv_request *r)
{
    int64_t bytes;
    char *own = part_at(r, r->recv, r->comm->rank, &bytes);
    if (bytes > 0 && own != r->send)
        memmove(own, r->send, (size_t)bytes);
    TV_TRY(receive_pieces(r));
    return send_to_all(r, own, bytes);
}

static tv_status_t start(struct tv_request *r)
{
    const int64_t bytes = bytes_of(r, r->count);
    if (r->comm->size == 1) {
        if (r->recv != r->send && bytes > 0)
            memmove(r->recv, r->send, (size_t)bytes);
        return TV_OK;
    }
    switch (r->op) {
    case TV_OP_ALL_REDUCE:
        return start_all_reduce(r);
    case TV_OP_REDUCE_SCATTER:
        TV_TRY(receive_all(r, r->count, r->scratch));
        return send_pieces(r);
    case TV_OP_ALL_GATHER:
        return start_all_gather(r);
    default:
        if (r->comm->rank == r->root)
            return send_to_all(r, r->send, bytes);
        return tv_request_post(r, 1, r->recv, bytes, r->root);
    }
}

static tv_status_t advance(struct tv_request *r, int *done_out)
{
    *done_out = 1;
    if (r->comm->size == 1)
        return TV_OK;
    if (r->op == TV_OP_ALL_REDUCE && !is_small(r))
        return step_all_reduce(r, done_out);
    int64_t bytes;
    if (r->op == TV_OP_ALL_REDUCE)
        reduce_in_rank_order(r, r->send, r->scratch, r->count, r->recv);
    else if (r->op == TV_OP_REDUCE_SCATTER)
        reduce_in_rank_order(r, part_at(r, r->send, r->comm->rank, &bytes), r->scratch, r->count,
                             r->recv);
    return TV_OK;
}

const struct tv_collectives tv_host_collectives = {
    .scratch_bytes = scratch_bytes,
    .start = start,
    .advance = advance,
};
