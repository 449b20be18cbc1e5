/* train/state.c -- the table of kinds, parts of pieces as rectangles, and who writes what. */
#include "train/state.h"
#include "train/trainer_internal.h"
#include <stdlib.h>
#include <string.h>

/* ---- kinds ---- */

static int has_weight(const struct tv_run *run, const struct tv_param *param)
{
    (void)run;
    (void)param;
    return 1;
}

static int has_momentum(const struct tv_run *run, const struct tv_param *param)
{
    return run->optimizer.kind == TV_OPTIMIZER_SGD || tv_run_is_matrix(run, param);
}

static int has_exp_avg(const struct tv_run *run, const struct tv_param *param)
{
    return !has_momentum(run, param);
}

static int has_exp_avg_sq(const struct tv_run *run, const struct tv_param *param)
{
    return !has_momentum(run, param) && run->optimizer.kind != TV_OPTIMIZER_LION;
}

/* A piece's elements; what the piece has none of is never asked for. */
static void *weight_data(const struct tv_trainer *tr, int piece)
{
    return tr->params.data + tv_piece_offset(&tr->params, &tr->sharding.pieces[piece]);
}

static void *first_moment_data(const struct tv_trainer *tr, int piece)
{
    return tv_optimizer_moment(tr->optimizer, piece, 0);
}

static void *second_moment_data(const struct tv_trainer *tr, int piece)
{
    return tv_optimizer_moment(tr->optimizer, piece, 1);
}

struct kind {
    const char *name;
    tv_dtype_t dtype;
    int (*has)(const struct tv_run *run, const struct tv_param *param);
    void *(*data)(const struct tv_trainer *tr, int piece);
    const char *sources[3];
};
/* A master, where a checkpoint has one, is the truer weight. */
static const struct kind kinds[] = {
    [TV_STATE_WEIGHT] = {"weight", TV_F32, has_weight, weight_data, {"master", "weight"}},
    [TV_STATE_EXP_AVG] = {"exp_avg", TV_F32, has_exp_avg, first_moment_data, {"exp_avg"}},
    [TV_STATE_EXP_AVG_SQ] =
        {"exp_avg_sq", TV_F32, has_exp_avg_sq, second_moment_data, {"exp_avg_sq"}},
    [TV_STATE_MOMENTUM] = {"momentum", TV_F32, has_momentum, first_moment_data, {"momentum"}},
};

const char *tv_state_name(tv_state_kind_t kind)
{
    return kinds[kind].name;
}

tv_dtype_t tv_state_dtype(const struct tv_run *run, tv_state_kind_t kind)
{
    (void)run;
    return kinds[kind].dtype;
}

int tv_state_has(const struct tv_run *run, tv_state_kind_t kind, const struct tv_param *param)
{
    return kinds[kind].has(run, param);
}

const char *const *tv_state_sources(tv_state_kind_t kind)
{
    return kinds[kind].sources;
}

tv_status_t tv_state_bytes(const struct tv_run *run, int64_t *bytes_out)
{
    struct tv_param_table table;
    TV_TRY(tv_model_param_table(&run->model, &table));
    int64_t bytes = 0;
    for (int i = 0; i < table.num_params; i++) {
        for (tv_state_kind_t kind = 0; kind < TV_NUM_STATES; kind++) {
            if (tv_state_has(run, kind, &table.params[i]))
                bytes += tv_param_count(&table.params[i]) *
                         (int64_t)tv_dtype_bytes(tv_state_dtype(run, kind));
        }
    }
    tv_param_table_destroy(&table);
    *bytes_out = bytes;
    return TV_OK;
}

/* ---- rectangles ---- */

/* Elements of a local piece, row by row: `local_rows` of them cover the range. */
struct local_rect {
    int64_t row, col, num_rows, num_cols;
};

/* A head in its row, whole rows, a tail: at most three. */
static int cut_range(int64_t cols, int64_t first, int64_t count, struct local_rect out[3])
{
    int num = 0;
    if (first % cols != 0 && count > 0) {
        const int64_t rest = cols - first % cols, n = rest < count ? rest : count;
        out[num++] = (struct local_rect){first / cols, first % cols, 1, n};
        first += n;
        count -= n;
    }
    if (count / cols > 0)
        out[num++] = (struct local_rect){first / cols, 0, count / cols, cols};
    first += count / cols * cols;
    if (count % cols > 0)
        out[num++] = (struct local_rect){first / cols, 0, 1, count % cols};
    return num;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* What a block of the piece has of a local rectangle. Returns 0 when that is nothing. */
static int intersect(const struct local_rect *rect, const struct tv_param_slice *block,
                     int64_t local_cols, struct tv_rect *out)
{
    const int64_t row = larger(rect->row, block->local_row),
                  col = larger(rect->col, block->local_col);
    const int64_t row_end = smaller(rect->row + rect->num_rows, block->local_row + block->num_rows);
    const int64_t col_end = smaller(rect->col + rect->num_cols, block->local_col + block->num_cols);
    if (row >= row_end || col >= col_end)
        return 0;
    *out = (struct tv_rect){.row = block->global_row + row - block->local_row,
                            .col = block->global_col + col - block->local_col,
                            .num_rows = row_end - row,
                            .num_cols = col_end - col,
                            .local = row * local_cols + col,
                            .local_cols = local_cols};
    return 1;
}

int tv_rects_of(const struct tv_param *param, int T, int t, int64_t first, int64_t count,
                struct tv_rect *rects_out)
{
    enum { MAX_BLOCKS = TV_MAX_RECTS / 3 };
    struct tv_param_slice blocks[MAX_BLOCKS];
    struct local_rect local[3];
    int64_t shape[2];
    int num = 0;
    tv_param_local_shape(param, T, shape);
    const int num_blocks = tv_param_slices(param, T, t, blocks, MAX_BLOCKS);
    const int num_local = cut_range(shape[1], first, count, local);
    for (int i = 0; i < num_local; i++) {
        for (int b = 0; b < num_blocks; b++)
            num += intersect(&local[i], &blocks[b], shape[1], &rects_out[num]);
    }
    return num;
}

/* ---- what a rank has ---- */

tv_status_t tv_state_parts(const struct tv_trainer *tr, struct tv_state_part **parts_out,
                           int *num_out)
{
    const struct tv_sharding *s = &tr->sharding;
    int num = 0;
    struct tv_state_part *parts =
        calloc((size_t)(s->locals.num + TV_NUM_STATES * s->num_pieces) + 1, sizeof(*parts));
    if (parts == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d parts of tensors", s->num_pieces);
    for (int i = 0; i < s->locals.num && tr->params.is_whole; i++) {
        const struct tv_local_param *local = &s->locals.params[i];
        parts[num++] = (struct tv_state_part){TV_STATE_WEIGHT, i, 0, local->count,
                                              tr->params.data + local->first};
    }
    for (int i = 0; i < s->num_pieces; i++) {
        const struct tv_owned_piece *piece = &s->pieces[i];
        const struct tv_local_param *local = &s->locals.params[piece->local];
        for (tv_state_kind_t kind = 0; kind < TV_NUM_STATES; kind++) {
            if ((kind == TV_STATE_WEIGHT && tr->params.is_whole) ||
                !tv_state_has(tr->run, kind, local->param))
                continue;
            parts[num++] = (struct tv_state_part){kind, piece->local, piece->first - local->first,
                                                  piece->count, kinds[kind].data(tr, i)};
        }
    }
    *parts_out = parts;
    *num_out = num;
    return TV_OK;
}

/* ---- what a rank writes ---- */

static tv_status_t plan_sharding(const struct tv_run *run, struct tv_mesh_coord at,
                                 struct tv_save_plan *plan)
{
    plan->sharding = calloc(1, sizeof(*plan->sharding));
    if (plan->sharding == NULL)
        return TV_ERR(TV_NO_MEMORY, "a plan of what to save");
    return tv_sharding_create(run, at.at[TV_PIPE], at.at[TV_DATA], plan->sharding);
}

/* Is it this rank, of those that hold the same elements, that writes them? */
static int writes(const struct tv_run *run, struct tv_mesh_coord at,
                  const struct tv_local_param *local)
{
    int first, num;
    tv_param_holders(local->param, run->extent.at[TV_TENSOR], at.at[TV_TENSOR], &first, &num);
    return first == at.at[TV_TENSOR] && !local->is_copy;
}

/* Replicas that own the same pieces write one range each of these, side by side. */
static struct tv_bucket_range share_of(const struct tv_run *run, struct tv_mesh_coord at,
                                       const struct tv_sharding *s)
{
    enum { BLOCK = 16 };
    const int64_t copies = run->extent.at[TV_DATA] / run->zero_group,
                  copy = at.at[TV_DATA] / run->zero_group;
    int64_t total = 0;
    for (int i = 0; i < s->num_pieces; i++) {
        if (writes(run, at, &s->locals.params[s->pieces[i].local]))
            total += s->pieces[i].count;
    }
    const int64_t blocks = (total + BLOCK - 1) / BLOCK;
    const int64_t first = smaller(blocks * copy / copies * BLOCK, total);
    return (struct tv_bucket_range){first,
                                    smaller(blocks * (copy + 1) / copies * BLOCK, total) - first};
}

/* Elements [first, first + count) of a local piece. */
static void add_range(const struct tv_run *run, struct tv_mesh_coord at, tv_state_kind_t kind,
                      int local, int64_t first, int64_t count, struct tv_save_plan *plan)
{
    const struct tv_param *param = plan->sharding->locals.params[local].param;
    struct tv_rect rects[TV_MAX_RECTS];
    const int num =
        tv_rects_of(param, run->extent.at[TV_TENSOR], at.at[TV_TENSOR], first, count, rects);
    for (int r = 0; r < num; r++) {
        plan->slices[plan->num_slices++] = (struct tv_save_slice){kind, local, param, rects[r]};
        plan->bytes += rects[r].num_rows * rects[r].num_cols *
                       (int64_t)tv_dtype_bytes(tv_state_dtype(run, kind));
    }
}

static void add_slices(const struct tv_run *run, struct tv_mesh_coord at, tv_state_kind_t kind,
                       struct tv_save_plan *plan)
{
    const struct tv_sharding *s = plan->sharding;
    const struct tv_bucket_range share = share_of(run, at, s);
    int64_t place = 0; /* of a piece, among those side by side */
    for (int i = 0; i < s->num_pieces; i++) {
        const struct tv_owned_piece *piece = &s->pieces[i];
        const struct tv_local_param *local = &s->locals.params[piece->local];
        if (!writes(run, at, local))
            continue;
        const int64_t from = larger(share.first - place, 0);
        const int64_t to = smaller(share.first + share.count - place, piece->count);
        if (from < to && tv_state_has(run, kind, local->param))
            add_range(run, at, kind, piece->local, piece->first - local->first + from, to - from,
                      plan);
        place += piece->count;
    }
}

tv_status_t tv_save_plan_create(const struct tv_run *run, struct tv_mesh_coord at,
                                struct tv_save_plan *plan_out)
{
    struct tv_save_plan plan = {0};
    tv_status_t status = plan_sharding(run, at, &plan);
    if (status == TV_OK) {
        const size_t most = (size_t)plan.sharding->num_pieces * TV_NUM_STATES * TV_MAX_RECTS;
        plan.slices = calloc(most + 1, sizeof(*plan.slices));
        if (plan.slices == NULL)
            status = TV_ERR(TV_NO_MEMORY, "%zu pieces of a checkpoint", most);
    }
    if (status != TV_OK) {
        tv_save_plan_destroy(&plan);
        return status;
    }
    for (size_t width = 8; width > 0; width /= 2) { /* wider elements first: all are aligned */
        for (tv_state_kind_t kind = 0; kind < TV_NUM_STATES; kind++) {
            if (tv_dtype_bytes(tv_state_dtype(run, kind)) == width)
                add_slices(run, at, kind, &plan);
        }
    }
    *plan_out = plan;
    return TV_OK;
}

void tv_save_plan_destroy(struct tv_save_plan *plan)
{
    if (plan->sharding != NULL)
        tv_sharding_destroy(plan->sharding);
    free(plan->sharding);
    free(plan->slices);
    memset(plan, 0, sizeof(*plan));
}
