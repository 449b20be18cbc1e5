/* mesh/comm_direct.c -- sums and gathers of ranks that reach each other's memory: threads of a process, processes of a
 * node.
 *
 * Every rank tells all others in a note where its buffer is. When all notes are here, rank j adds the j-th of n pieces
 * (its part of a reduce_scatter), block by block: reads the others' parts, adds in rank order, writes the sum into its
 * own buffer and, for an all_reduce, into everybody's. In an all_gather it copies the others' pieces from their places
 * in their buffers to the same places of its own. Then it says that it is done; its own buffer is free when all have
 * said so. A place is written by one rank alone, and nobody but that one reads it before it has; a piece of a gather
 * lies in its place before its note is sent.
 * Threads add straight out of the others' buffers; processes read a block of each into scratch memory first. A block
 * stays in the second cache from its reading to its writing, so memory sees for each element of a piece n reads and n
 * writes, or 1; by messages it also goes to scratch memory and back, and the sum is copied once more by each that
 * receives it. */
#include "mesh/collectives_internal.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Less: the two rounds of notes cost more than the copies (of all ranks' pieces, measured between 2 processes). */
enum { LEAST_BYTES = 32 << 10 };
/* Of all peers' blocks together, and of one. */
enum { BLOCKS_BYTES = 512 << 10, MOST_BYTES = 256 << 10, LEAST_BLOCK_BYTES = 8 << 10 };

/* What a rank tells the others. */
struct note {
    uint64_t place; /* of its buffer */
    int64_t bytes;  /* of all ranks' pieces */
    int64_t own;    /* of its piece; a sum of all has none */
};

static int64_t total_count(const struct tv_comm *comm, tv_op_t op, int64_t count,
                           const int64_t *counts)
{
    int64_t total = op == TV_OP_ALL_REDUCE ? count : count * comm->size;
    if (counts != NULL) {
        total = 0;
        for (int rank = 0; rank < comm->size; rank++)
            total += counts[rank];
    }
    return total;
}

int tv_direct_takes(const struct tv_comm *comm, const struct tv_start *s)
{
    const int is_known =
        s->op == TV_OP_ALL_REDUCE || s->op == TV_OP_REDUCE_SCATTER || s->op == TV_OP_ALL_GATHER;
    return comm->reach != NULL && is_known &&
           total_count(comm, s->op, s->count, s->counts) * (int64_t)tv_dtype_bytes(s->dtype) >=
               LEAST_BYTES;
}

static int64_t block_bytes(int size)
{
    const int64_t of_one = BLOCKS_BYTES / (size - 1);
    return of_one > MOST_BYTES          ? MOST_BYTES
           : of_one > LEAST_BLOCK_BYTES ? of_one / LEAST_BLOCK_BYTES * LEAST_BLOCK_BYTES
                                        : LEAST_BLOCK_BYTES;
}

/* The scratch memory: the notes of all ranks, then a block of every other process for a sum. */
size_t tv_direct_scratch_bytes(const struct tv_comm *comm, tv_op_t op)
{
    const size_t size = (size_t)comm->size;
    const int has_blocks = comm->reach->read != NULL && op != TV_OP_ALL_GATHER;
    return size * sizeof(struct note) +
           (has_blocks ? (size - 1) * (size_t)block_bytes(comm->size) : 0);
}

/* A receive from every peer, or a send to each of them: of `bytes` bytes at data + stride * the peer's rank. They
 * carry no payload, so they are not counted as such. */
static tv_status_t post_to_all(struct tv_request *r, int is_recv, char *data, int64_t stride,
                               int64_t bytes)
{
    struct tv_comm *comm = r->comm;
    const int64_t sent_bytes = comm->stats.sent_bytes;
    for (int i = 1; i < comm->size; i++) {
        const int peer = (comm->rank + i) % comm->size;
        char *place = data != NULL ? data + stride * peer : NULL;
        TV_TRY(tv_request_post(r, is_recv, place, bytes, peer));
    }
    comm->stats.sent_bytes = sent_bytes;
    return TV_OK;
}

/* Bytes of the rank's piece as this rank counts them. */
static int64_t own_bytes(const struct tv_request *r, int rank)
{
    int64_t first;
    return r->op == TV_OP_ALL_REDUCE ? 0 : tv_request_bytes(r, tv_request_part(r, rank, &first));
}

/* What the others want of this rank: all of what it adds up, or its piece of what it gathers. */
static const void *shown(const struct tv_request *r)
{
    int64_t bytes;
    if (r->op == TV_OP_ALL_GATHER)
        return tv_request_part_at(r, r->recv, r->comm->rank, &bytes);
    return r->op == TV_OP_ALL_REDUCE ? r->recv : r->send;
}

tv_status_t tv_direct_start(struct tv_request *r)
{
    struct note *notes = r->scratch, *own = &notes[r->comm->rank];
    const int64_t total = total_count(r->comm, r->op, r->count, r->counts);
    *own = (struct note){(uint64_t)(uintptr_t)shown(r), tv_request_bytes(r, total),
                         own_bytes(r, r->comm->rank)};
    TV_TRY(post_to_all(r, 1, (char *)notes, sizeof(*notes), sizeof(*notes)));
    r->is_within_reach = 1;
    r->peers_need_step = 1;
    return post_to_all(r, 0, (char *)own, 0, sizeof(*own));
}

static tv_status_t check_note(const struct tv_request *r, int peer, int64_t expected, int64_t told)
{
    if (expected == told)
        return TV_OK;
    return TV_ERR(TV_PEER,
                  "%s axis: %s of %" PRId64 " elements: rank %d expects %" PRId64
                  " bytes and rank %d sends %" PRId64,
                  r->comm->name, tv_op_name(r->op), r->count, r->comm->rank, expected, peer, told);
}

static tv_status_t check_notes(const struct tv_request *r)
{
    const struct note *notes = r->scratch, *own = &notes[r->comm->rank];
    for (int peer = 0; peer < r->comm->size; peer++) {
        TV_TRY(check_note(r, peer, own->bytes, notes[peer].bytes));
        TV_TRY(check_note(r, peer, own_bytes(r, peer), notes[peer].own));
    }
    return TV_OK;
}

static tv_status_t read_from(const struct tv_comm *comm, int peer, uint64_t place, void *to,
                             size_t bytes)
{
    if (comm->reach->read != NULL)
        return comm->reach->read(comm, peer, place, to, bytes);
    memcpy(to, (const void *)(uintptr_t)place, bytes);
    return TV_OK;
}

static tv_status_t write_to(const struct tv_comm *comm, int peer, uint64_t place, const void *from,
                            size_t bytes)
{
    if (comm->reach->write != NULL)
        return comm->reach->write(comm, peer, place, from, bytes);
    memcpy((void *)(uintptr_t)place, from, bytes);
    return TV_OK;
}

/* `bytes` bytes of all ranks' buffers, from `place` on, are r->parts. */
static tv_status_t find_parts(struct tv_request *r, uint64_t place, size_t bytes)
{
    const struct tv_comm *comm = r->comm;
    const struct note *notes = r->scratch;
    char *at = (char *)r->scratch + sizeof(*notes) * (size_t)comm->size;
    for (int rank = 0; rank < comm->size; rank++) {
        const uint64_t there = notes[rank].place + place;
        r->parts[rank] = (const void *)(uintptr_t)there;
        if (rank == comm->rank || comm->reach->read == NULL)
            continue;
        TV_TRY(comm->reach->read(comm, rank, there, at, bytes));
        r->parts[rank] = at;
        at += bytes;
    }
    return TV_OK;
}

/* Elements [first, first + count) of all ranks' buffers, of this rank's piece, into `out`. */
static tv_status_t add_block(struct tv_request *r, int64_t first, int64_t count, char *out)
{
    const struct tv_comm *comm = r->comm;
    const struct note *notes = r->scratch;
    const uint64_t place = (uint64_t)tv_request_bytes(r, first);
    const size_t bytes = (size_t)tv_request_bytes(r, count);
    TV_TRY(find_parts(r, place, bytes));
    tv_reduce_in_rank_order(r, count, out);
    for (int i = 1; i < comm->size && r->op == TV_OP_ALL_REDUCE; i++) {
        const int peer = (comm->rank + i) % comm->size;
        TV_TRY(write_to(comm, peer, notes[peer].place + place, out, bytes));
    }
    return TV_OK;
}

static tv_status_t add_piece(struct tv_request *r)
{
    struct tv_comm *comm = r->comm;
    const int is_whole = r->op == TV_OP_ALL_REDUCE;
    int64_t first;
    const int64_t count = is_whole ? tv_piece_of(r->count, comm->size, comm->rank, &first)
                                   : tv_request_part(r, comm->rank, &first);
    const int64_t at_once = block_bytes(comm->size) / tv_request_bytes(r, 1);
    char *const out = (char *)r->recv + (is_whole ? tv_request_bytes(r, first) : 0);
    for (int64_t done = 0; done < count; done += at_once) {
        const int64_t num = count - done < at_once ? count - done : at_once;
        TV_TRY(add_block(r, first + done, num, out + tv_request_bytes(r, done)));
    }
    const int64_t total = total_count(comm, r->op, r->count, r->counts);
    comm->stats.sent_bytes +=
        is_whole ? tv_all_reduce_sent_bytes(r->count, r->dtype, comm->size, comm->rank, -1)
                 : tv_request_bytes(r, total - count);
    return TV_OK;
}

static tv_status_t gather_pieces(struct tv_request *r)
{
    struct tv_comm *comm = r->comm;
    const struct note *notes = r->scratch;
    for (int i = 1; i < comm->size; i++) {
        const int peer = (comm->rank + i) % comm->size;
        int64_t bytes;
        char *const part = tv_request_part_at(r, r->recv, peer, &bytes);
        if (bytes > 0)
            TV_TRY(read_from(comm, peer, notes[peer].place, part, (size_t)bytes));
    }
    comm->stats.sent_bytes += own_bytes(r, comm->rank) * (comm->size - 1);
    return TV_OK;
}

/* May this rank look into its peers' memory? Then leave() comes after it. */
static int enter(struct tv_gate *gate)
{
    if (gate == NULL)
        return 1;
    atomic_fetch_add(&gate->num_inside, 1);
    if (!atomic_load(&gate->is_closed))
        return 1;
    atomic_fetch_sub(&gate->num_inside, 1);
    return 0;
}

static void leave(struct tv_gate *gate)
{
    if (gate != NULL)
        atomic_fetch_sub(&gate->num_inside, 1);
}

/* Where the gate is closed a peer has given up: it will end the job, or the deadline will. */
static tv_status_t move_and_tell(struct tv_request *r)
{
    struct tv_gate *gate = r->comm->reach->gate;
    TV_TRY(check_notes(r));
    TV_TRY(post_to_all(r, 1, NULL, 0, 0));
    if (!enter(gate))
        return TV_OK;
    const tv_status_t status = r->op == TV_OP_ALL_GATHER ? gather_pieces(r) : add_piece(r);
    leave(gate);
    return status == TV_OK ? post_to_all(r, 0, NULL, 0, 0) : status;
}

tv_status_t tv_direct_advance(struct tv_request *r, int *done_out)
{
    *done_out = r->phase == 1; /* all have said that they are done */
    r->is_within_reach = r->phase == 0;
    if (r->phase == 1)
        return TV_OK;
    TV_TRY(move_and_tell(r));
    r->phase = 1;
    r->peers_need_step = 0;
    r->num_awaited = r->num_messages;
    return TV_OK;
}

/* Of a process nobody knows when its peers are out, and it is at its end: the operation has failed. */
void tv_direct_give_up(struct tv_request *request)
{
    struct tv_gate *gate = request->comm->reach->gate;
    request->is_within_reach = 0;
    if (gate == NULL)
        return;
    atomic_store(&gate->is_closed, 1);
    for (int rounds = 0; atomic_load(&gate->num_inside) > 0; rounds++)
        tv_comm_relax(rounds);
}

void tv_comm_forget_reach(struct tv_comm *comm)
{
    free(comm->reach);
    comm->reach = NULL;
}
