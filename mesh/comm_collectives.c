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
 * reduce_scatter, all_gather, broadcast: every piece goes straight to where it is needed.
 * Where ranks reach each other's memory, comm_direct.c takes large sums and gathers. */
#include "mesh/collectives_internal.h"
#include <string.h>

enum { SMALL_BYTES = 8192, LEAST_BLOCK_BYTES = 512 << 10 };

static int is_small(const struct tv_request *r)
{
    return tv_request_bytes(r, r->count) <= SMALL_BYTES;
}

int64_t tv_all_reduce_sent_bytes(int64_t count, tv_dtype_t dtype, int size, int rank, int peer)
{
    const int64_t element = (int64_t)tv_dtype_bytes(dtype), num_peers = size - 1;
    int64_t first;
    if (count * element <= SMALL_BYTES)
        return count * element * (peer < 0 ? num_peers : peer != rank);
    const int64_t own = tv_piece_of(count, size, rank, &first);
    if (peer < 0)
        return (count - own + num_peers * own) * element;
    return peer == rank ? 0 : (tv_piece_of(count, size, peer, &first) + own) * element;
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
static size_t scratch_bytes(const struct tv_comm *comm, const struct tv_start *s)
{
    const size_t num_peers = (size_t)comm->size - 1, element = tv_dtype_bytes(s->dtype);
    const size_t bytes = (size_t)s->count * element;
    if (tv_direct_takes(comm, s))
        return tv_direct_scratch_bytes(comm, s->op);
    if (num_peers == 0 || (s->op != TV_OP_ALL_REDUCE && s->op != TV_OP_REDUCE_SCATTER))
        return 0;
    if (s->op == TV_OP_REDUCE_SCATTER || bytes <= SMALL_BYTES)
        return num_peers * bytes;
    const struct blocks blocks = blocks_of(s->count, s->dtype, comm->size);
    return num_peers * (size_t)(blocks.num * blocks.count) * element;
}

/* Receive [size - 1, count] elements, a row from every other rank, into `place` of the scratch. */
static tv_status_t receive_all(struct tv_request *r, int64_t count, char *place)
{
    const int64_t bytes = tv_request_bytes(r, count);
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
        char *part = tv_request_part_at(r, r->send, nth_peer(r, i), &bytes);
        TV_TRY(tv_request_post(r, 0, part, bytes, nth_peer(r, i)));
    }
    return TV_OK;
}

/* Receive every peer's piece where it belongs in r->recv. */
static tv_status_t receive_pieces(struct tv_request *r)
{
    for (int peer = 0; peer < r->comm->size; peer++) {
        int64_t bytes;
        char *part = tv_request_part_at(r, r->recv, peer, &bytes);
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
    const int64_t left = tv_piece_of(r->count, r->comm->size, rank, &first) - blocks.count * k;
    *count = left < 0 ? 0 : left < blocks.count ? left : blocks.count;
    return *count > 0 ? (char *)r->recv + tv_request_bytes(r, first + blocks.count * k) : NULL;
}

/* Where the others' parts of this rank's block k arrive. */
static char *parts_of_block(const struct tv_request *r, int k)
{
    const struct blocks blocks = blocks_of(r->count, r->dtype, r->comm->size);
    return (char *)r->scratch + tv_request_bytes(r, blocks.count) * (r->comm->size - 1) * k;
}

/* Every rank's block k goes to the rank that adds it. */
static tv_status_t scatter_block(struct tv_request *r, int k)
{
    int64_t count;
    block_at(r, r->comm->rank, k, &count);
    TV_TRY(receive_all(r, count, parts_of_block(r, k)));
    for (int i = 1; i < r->comm->size; i++) {
        char *block = block_at(r, nth_peer(r, i), k, &count);
        TV_TRY(tv_request_post(r, 0, block, tv_request_bytes(r, count), nth_peer(r, i)));
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
            TV_TRY(tv_request_post(r, 1, block, tv_request_bytes(r, count), peer));
    }
    char *own = block_at(r, r->comm->rank, k, &count);
    return send_to_all(r, own, tv_request_bytes(r, count));
}

static tv_status_t start_all_reduce(struct tv_request *r)
{
    if (is_small(r)) {
        TV_TRY(receive_all(r, r->count, r->scratch));
        return send_to_all(r, r->send, tv_request_bytes(r, r->count));
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
    tv_request_set_parts(r, own, parts_of_block(r, k), count);
    tv_reduce_in_rank_order(r, count, own);
    TV_TRY(hand_round(r, k));
    r->phase++;
    r->peers_need_step = r->phase < num;
    r->num_awaited = r->phase < num ? 2 * (r->comm->size - 1) * (r->phase + 1) : r->num_messages;
    return TV_OK;
}

static tv_status_t start_all_gather(struct tv_request *r)
{
    int64_t bytes;
    char *own = tv_request_part_at(r, r->recv, r->comm->rank, &bytes);
    if (bytes > 0 && own != r->send)
        memmove(own, r->send, (size_t)bytes);
    if (r->is_direct)
        return tv_direct_start(r);
    TV_TRY(receive_pieces(r));
    return send_to_all(r, own, bytes);
}

static tv_status_t start(struct tv_request *r)
{
    const int64_t bytes = tv_request_bytes(r, r->count);
    if (r->comm->size == 1) {
        if (r->recv != r->send && bytes > 0)
            memmove(r->recv, r->send, (size_t)bytes);
        return TV_OK;
    }
    if (r->is_direct && r->op != TV_OP_ALL_GATHER)
        return tv_direct_start(r);
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
    if (r->is_direct)
        return tv_direct_advance(r, done_out);
    if (r->op == TV_OP_ALL_REDUCE && !is_small(r))
        return step_all_reduce(r, done_out);
    if (r->op != TV_OP_ALL_REDUCE && r->op != TV_OP_REDUCE_SCATTER)
        return TV_OK;
    int64_t bytes;
    const void *own =
        r->op == TV_OP_ALL_REDUCE ? r->send : tv_request_part_at(r, r->send, r->comm->rank, &bytes);
    tv_request_set_parts(r, own, r->scratch, r->count);
    tv_reduce_in_rank_order(r, r->count, r->recv);
    return TV_OK;
}

const struct tv_collectives tv_host_collectives = {
    .scratch_bytes = scratch_bytes,
    .start = start,
    .advance = advance,
};
