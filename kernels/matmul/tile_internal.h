/* kernels/matmul/tile_internal.h -- products of tiles: a few dozen rows and columns of floats that lie in the
 * caches, where packing them for a library would cost as much as the product; and the exponentials between them,
 * with fused multiply-add where products have it.
 *
 * Products: c[m, n] = op(a)[m, k] b[k, n] (+ c when accumulate), on the calling thread; n a multiple of TV_TILE_STEP.
 * An element is the sum over k in order, whatever the sizes. trans_a: a is stored [k, m].
 * Of an a that is a triangle, a row is multiplied up to its end, or from its start on, and at most TV_TILE_STEP steps
 * of zeros that must lie there.
 *
 * Meanwhile a product can fetch what comes after it: a few lines with every step through k, which then cost no wait. */
#ifndef TV_KERNELS_TILE_INTERNAL_H
#define TV_KERNELS_TILE_INTERNAL_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
/* A vector that lies across two lines of a cache is read, and written, twice: tiles begin with a line. */
enum { TV_TILE_STEP = 16, TV_LINE_BYTES = 64 };
enum { TV_FETCH_STEPS = 8, TV_FETCH_BYTES = 256, TV_MAX_AREAS = 8 };

/* Rows of `bytes`, ld_bytes apart; `row` of them are fetched. */
struct tv_area {
    const char *data;
    int64_t ld_bytes, rows, bytes, row;
};
/* What products fetch into the second cache, TV_FETCH_BYTES of a row every TV_FETCH_STEPS of k; the last area first. */
struct tv_ahead {
    struct tv_area areas[TV_MAX_AREAS];
    int num;
};

/* What of `bytes` that are needed next the second cache holds beside as many that are at work: all; the half that is
 * needed first, where it is fetched when half of the work is done; nothing. */
enum tv_room_ahead { TV_AHEAD_NOTHING, TV_AHEAD_HALF, TV_AHEAD_ALL };
static inline enum tv_room_ahead tv_room_ahead(int64_t second_cache_bytes, int64_t bytes)
{
    if (16 * bytes <= 5 * second_cache_bytes)
        return TV_AHEAD_ALL;
    return 2 * bytes <= second_cache_bytes ? TV_AHEAD_HALF : TV_AHEAD_NOTHING;
}
/* Of one core, as the C library says; 1 MiB where it does not. */
int64_t tv_second_cache_bytes(void);

/* Row r of a, [m, k]: all of it; steps [0, lead + r]; steps from r - lead on. */
enum tv_tile_shape { TV_TILE_WHOLE, TV_TILE_LOWER, TV_TILE_UPPER };

struct tv_tile_args {
    int64_t m, n, k;
    const float *a;
    int64_t ld_a;
    const float *b;
    int64_t ld_b;
    float *c;
    int64_t ld_c;
    int trans_a, accumulate;
    enum tv_tile_shape shape;
    int64_t lead;
    struct tv_ahead *ahead; /* NULL: nothing to fetch */
};

/* The steps [begin, end) of k for rows [row, row + rows). */
struct tv_tile_steps {
    int64_t begin, end;
};
static inline struct tv_tile_steps tv_tile_steps_of(const struct tv_tile_args *t, int64_t row,
                                                    int64_t rows)
{
    const int64_t after = t->lead + row + rows, before = row - t->lead;
    return (struct tv_tile_steps){t->shape == TV_TILE_UPPER && before > 0 ? before : 0,
                                  t->shape == TV_TILE_LOWER && after < t->k ? after : t->k};
}

/* A strip of scores, in units of log 2, becomes exponentials: x[rows, TV_TILE_STEP] = 2^(x - shift[column]), which are
 * added to sum[column]. */
struct tv_tile_strip {
    float *x;
    int64_t ld, rows;
    const float *shift;
    float *sum;
};

/* Scores and products of do and v of one query become weights p = 2^(p - lse2) and ds = p (ds - delta) scale; p and
 * ds [n], n a multiple of TV_TILE_STEP. factor [n]: of dropout, or NULL; ds is multiplied by it before, p after. */
struct tv_tile_row {
    float *p, *ds;
    int64_t n;
    float lse2, delta, scale;
    const float *factor;
};

/* to [cols, padded rows] = from [rows, cols] turned, times scale; zero in the padding, up to a multiple of
 * TV_TILE_STEP, of which cols is one. */
struct tv_tile_turn {
    int64_t rows, cols;
    const float *from;
    int64_t ld_from;
    float scale;
    float *to;
    int64_t ld_to;
};

struct tv_tiles {
    void (*product)(const struct tv_tile_args *t);
    void (*exponentials)(const struct tv_tile_strip *t);
    void (*weights)(const struct tv_tile_row *t);
    void (*turn)(const struct tv_tile_turn *t);
};
extern const struct tv_tiles tv_tiles_avx512; /* where the build has them */
extern const struct tv_tiles tv_tiles_avx2;   /* with fused multiply-add */
extern const struct tv_tiles tv_tiles_blas;   /* any CPU: products through tv_product_blas */
/* Those that this CPU can run, fastest first; NULL from the end of the list on. All copies of the CPU
 * functions take the same ones, as they take the same BLAS. */
const struct tv_tiles *tv_tiles_of(int index);
TV_END_C
#endif
