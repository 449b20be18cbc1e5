/* base/param.c -- how a global weight is cut over the tensor axis, and back. */
#include "base/param.h"
#include "base/rng.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Distinct parts over T ranks, and the one that rank t holds. */
static int num_parts_of(const struct tv_param *param, int T)
{
    return param->num_parts > 0 && param->num_parts < T ? param->num_parts : T;
}

static int part_of(const struct tv_param *param, int T, int t)
{
    return (int)((int64_t)t * num_parts_of(param, T) / T);
}

int64_t tv_vocabulary_share(int64_t vocab_size, int T)
{
    enum { LEAST = 4096, MULTIPLE = 64 };
    const int64_t share = (vocab_size + T - 1) / T;
    return share < LEAST ? share : (share + MULTIPLE - 1) / MULTIPLE * MULTIPLE;
}

void tv_param_local_shape(const struct tv_param *param, int T, int64_t local_shape_out[2])
{
    local_shape_out[0] = param->shape[0];
    local_shape_out[1] = param->num_dims == 1 ? 1 : param->shape[1];
    if (param->split_dim < 0)
        return;
    if (param->is_vocabulary)
        local_shape_out[0] = tv_vocabulary_share(param->shape[0], T);
    else
        local_shape_out[param->split_dim] /= num_parts_of(param, T);
}

int64_t tv_param_count(const struct tv_param *param)
{
    return param->shape[0] * (param->num_dims == 1 ? 1 : param->shape[1]);
}

int64_t tv_param_local_count(const struct tv_param *param, int T)
{
    int64_t shape[2];
    tv_param_local_shape(param, T, shape);
    return shape[0] * shape[1];
}

void tv_param_holders(const struct tv_param *param, int T, int t, int *first_out, int *num_out)
{
    if (param->split_dim < 0) {
        *first_out = 0;
        *num_out = T;
        return;
    }
    const int ranks_per_part = T / num_parts_of(param, T);
    *first_out = t / ranks_per_part * ranks_per_part;
    *num_out = ranks_per_part;
}

int tv_param_slices(const struct tv_param *param, int T, int t, struct tv_param_slice *slices,
                    int max)
{
    int64_t local[2];
    tv_param_local_shape(param, T, local);
    if (param->split_dim < 0 || param->is_vocabulary) {
        const int64_t first = param->split_dim < 0 ? 0 : (int64_t)t * local[0];
        int64_t rows = param->shape[0] - first;
        if (rows > local[0])
            rows = local[0];
        if (rows <= 0 || max < 1)
            return 0;
        slices[0] = (struct tv_param_slice){first, 0, 0, 0, rows, local[1]};
        return 1;
    }
    const int d = param->split_dim;
    const int64_t global_block = param->shape[d] / param->num_blocks;
    const int64_t local_block = local[d] / param->num_blocks;
    int num = 0;
    for (; num < param->num_blocks && num < max; num++) {
        const int64_t from = num * global_block + part_of(param, T, t) * local_block;
        const int64_t to = num * local_block;
        slices[num] = d == 0 ? (struct tv_param_slice){from, 0, to, 0, local_block, local[1]}
                             : (struct tv_param_slice){0, from, 0, to, local[0], local_block};
    }
    return num;
}

tv_status_t tv_param_table_check(const struct tv_param_table *table, int T)
{
    for (int i = 0; i < table->num_params; i++) {
        const struct tv_param *param = &table->params[i];
        if (param->split_dim < 0 || param->is_vocabulary)
            continue;
        const int parts = num_parts_of(param, T);
        const int64_t size = param->shape[param->split_dim];
        if (T % parts != 0 || size % ((int64_t)parts * param->num_blocks) != 0)
            return TV_ERR(TV_INVALID,
                          "%s: %" PRId64 " in %d block(s) cannot be cut over %d tensor ranks",
                          param->name, size, param->num_blocks, T);
    }
    return TV_OK;
}

void tv_param_table_destroy(struct tv_param_table *table)
{
    if (table == NULL)
        return;
    free(table->params);
    *table = (struct tv_param_table){0};
}

enum { MAX_BLOCKS = 8 };

/* Copy the rectangles of rank t's piece, one way or the other. */
static void copy_piece(const struct tv_param *param, int T, int t, float *to, const float *from,
                       int to_global)
{
    struct tv_param_slice slices[MAX_BLOCKS];
    int64_t shape[2];
    tv_param_local_shape(param, T, shape);
    const int64_t global_cols = param->num_dims == 1 ? 1 : param->shape[1];
    const int num = tv_param_slices(param, T, t, slices, MAX_BLOCKS);
    for (int s = 0; s < num; s++) {
        const struct tv_param_slice *c = &slices[s];
        for (int64_t r = 0; r < c->num_rows; r++) {
            const int64_t global = (c->global_row + r) * global_cols + c->global_col;
            const int64_t local = (c->local_row + r) * shape[1] + c->local_col;
            memcpy(to + (to_global ? global : local), from + (to_global ? local : global),
                   (size_t)c->num_cols * sizeof(float));
        }
    }
}

void tv_param_scatter(const struct tv_param *param, int T, int t, const float *global, float *local)
{
    copy_piece(param, T, t, local, global, 0);
}

void tv_param_gather(const struct tv_param *param, int T, int t, const float *local, float *global)
{
    copy_piece(param, T, t, global, local, 1);
}

/* Global elements [first, first + count), which lie together in the piece. */
static void fill_run(const struct tv_param *param, uint64_t key, double std, int64_t first,
                     int64_t count, float *out)
{
    if (param->init == TV_INIT_NORMAL || param->init == TV_INIT_NORMAL_RESIDUAL) {
        tv_rng_normals(key, (uint64_t)first, count, std, out);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        out[i] = param->init == TV_INIT_ONES ? 1.0f : 0.0f;
}

void tv_param_init(const struct tv_param *param, int T, int t, uint64_t seed, double std,
                   int num_layers, int num_threads, float *local_out)
{
    enum { ENOUGH = 1 << 14 }; /* elements that are worth a team */
    struct tv_param_slice slices[MAX_BLOCKS];
    int64_t shape[2];
    (void)num_threads; /* of a build without OpenMP */
    tv_param_local_shape(param, T, shape);
    const uint64_t key = tv_rng_key(seed, param->name);
    const int64_t global_cols = param->num_dims == 1 ? 1 : param->shape[1];
    if (param->init == TV_INIT_NORMAL_RESIDUAL)
        std /= sqrt(2.0 * num_layers);
    const int num = tv_param_slices(param, T, t, slices, MAX_BLOCKS);
    for (int s = 0; s < num; s++) {
        const struct tv_param_slice *c = &slices[s];
#pragma omp parallel for num_threads(num_threads)                                                  \
    schedule(static) if (c->num_rows * c->num_cols > ENOUGH)
        for (int64_t r = 0; r < c->num_rows; r++)
            fill_run(param, key, std, (c->global_row + r) * global_cols + c->global_col,
                     c->num_cols, local_out + (c->local_row + r) * shape[1] + c->local_col);
    }
    if (param->is_vocabulary) {
        const int64_t held = (num > 0 ? slices[0].num_rows : 0) * shape[1];
        memset(local_out + held, 0, (size_t)(shape[0] * shape[1] - held) * sizeof(float));
    }
}
