/* train/state.h -- what training has learned, as logical tensors: which there are, which parts of them a rank holds,
 * and which it writes into a checkpoint.
 *
 * A logical tensor is a kind (weight, a moment of the optimizer) and a row of the parameter table. A part is a range of
 * one tensor rank's piece, in elements; a rectangle is the same seen in the whole tensor. */
#ifndef TV_TRAIN_STATE_H
#define TV_TRAIN_STATE_H
#include "train/run.h"

TV_BEGIN_C
struct tv_trainer;

/* state.c has the table of kinds: a further one is a further row of it. */
typedef enum {
    TV_STATE_WEIGHT,
    TV_STATE_EXP_AVG,    /* first moment: adam, lion, and what muon leaves to adam */
    TV_STATE_EXP_AVG_SQ, /* second moment */
    TV_STATE_MOMENTUM,   /* sgd, muon's matrices */
    TV_NUM_STATES
} tv_state_kind_t;
const char *tv_state_name(tv_state_kind_t kind); /* "weight", "exp_avg", "exp_avg_sq", "momentum" */
/* Elements as they are stored. */
tv_dtype_t tv_state_dtype(const struct tv_run *run, tv_state_kind_t kind);
/* Is there one of this kind for this weight? */
int tv_state_has(const struct tv_run *run, tv_state_kind_t kind, const struct tv_param *param);
/* Kinds of a checkpoint that this one is read from, the first that is there; ends with NULL. */
const char *const *tv_state_sources(tv_state_kind_t kind);

/* Global elements [row, row + num_rows) x [col, col + num_cols); local element `local` is the first of them, and its
 * rows are `local_cols` elements apart. */
struct tv_rect {
    int64_t row, col, num_rows, num_cols;
    int64_t local, local_cols;
};
enum { TV_MAX_RECTS = 24 }; /* three for each block */
/* The rectangles of elements [first, first + count) of tensor rank t's piece, without padding, in local order of their
 * first elements. Returns how many, at most TV_MAX_RECTS. */
int tv_rects_of(const struct tv_param *param, int T, int t, int64_t first, int64_t count,
                struct tv_rect *rects_out);

/* A part that this rank has in memory: `count` elements from `first` of its local piece. */
struct tv_state_part {
    tv_state_kind_t kind;
    int local; /* index of the local weight */
    int64_t first, count;
    void *data;
};
/* All of them, copies of tied weights too; *parts_out is the caller's to free. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_state_parts(const struct tv_trainer *trainer,
                                         struct tv_state_part **parts_out, int *num_out);

/* A rectangle that one rank writes. */
struct tv_save_slice {
    tv_state_kind_t kind;
    int local; /* index of the local weight on that rank */
    const struct tv_param *param;
    struct tv_rect rect;
};
/* What one rank writes, in the order in which it lies in its shard. Over all ranks every element of every logical
 * tensor is written once: replicas that hold the same divide it, of tensor ranks that hold the
 * same the first writes, of two stages with a tied weight the embedding's. */
struct tv_save_plan {
    struct tv_sharding *sharding; /* owned; the params point into it */
    int num_slices;
    struct tv_save_slice *slices; /* owned */
    int64_t bytes;                /* of the elements */
};
/* Pure: any rank can make any other's. Errors: TV_NO_MEMORY, TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_save_plan_create(const struct tv_run *run, struct tv_mesh_coord at,
                                              struct tv_save_plan *plan_out);
void tv_save_plan_destroy(struct tv_save_plan *plan);
/* Of all ranks' elements together. Errors: TV_NO_MEMORY, TV_INVALID. */
TV_MUST_CHECK tv_status_t tv_state_bytes(const struct tv_run *run, int64_t *bytes_out);
TV_END_C
#endif
