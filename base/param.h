/* base/param.h -- a row of the parameter table: everything that any part needs to know about one
 * weight.
 *
 * model/ fills the table for the whole model, the same on every rank; sharding, tied embeddings,
 * gradient sums, the norm that counts each weight once, initial values, import and export are all
 * derived from it.
 *
 * Units: the model is a chain of units, 0 = embedding, 1..L = layers, L+1 = head (final norm,
 * output matrix, loss); the pipeline axis cuts the chain between units.
 *
 * Split over the tensor axis (T ranks, coordinate t): along `split_dim` the global length n consists
 * of `num_blocks` equal blocks (3 for a fused query/key/value matrix, else 1); each block is cut into
 * equal parts:
 *   num_parts == 0   T parts, rank t holds part t
 *   num_parts == K   K kv heads: as above while K >= T; when K < T there are K parts, rank t holds
 *                    part t K / T, and T / K neighbouring ranks hold the same one
 * `is_vocabulary` rows do not have to divide: rank t holds rows [t h, min(n, (t+1) h)), h =
 * tv_vocabulary_share(n, T), and its local tensor always has h rows; rows beyond n are padding: zero,
 * never updated, never counted, never stored. */
#ifndef TV_BASE_PARAM_H
#define TV_BASE_PARAM_H
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

TV_BEGIN_C
enum { TV_PARAM_MAX_NAME = 96 };

typedef enum {
    TV_INIT_NORMAL,          /* std */
    TV_INIT_NORMAL_RESIDUAL, /* std / sqrt(2L): matrices that write into the residual stream */
    TV_INIT_ONES,
    TV_INIT_ZEROS
} tv_init_t;

struct tv_param {
    char name[TV_PARAM_MAX_NAME]; /* Hugging Face name */
    int unit;                     /* owner in the chain of units */
    int branch;    /* of a layer: 0 attention, 1 feed-forward, whose backward comes first; else 0 */
    int tied_unit; /* a second unit that uses the same weight (the head's), or -1 */
    int num_dims;  /* 1 or 2 */
    int64_t shape[2];  /* global, true sizes; shape[1] is 1 when num_dims is 1 */
    int split_dim;     /* 0 or 1; -1: every tensor rank holds all of it */
    int num_blocks;    /* >= 1 */
    int num_parts;     /* 0: one per tensor rank; else as above */
    int is_vocabulary; /* split_dim is 0 and rows may be padded */
    int is_for_rows;   /* applied to rows between matrices (norms, biases of row matrices): under
                      * sequence parallelism its gradient is a sum over the tensor axis */
    tv_init_t init;
    int has_decay; /* weight decay applies (two or more dimensions) */
};

struct tv_param_table {
    int num_params;
    struct tv_param *params; /* in order of units */
    int num_units;           /* L + 2 */
};

/* Rows of a vocabulary of n that each of T tensor ranks has room for: ceil(n/T), and from 4096 on a multiple of 64
 * (at most a 64th more), for matrix products are several times as fast where lines of logits are whole cache lines. */
int64_t tv_vocabulary_share(int64_t vocab_size, int T);

/* Shape of the piece that tensor rank t of T holds (padding rows included). */
void tv_param_local_shape(const struct tv_param *param, int T, int64_t local_shape_out[2]);
int64_t tv_param_count(const struct tv_param *param); /* global elements */
int64_t tv_param_local_count(const struct tv_param *param,
                             int T); /* local elements, padding included */
/* Ranks [first, first + num) of the tensor axis hold the same elements as rank t: (t, 1) for a
 * split, (0, T) for a replicated one, T/K ranks for replicated kv heads. A weight is counted in the
 * norm by rank `first` alone. */
void tv_param_holders(const struct tv_param *param, int T, int t, int *first_out, int *num_out);

/* A rectangle of rows x cols that maps global element (global_row + i, global_col + j) to the local
 * one. */
struct tv_param_slice {
    int64_t global_row, global_col, local_row, local_col, num_rows, num_cols;
};
/* The rectangles of rank t's piece, at most num_blocks of them; returns how many were written (max
 * must be >= num_blocks). Padding rows belong to none. One-dimensional tensors are [n, 1]. */
int tv_param_slices(const struct tv_param *param, int T, int t, struct tv_param_slice *slices,
                    int max);

/* Can the table be cut for T ranks? Errors: TV_INVALID naming tensor, size and T. */
TV_MUST_CHECK tv_status_t tv_param_table_check(const struct tv_param_table *table, int T);
void tv_param_table_destroy(struct tv_param_table *table); /* frees params; NULL is a no-op */

/* Copy between a rank's local piece [local_shape] and the global tensor [shape], both fp32 on the
 * host, row-major. */
void tv_param_scatter(const struct tv_param *param, int T, int t, const float *global,
                      float *local);
void tv_param_gather(const struct tv_param *param, int T, int t, const float *local, float *global);

/* Fill rank t's piece (host memory) with its initial values: a function of (seed, name, global
 * element index), whatever the threads. std: --init-method-std; num_layers: L of the residual scaling.
 * Padding becomes zero. */
void tv_param_init(const struct tv_param *param, int T, int t, uint64_t seed, double std,
                   int num_layers, int num_threads, float *local_out);
TV_END_C
#endif
