/* train/bench_room.c -- tensors one behind the other, filled piece by piece. */
#include "train/bench_room.h"
#include "train/bench_peak.h"

static void *take_bytes(struct tv_room *room, int64_t bytes)
{
    void *data = room->base != NULL ? room->base + room->used : NULL;
    room->used += (bytes + 63) / 64 * 64; /* a cache line */
    return data;
}

void *tv_take_of(struct tv_room *room, int64_t count, tv_dtype_t dtype)
{
    void *data = take_bytes(room, count * (int64_t)tv_dtype_bytes(dtype));
    if (data != NULL && room->status == TV_OK)
        room->status = tv_bench_fill(room->stream, data, count, dtype);
    return data;
}

void *tv_take(struct tv_room *room, int64_t count)
{
    return tv_take_of(room, count, room->dtype);
}

float *tv_take_floats(struct tv_room *room, int64_t count)
{
    return tv_take_of(room, count, TV_F32);
}

void *tv_room_part(const struct tv_room *room, void *data, int64_t first)
{
    return data != NULL ? tv_at(data, first, room->dtype) : NULL;
}

enum { PIECE = 1024 };

static void copy_pieces(struct tv_room *room, void *data, int64_t count, const void *piece)
{
    char *at = data;
    for (int64_t first = 0; first < count && room->status == TV_OK; first += PIECE) {
        const int64_t num = count - first < PIECE ? count - first : PIECE;
        room->status = tv_stream_copy(room->stream, at + first * 4, piece, (size_t)num * 4);
        if (room->status == TV_OK)
            room->status = tv_stream_synchronize(room->stream);
    }
}

float *tv_take_constant(struct tv_room *room, int64_t count, float value)
{
    float piece[PIECE], *data = take_bytes(room, count * 4);
    for (int i = 0; i < PIECE; i++)
        piece[i] = value;
    if (data != NULL)
        copy_pieces(room, data, count, piece);
    return data;
}

int32_t *tv_take_ids(struct tv_room *room, int64_t count, int64_t bound)
{
    int32_t piece[PIECE], *data = take_bytes(room, count * 4);
    for (int i = 0; i < PIECE; i++)
        piece[i] = (int32_t)((int64_t)i * 40503 % bound);
    if (data != NULL)
        copy_pieces(room, data, count, piece);
    return data;
}
