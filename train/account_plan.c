/* train/account_plan.c -- what the ranks of a stage send in a step: first the list of operations, which all of them
 * share, then each rank's part of every operation. */
#include "train/account.h"
#include "train/sharding.h"
#include <stdlib.h>

typedef enum {
    OPERATION_SUM,     /* all-reduce of `count` elements */
    OPERATION_PIECES,  /* reduce-scatter or all-gather: `count` elements to every peer */
    OPERATION_SCATTER, /* reduce-scatter of pieces of any sizes: counts[peer] elements to each */
    OPERATION_GATHER,  /* all-gather of them: counts[this member] elements to every peer */
    OPERATION_RING,    /* `count` elements to the next member, once for each peer */
    OPERATION_MESSAGE  /* `count` elements to the member `peer` */
} operation_kind_t;

/* One kind of operation of a step, and who takes part in it: `num` ranks along an axis, `stride` apart, this rank
 * among them; axis TV_NUM_AXES: the ranks of the mesh. */
struct operation {
    enum tv_account account;
    operation_kind_t kind;
    int axis, first, num, stride, peer;
    tv_dtype_t dtype;
    int64_t count, times;
    /* Of pieces of any sizes, by member; in place of count by number in the group that shares; or NULL. */
    const int64_t *counts;
};

struct plan {
    const struct tv_run *run;
    const struct tv_schedule *schedule;
    int stage;
    int num, capacity;
    struct operation *operations; /* owned */
    struct tv_sharding sharding;  /* owned */
    /* By number in the group that shares, owned: elements of its shards, all of them and those that tensor ranks sum
     * because each has its rows' part [zero_group]; of each local weight [locals, zero_group]. */
    int64_t *own_counts, *row_counts, *piece_counts;
};

const char *tv_account_name(enum tv_account account)
{
    static const char *const names[TV_NUM_ACCOUNTS] = {[TV_ACCOUNT_PIPE] = "pipe",
                                                       [TV_ACCOUNT_DATA] = "data",
                                                       [TV_ACCOUNT_TENSOR] = "tensor",
                                                       [TV_ACCOUNT_TIED] = "tied",
                                                       [TV_ACCOUNT_WORLD] = "world"};
    return names[account];
}

static tv_status_t add(struct plan *plan, struct operation operation)
{
    if (operation.times == 0 || operation.num < 2)
        return TV_OK;
    if (plan->num == plan->capacity) {
        const int capacity = 2 * plan->capacity + 16;
        struct operation *grown =
            realloc(plan->operations, (size_t)capacity * sizeof(*plan->operations));
        if (grown == NULL)
            return TV_ERR(TV_NO_MEMORY, "%d operations of a step", capacity);
        plan->operations = grown;
        plan->capacity = capacity;
    }
    plan->operations[plan->num++] = operation;
    return TV_OK;
}

/* An operation over a whole axis. */
static struct operation over_axis(const struct plan *plan, enum tv_mesh_axis axis,
                                  operation_kind_t kind, tv_dtype_t dtype, int64_t count,
                                  int64_t times)
{
    return (struct operation){.account = (enum tv_account)axis,
                              .kind = kind,
                              .axis = (int)axis,
                              .num = plan->run->extent.at[axis],
                              .stride = 1,
                              .dtype = dtype,
                              .count = count,
                              .times = times};
}

/* ---- the walk of the schedule ---- */

/* What passes through one chunk between pairs of matrices: sums of [R, C], which under sequence parallelism scatter
 * the rows; gathers, of rows and under sequence parallelism alone; losses. */
struct row_traffic {
    int64_t sums, gathers, losses;
};

static void add_rows(struct row_traffic *total, int64_t times, struct row_traffic one)
{
    total->sums += times * one.sums;
    total->gathers += times * one.gathers;
    total->losses += times * one.losses;
}

/* num [TV_NUM_ACTION_KINDS]: the stage's actions of this chunk. */
static struct row_traffic chunk_rows(const struct plan *plan, int chunk, const int64_t *num)
{
    const struct tv_run *run = plan->run;
    const int head = run->model.num_layers + 1;
    const struct tv_unit_range units =
        run->pieces[tv_schedule_position(plan->schedule, plan->stage, chunk)];
    const int E = units.first == 0, H = units.first + units.num == head + 1;
    const int L = units.num - E - H;
    const struct row_traffic forward = {.sums = 2 * L + E, .gathers = 2 * L};
    /* Made again: the output of the chunk's last unit is not needed. */
    const struct row_traffic again = {.sums = forward.sums - !H, .gathers = forward.gathers};
    const struct row_traffic norms = {.gathers = 2 * L};
    /* Into the norms; with dy whole, into the row matrices; the head, which has no other part. */
    const struct row_traffic input = {.sums = 2 * L + H, .gathers = 2 * L + H, .losses = H};
    const struct row_traffic table = {.gathers = E}, matrices = {.gathers = 2 * L + E};
    const int64_t backwards = num[TV_ACT_BACKWARD] + num[TV_ACT_BACKWARD_INPUT];
    struct row_traffic total = {0};
    add_rows(&total, num[TV_ACT_FORWARD], forward);
    add_rows(&total, backwards, input);
    add_rows(&total, num[TV_ACT_BACKWARD], table);
    add_rows(&total, num[TV_ACT_BACKWARD_WEIGHT], matrices);
    if (run->recompute == TV_RECOMPUTE_SELECTIVE)
        add_rows(&total, backwards, norms);
    if (run->recompute == TV_RECOMPUTE_FULL)
        add_rows(&total, backwards, again);
    return total;
}

/* Two sums for each chunk of rows: the largest logit; then what else the loss of a row is made of. */
static tv_status_t add_losses(struct plan *plan, int64_t times)
{
    const struct tv_run *run = plan->run;
    const int64_t R = run->micro_batch * run->seq_length;
    const int T = run->extent.at[TV_TENSOR];
    const struct tv_vocab_chunks chunks = tv_vocab_chunks_of(
        R, tv_vocabulary_share(run->model.vocab_size, T), run->dtype, run->device_kind);
    const int per_row = run->options.label_smoothing > 0 ? 3 : 2;
    const int64_t num_whole = R / chunks.rows, rest = R % chunks.rows;
    const struct {
        int64_t rows, num;
    } sorts[] = {{chunks.rows, num_whole}, {rest, rest > 0}};
    for (int i = 0; i < 2; i++) {
        TV_TRY(add(plan, over_axis(plan, TV_TENSOR, OPERATION_SUM, TV_F32, sorts[i].rows,
                                   times * sorts[i].num)));
        TV_TRY(add(plan, over_axis(plan, TV_TENSOR, OPERATION_SUM, TV_F32, per_row * sorts[i].rows,
                                   times * sorts[i].num)));
    }
    return TV_OK;
}

static tv_status_t add_row_traffic(struct plan *plan, struct row_traffic rows)
{
    const struct tv_run *run = plan->run;
    const int is_parallel = run->options.is_sequence_parallel;
    const int64_t own = tv_run_message_count(run); /* elements of this rank's rows */
    if (is_parallel) {
        TV_TRY(add(plan, over_axis(plan, TV_TENSOR, OPERATION_PIECES, run->dtype, own, rows.sums)));
        TV_TRY(
            add(plan, over_axis(plan, TV_TENSOR, OPERATION_RING, run->dtype, own, rows.gathers)));
    } else {
        TV_TRY(add(plan, over_axis(plan, TV_TENSOR, OPERATION_SUM, run->dtype, own, rows.sums)));
    }
    return add_losses(plan, rows.losses);
}

static tv_status_t add_messages(struct plan *plan, const struct tv_action *action)
{
    struct operation message = over_axis(plan, TV_PIPE, OPERATION_MESSAGE, plan->run->dtype,
                                         tv_run_message_count(plan->run), 1);
    for (int i = 0; i < plan->num; i++) { /* as others before it */
        struct operation *other = &plan->operations[i];
        if (other->kind == OPERATION_MESSAGE && other->peer == action->peer) {
            other->times++;
            return TV_OK;
        }
    }
    message.peer = action->peer;
    return add(plan, message);
}

static tv_status_t add_walk(struct plan *plan)
{
    const struct tv_action_list *list = &plan->schedule->stages[plan->stage];
    for (int c = 0; c < plan->schedule->num_chunks; c++) {
        int64_t num[TV_NUM_ACTION_KINDS] = {0};
        for (int i = 0; i < list->num_actions; i++)
            num[list->actions[i].kind] += list->actions[i].chunk == c;
        TV_TRY(add_row_traffic(plan, chunk_rows(plan, c, num)));
    }
    for (int i = 0; i < list->num_actions; i++) {
        const tv_action_kind_t kind = list->actions[i].kind;
        if (kind == TV_ACT_SEND_FORWARD || kind == TV_ACT_SEND_BACKWARD)
            TV_TRY(add_messages(plan, &list->actions[i]));
    }
    return TV_OK;
}

/* ---- behind the walk ---- */

/* What each number of the group that shares owns. */
static tv_status_t count_pieces(struct plan *plan)
{
    struct tv_sharding *s = &plan->sharding;
    const size_t N = (size_t)s->shards.num_ranks;
    plan->own_counts = calloc(N, sizeof(*plan->own_counts));
    plan->row_counts = calloc(N, sizeof(*plan->row_counts));
    plan->piece_counts = calloc(N * (size_t)s->locals.num, sizeof(*plan->piece_counts));
    if (!plan->own_counts || !plan->row_counts || !plan->piece_counts)
        return TV_ERR(TV_NO_MEMORY, "%zu shards", N);
    for (size_t d = 0; d < N; d++) {
        tv_sharding_become(s, (int)d);
        plan->own_counts[d] = s->shards.own_count;
        for (int i = 0; i < s->num_pieces; i++) {
            const struct tv_owned_piece *piece = &s->pieces[i];
            plan->piece_counts[(size_t)piece->local * N + d] = piece->count;
            if (s->locals.params[piece->local].param->is_for_rows)
                plan->row_counts[d] += piece->count;
        }
    }
    return TV_OK;
}

/* Gradients of kv heads that several tensor ranks hold; matrices that muon needs whole: each from those replicas that
 * own them. counts [zero_group]: how much of the weight they do. */
static tv_status_t add_param(struct plan *plan, const struct tv_param *param, const int64_t *counts)
{
    const struct tv_run *run = plan->run;
    struct operation sum = over_axis(plan, TV_TENSOR, OPERATION_SUM, TV_F32, 0, 1);
    struct operation gather = over_axis(plan, TV_TENSOR, OPERATION_PIECES, TV_F32, 0, 1);
    sum.counts = gather.counts = counts;
    if (param->num_parts > 0) {
        int first;
        tv_param_holders(param, run->extent.at[TV_TENSOR], 0, &first, &sum.num);
        TV_TRY(add(plan, sum));
    }
    if (!tv_run_is_matrix(run, param) || param->split_dim < 0)
        return TV_OK;
    return add(plan, gather);
}

/* Gradients of norms and of row matrices' biases, packed. */
static tv_status_t add_row_sums(struct plan *plan)
{
    struct operation sum = over_axis(plan, TV_TENSOR, OPERATION_SUM, TV_F32, 0, 1);
    sum.counts = plan->row_counts;
    return plan->run->options.is_sequence_parallel ? add(plan, sum) : TV_OK;
}

/* Both stages sum what their replicas own of the weight: counts [zero_group]. */
static tv_status_t add_tied(struct plan *plan, const struct tv_param *param, const int64_t *counts)
{
    const int first = tv_run_stage_of_unit(plan->run, 0);
    const int last = tv_run_stage_of_unit(plan->run, plan->run->model.num_layers + 1);
    if (param->tied_unit < 0 || first == last)
        return TV_OK;
    return add(plan, (struct operation){.account = TV_ACCOUNT_TIED,
                                        .kind = OPERATION_SUM,
                                        .axis = TV_PIPE,
                                        .first = first < last ? first : last,
                                        .num = 2,
                                        .stride = abs(last - first),
                                        .dtype = TV_F32,
                                        .times = 1,
                                        .counts = counts});
}

/* An operation of the replicas that share. */
static struct operation over_group(const struct plan *plan, operation_kind_t kind, tv_dtype_t dtype,
                                   const int64_t *counts, int64_t times)
{
    struct operation operation = over_axis(plan, TV_DATA, kind, dtype, 0, times);
    operation.num = plan->run->zero_group;
    operation.counts = counts;
    return operation;
}

/* The sum over the copies of each shard. */
static tv_status_t add_copies(struct plan *plan, const int64_t *counts)
{
    struct operation sum = over_axis(plan, TV_DATA, OPERATION_SUM, plan->run->grad_dtype, 0, 1);
    sum.stride = plan->run->zero_group;
    sum.num /= sum.stride;
    sum.counts = counts;
    return add(plan, sum);
}

/* How often a bucket's gradients are scattered and its weights gathered in a step. A weight that two units of a stage
 * use moves for each of them; the head's moves for its backward alone. */
static tv_status_t add_sharded_bucket(struct plan *plan, int b)
{
    const struct tv_run *run = plan->run;
    const struct tv_sharding *s = &plan->sharding;
    const int64_t m = plan->schedule->num_micro;
    const int needs_head = s->bucket_units[b].needs_head;
    const int is_head = s->bucket_units[b].low == run->model.num_layers + 1;
    const int64_t uses = needs_head ? 2 : 1;
    const int64_t passes = is_head ? 1 : run->recompute == TV_RECOMPUTE_FULL ? 3 : 2;
    const int64_t *counts = tv_shards_counts(&s->shards, b);
    TV_TRY(add(plan, over_group(plan, OPERATION_SCATTER, run->grad_dtype, counts,
                                run->zero_stage >= 2 ? m * uses : 1)));
    if (run->zero_stage == 1)
        TV_TRY(add_copies(plan, counts));
    return add(plan, over_group(plan, OPERATION_GATHER, run->dtype, counts,
                                run->zero_stage == 3 ? (passes + needs_head) * m : 1));
}

static tv_status_t add_buckets(struct plan *plan)
{
    const struct tv_shards *shards = &plan->sharding.shards;
    for (int b = 0; b < shards->num_buckets; b++) {
        if (plan->run->zero_stage > 0)
            TV_TRY(add_sharded_bucket(plan, b));
        else
            TV_TRY(add(plan, over_axis(plan, TV_DATA, OPERATION_SUM, plan->run->grad_dtype,
                                       shards->buckets[b].count, 1)));
    }
    /* From stage 2 on one sum, behind the walk. */
    return plan->run->zero_stage >= 2 ? add_copies(plan, plan->own_counts) : TV_OK;
}

static tv_status_t add_params(struct plan *plan)
{
    TV_TRY(tv_sharding_create(plan->run, plan->stage, 0, &plan->sharding));
    TV_TRY(count_pieces(plan));
    TV_TRY(add_buckets(plan));
    TV_TRY(add_row_sums(plan));
    for (int i = 0; i < plan->sharding.locals.num; i++) {
        const struct tv_param *param = plan->sharding.locals.params[i].param;
        const int64_t *counts = plan->piece_counts + i * plan->sharding.shards.num_ranks;
        TV_TRY(add_param(plan, param, counts));
        TV_TRY(add_tied(plan, param, counts));
    }
    return TV_OK;
}

static tv_status_t add_world(struct plan *plan)
{
    const struct tv_mesh_coord e = plan->run->extent;
    struct operation sum = {.account = TV_ACCOUNT_WORLD,
                            .kind = OPERATION_SUM,
                            .axis = TV_NUM_AXES,
                            .num = e.at[TV_PIPE] * e.at[TV_DATA] * e.at[TV_TENSOR],
                            .stride = 1,
                            .dtype = TV_F64,
                            .count = TV_WINDOW_SUMS,
                            .times = 1};
    TV_TRY(add(plan, sum));
    sum.count = TV_STEP_SUMS;
    return add(plan, sum);
}

static void plan_destroy(struct plan *plan)
{
    tv_sharding_destroy(&plan->sharding);
    free(plan->operations);
    free(plan->own_counts);
    free(plan->row_counts);
    free(plan->piece_counts);
}

static tv_status_t plan_create(const struct tv_run *run, const struct tv_schedule *schedule,
                               int stage, struct plan *plan_out)
{
    *plan_out = (struct plan){.run = run, .schedule = schedule, .stage = stage};
    TV_TRY(add_walk(plan_out));
    TV_TRY(add_params(plan_out));
    return add_world(plan_out);
}

/* ---- a rank's part ---- */

/* This rank's number among the members of an operation. */
static int member_of(const struct tv_run *run, const struct operation *o, struct tv_mesh_coord at)
{
    if (o->axis == TV_NUM_AXES)
        return tv_mesh_rank_of(run->extent, at);
    return (at.at[o->axis] - o->first) / o->stride % o->num;
}

/* Mesh rank of another member. */
static int rank_of_member(const struct tv_run *run, const struct operation *o,
                          struct tv_mesh_coord at, int member)
{
    if (o->axis == TV_NUM_AXES)
        return member;
    at.at[o->axis] += (member - member_of(run, o, at)) * o->stride;
    return tv_mesh_rank_of(run->extent, at);
}

/* Bytes to one member, or to all where `peer` is negative. */
static int64_t sent_once(const struct tv_run *run, const struct operation *o,
                         struct tv_mesh_coord at, int member, int peer)
{
    const int64_t element = (int64_t)tv_dtype_bytes(o->dtype);
    if (o->kind == OPERATION_GATHER)
        return o->counts[member] * element * (peer < 0 ? o->num - 1 : peer != member);
    if (o->kind == OPERATION_SCATTER) {
        int64_t others = 0;
        for (int other = 0; other < o->num; other++)
            others += other != member && (peer < 0 || peer == other) ? o->counts[other] : 0;
        return others * element;
    }
    const int64_t count =
        o->counts != NULL ? o->counts[at.at[TV_DATA] % run->zero_group] : o->count;
    const int64_t bytes = count * element;
    if (o->kind == OPERATION_SUM)
        return tv_all_reduce_sent_bytes(count, o->dtype, o->num, member, peer);
    if (o->kind == OPERATION_MESSAGE)
        return peer < 0 || peer == o->peer ? bytes : 0;
    if (o->kind == OPERATION_RING)
        return peer < 0 || peer == (member + 1) % o->num ? bytes * (o->num - 1) : 0;
    return bytes * (peer < 0 ? o->num - 1 : peer != member);
}

static void add_rank(const struct plan *plan, struct tv_mesh_coord at, const int *node_of,
                     struct tv_sent *sent)
{
    const struct tv_run *run = plan->run;
    int64_t bytes[TV_NUM_ACCOUNTS] = {0};
    for (int i = 0; i < plan->num; i++) {
        const struct operation *o = &plan->operations[i];
        const int member = member_of(run, o, at);
        bytes[o->account] += o->times * sent_once(run, o, at, member, -1);
        for (int peer = 0; node_of != NULL && peer < o->num; peer++) {
            if (node_of[rank_of_member(run, o, at, peer)] !=
                node_of[tv_mesh_rank_of(run->extent, at)])
                sent->between[o->account] += o->times * sent_once(run, o, at, member, peer);
        }
    }
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++) {
        sent->bytes[a] += bytes[a];
        sent->largest[a] = bytes[a] > sent->largest[a] ? bytes[a] : sent->largest[a];
    }
}

tv_status_t tv_run_rank_sent(const struct tv_run *run, const struct tv_schedule *schedule,
                             struct tv_mesh_coord at, const int *node_of, struct tv_sent *sent_out)
{
    struct plan plan;
    *sent_out = (struct tv_sent){0};
    const tv_status_t status = plan_create(run, schedule, at.at[TV_PIPE], &plan);
    if (status == TV_OK)
        add_rank(&plan, at, node_of, sent_out);
    plan_destroy(&plan);
    return status;
}

tv_status_t tv_run_stage_sent(const struct tv_run *run, const struct tv_schedule *schedule,
                              int stage, const int *node_of, struct tv_sent *sent_out)
{
    struct plan plan;
    *sent_out = (struct tv_sent){0};
    const tv_status_t status = plan_create(run, schedule, stage, &plan);
    for (int d = 0; d < run->extent.at[TV_DATA] && status == TV_OK; d++) {
        for (int t = 0; t < run->extent.at[TV_TENSOR]; t++)
            add_rank(&plan, (struct tv_mesh_coord){{stage, d, t}}, node_of, sent_out);
    }
    plan_destroy(&plan);
    return status;
}

void tv_sent_add(struct tv_sent *sum, const struct tv_sent *stage)
{
    for (int a = 0; a < TV_NUM_ACCOUNTS; a++) {
        sum->bytes[a] += stage->bytes[a];
        sum->between[a] += stage->between[a];
        sum->largest[a] = stage->largest[a] > sum->largest[a] ? stage->largest[a] : sum->largest[a];
    }
}

tv_status_t tv_run_sent(const struct tv_run *run, const struct tv_schedule *schedule,
                        const int *node_of, struct tv_sent *sent_out)
{
    struct tv_sent sum = {0};
    for (int p = 0; p < run->extent.at[TV_PIPE]; p++) {
        struct tv_sent stage;
        TV_TRY(tv_run_stage_sent(run, schedule, p, node_of, &stage));
        tv_sent_add(&sum, &stage);
    }
    *sent_out = sum;
    return TV_OK;
}
