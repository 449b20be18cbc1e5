/* train/bench_room.h -- room for the tensors of a measurement, handed out one behind the other and filled: first
 * without memory, to count it, then with it. */
#ifndef TV_TRAIN_BENCH_ROOM_H
#define TV_TRAIN_BENCH_ROOM_H
#include "base/device.h"
#include "base/dtype.h"

TV_BEGIN_C
struct tv_room {
    struct tv_stream *stream;
    tv_dtype_t dtype;   /* of weights and activations: TV_F32 or TV_BF16 */
    char *base;         /* borrowed; NULL: bytes are counted, every tensor is NULL */
    int64_t used;       /* bytes */
    tv_status_t status; /* of the first copy that failed */
};

/* Each [count], filled as tv_bench_fill does. Weights, activations and their gradients, of the room's dtype; what is
 * fp32 in every table of kernels; of any of the two dtypes. */
void *tv_take(struct tv_room *room, int64_t count);
float *tv_take_floats(struct tv_room *room, int64_t count);
void *tv_take_of(struct tv_room *room, int64_t count, tv_dtype_t dtype);
/* Each element `value`; ids all over [0, bound). */
float *tv_take_constant(struct tv_room *room, int64_t count, float value);
int32_t *tv_take_ids(struct tv_room *room, int64_t count, int64_t bound);
/* A tensor of tv_take from element `first` on; NULL of NULL. */
void *tv_room_part(const struct tv_room *room, void *data, int64_t first);
TV_END_C
#endif
