/* train/split.c -- what a unit costs, and the split that the solver (pipeline/partition.h) makes of it. */
#include "train/split.h"
#include "train/store.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"uniform", "params", "flops", "profile"};

tv_status_t tv_partition_parse(const char *name, tv_partition_t *partition_out)
{
    for (int i = 0; i <= TV_PARTITION_PROFILE; i++) {
        if (strcmp(name, names[i]) == 0) {
            *partition_out = (tv_partition_t)i;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "--partition %s is not one of uniform, params, flops, profile", name);
}

/* Parameters that a unit works with: a tied matrix counts in both of its units. */
static tv_status_t count_params(const struct tv_run *run, struct tv_unit_cost *units)
{
    struct tv_param_table table = {0};
    TV_TRY(tv_model_param_table(&run->model, &table));
    for (int i = 0; i < table.num_params; i++) {
        const struct tv_param *param = &table.params[i];
        units[param->unit].seconds += (double)tv_param_count(param);
        if (param->tied_unit >= 0)
            units[param->tied_unit].seconds += (double)tv_param_count(param);
    }
    tv_param_table_destroy(&table);
    return TV_OK;
}

/* Multiplications of one token: 2 per weight of a matrix, and attention's S C twice over. An embedding multiplies
 * nothing. Forward only: backward is twice that for every unit. */
static tv_status_t count_flops(const struct tv_run *run, struct tv_unit_cost *units)
{
    struct tv_param_table table = {0};
    const int head = run->model.num_layers + 1;
    TV_TRY(tv_model_param_table(&run->model, &table));
    for (int i = 0; i < table.num_params; i++) {
        const struct tv_param *param = &table.params[i];
        const int unit = param->tied_unit >= 0 ? param->tied_unit : param->unit;
        if (unit > 0 && param->num_dims == 2)
            units[unit].seconds += 2 * (double)tv_param_count(param);
    }
    for (int unit = 1; unit < head; unit++)
        units[unit].seconds += 4 * (double)run->model.hidden_size * (double)run->seq_length;
    tv_param_table_destroy(&table);
    return TV_OK;
}

static tv_status_t one_unit_bytes(const struct tv_run *run, int unit, int num_slots, int num_works,
                                  int64_t bytes[TV_NUM_MEM_KINDS])
{
    const struct tv_model_chunk chunk = {unit, 1, num_slots, num_works};
    const struct tv_model_args args = tv_run_args_of(run, 1, &chunk);
    return tv_model_memory(&args, run->extent.at[TV_TENSOR], run->dtype, bytes);
}

/* Bytes of the optimizer on one rank that holds `count` weights (elements) of these units: its state, and its room to
 * work in. */
static tv_status_t optimizer_bytes(const struct tv_run *run, int num_ranges,
                                   const struct tv_unit_range *units, int64_t count,
                                   int64_t bytes_out[2])
{
    struct tv_param_table table = {0};
    const int T = run->extent.at[TV_TENSOR];
    int num = 0;
    TV_TRY(tv_model_param_table(&run->model, &table));
    const struct tv_param **matrices = calloc((size_t)table.num_params, sizeof(*matrices));
    for (int i = 0; i < table.num_params && matrices != NULL; i++) {
        const struct tv_param *param = &table.params[i];
        for (int r = 0; r < num_ranges && tv_run_is_matrix(run, param); r++) {
            if (param->unit >= units[r].first && param->unit < units[r].first + units[r].num)
                matrices[num++] = param;
        }
    }
    if (matrices != NULL) {
        bytes_out[0] = tv_optimizer_state_bytes(run->optimizer.kind, count, T, num, matrices) +
                       tv_run_master_bytes(run, count);
        bytes_out[1] = tv_optimizer_work_bytes(run->optimizer.kind, T, num, matrices);
    }
    const tv_status_t status =
        matrices != NULL ? TV_OK : TV_ERR(TV_NO_MEMORY, "%d matrices", table.num_params);
    free(matrices);
    tv_param_table_destroy(&table);
    return status;
}

/* Of what the replicas share from a ZeRO stage on, about one's part; the split, once made, is checked exactly. */
static int64_t share(const struct tv_run *run, int zero_stage, int64_t bytes)
{
    const int64_t D = run->zero_stage >= zero_stage ? run->extent.at[TV_DATA] : 1;
    return (bytes + D - 1) / D;
}

/* The input of a unit, or of a stage. */
static int64_t message_bytes(const struct tv_run *run)
{
    return tv_run_message_count(run) * (int64_t)tv_dtype_bytes(run->dtype);
}

/* What a unit adds to a stage: weights, gradients, optimizer state; activations of a slot and of a working set, with
 * the input that a unit behind another one keeps. */
static tv_status_t count_bytes(const struct tv_run *run, int unit, struct tv_unit_cost *cost)
{
    int64_t one[TV_NUM_MEM_KINDS], slot[TV_NUM_MEM_KINDS], work[TV_NUM_MEM_KINDS];
    TV_TRY(one_unit_bytes(run, unit, 1, 1, one));
    TV_TRY(one_unit_bytes(run, unit, 2, 1, slot));
    TV_TRY(one_unit_bytes(run, unit, 1, 2, work));
    int64_t optimizer[2];
    const struct tv_unit_range only = {unit, 1};
    TV_TRY(optimizer_bytes(run, 1, &only, one[TV_MEM_GRADS] / (int64_t)sizeof(float), optimizer));
    const int64_t input = unit > 0 ? message_bytes(run) : 0;
    const int is_full = run->recompute == TV_RECOMPUTE_FULL;
    const int64_t params = one[TV_MEM_PARAMS], grads = one[TV_MEM_GRADS];
    cost->fixed_bytes = share(run, 3, params) + share(run, 2, grads) + share(run, 1, optimizer[0]);
    cost->slot_bytes = slot[TV_MEM_ACTIVATIONS] - one[TV_MEM_ACTIVATIONS] + (is_full ? 0 : input);
    cost->work_bytes = work[TV_MEM_ACTIVATIONS] - one[TV_MEM_ACTIVATIONS] + (is_full ? input : 0);
    return TV_OK;
}

static tv_status_t fill_units(const struct tv_run *run, tv_partition_t partition,
                              const struct tv_profile *profile, struct tv_unit_cost *units)
{
    const int num_units = run->model.num_layers + 2;
    for (int unit = 0; unit < num_units; unit++) {
        const int like = unit > 1 && unit < num_units - 1 ? 1 : unit; /* layers are alike */
        if (like != unit)
            units[unit] = units[like];
        else
            TV_TRY(count_bytes(run, unit, &units[unit]));
    }
    if (partition == TV_PARTITION_PARAMS)
        return count_params(run, units);
    if (partition == TV_PARTITION_FLOPS)
        return count_flops(run, units);
    for (int unit = 0; unit < num_units; unit++)
        units[unit].seconds = tv_unit_seconds(profile->of[tv_unit_sort_of(run, unit)]);
    return TV_OK;
}

/* The arguments of the solver, and the arrays that they point to. */
struct problem {
    struct tv_partition_args args;
    struct tv_unit_cost *units;
    int *stage_of, *num_slots, *num_works;
    int64_t *stage_fixed_bytes;
};

static void problem_free(struct problem *p)
{
    free(p->units);
    free(p->stage_of);
    free(p->num_slots);
    free(p->num_works);
    free(p->stage_fixed_bytes);
}

/* Weight, gradient and optimizer state of a tied matrix: a stage with both ends of the model has it once. */
static tv_status_t tied_bytes(const struct tv_run *run, int64_t *bytes_out)
{
    const int head = run->model.num_layers + 1;
    const struct tv_model_chunk ends[] = {{0, 1, 1, 1}, {head, 1, 1, 1}};
    const struct tv_model_args args = tv_run_args_of(run, 2, ends);
    int64_t first[TV_NUM_MEM_KINDS], last[TV_NUM_MEM_KINDS], both[TV_NUM_MEM_KINDS], optimizer[2];
    TV_TRY(one_unit_bytes(run, 0, 1, 1, first));
    TV_TRY(one_unit_bytes(run, head, 1, 1, last));
    TV_TRY(tv_model_memory(&args, run->extent.at[TV_TENSOR], run->dtype, both));
    const int64_t params = first[TV_MEM_PARAMS] + last[TV_MEM_PARAMS] - both[TV_MEM_PARAMS];
    const int64_t grads = first[TV_MEM_GRADS] + last[TV_MEM_GRADS] - both[TV_MEM_GRADS];
    TV_TRY(optimizer_bytes(run, 0, NULL, grads / (int64_t)sizeof(float), optimizer));
    *bytes_out = params + grads + optimizer[0];
    return TV_OK;
}

/* What units count more than a stage has: the input of a piece's first unit, which is in the executor's buffers, and
 * a tied matrix with both ends on one stage. */
static tv_status_t take_off(const struct tv_run *run, struct problem *p)
{
    const int last = p->args.num_pieces - 1;
    const int64_t input = message_bytes(run);
    int64_t tied;
    for (int i = 1; i <= last; i++)
        p->stage_fixed_bytes[p->stage_of[i]] -=
            input * (run->recompute == TV_RECOMPUTE_FULL ? p->num_works[i] : p->num_slots[i]);
    TV_TRY(tied_bytes(run, &tied));
    if (p->stage_of[0] == p->stage_of[last])
        p->stage_fixed_bytes[p->stage_of[0]] -= tied;
    return TV_OK;
}

static tv_status_t fill_places(const struct tv_run *run, struct problem *p)
{
    const int num_pieces = p->args.num_pieces;
    int64_t scratch[TV_NUM_MEM_KINDS], optimizer[2];
    const struct tv_unit_range layer = {1, 1}; /* the room to work in is one, however many layers */
    TV_TRY(one_unit_bytes(run, 1, 1, 1, scratch));
    TV_TRY(optimizer_bytes(run, 1, &layer, 0, optimizer));
    for (int position = 0; position < num_pieces; position++) {
        const int stage = tv_schedule_stage_of(&run->schedule, position),
                  chunk = tv_schedule_chunk_of(&run->schedule, position);
        p->stage_of[position] = stage;
        p->num_slots[position] = run->chunk_slots[stage * run->num_chunks + chunk];
        p->num_works[position] = run->chunk_works[stage * run->num_chunks + chunk];
    }
    for (int stage = 0; stage < p->args.num_stages; stage++)
        p->stage_fixed_bytes[stage] =
            scratch[TV_MEM_BUFFERS] + optimizer[1] + run->message_bytes[stage];
    return take_off(run, p);
}

static tv_status_t problem_create(const struct tv_run *run, tv_partition_t partition,
                                  const struct tv_profile *profile, struct problem *p)
{
    const size_t P = (size_t)run->extent.at[TV_PIPE], pieces = P * (size_t)run->num_chunks;
    *p = (struct problem){.units = calloc((size_t)run->model.num_layers + 2, sizeof(*p->units)),
                          .stage_of = calloc(pieces, sizeof(int)),
                          .num_slots = calloc(pieces, sizeof(int)),
                          .num_works = calloc(pieces, sizeof(int)),
                          .stage_fixed_bytes = calloc(P, sizeof(int64_t))};
    p->args = (struct tv_partition_args){
        .num_layers = run->model.num_layers,
        .num_pieces = (int)pieces,
        .num_stages = (int)P,
        .stage_of = p->stage_of,
        .units = p->units,
        .num_slots = p->num_slots,
        .num_works = p->num_works,
        .stage_bytes_limit = (int64_t)(run->options.memory_limit_mib * 1048576.0),
        .stage_fixed_bytes = p->stage_fixed_bytes,
    };
    if (!p->units || !p->stage_of || !p->num_slots || !p->num_works || !p->stage_fixed_bytes)
        return TV_ERR(TV_NO_MEMORY, "split of %d layers", run->model.num_layers);
    TV_TRY(fill_units(run, partition, profile, p->units));
    return fill_places(run, p);
}

tv_status_t tv_run_split(struct tv_run *run, tv_partition_t partition,
                         const struct tv_profile *profile)
{
    const int num_pieces = run->extent.at[TV_PIPE] * run->num_chunks;
    if (partition == TV_PARTITION_UNIFORM) {
        if (tv_partition_uniform(run->model.num_layers, num_pieces, run->pieces) != TV_OK)
            return TV_ERR(TV_INVALID, "--pp %d, %d chunk(s) per stage: %s", run->extent.at[TV_PIPE],
                          run->num_chunks, tv_error_message());
        return tv_run_accept_split(run);
    }
    struct problem p;
    tv_status_t status = problem_create(run, partition, profile, &p);
    if (status == TV_OK && (status = tv_partition_balance(&p.args, run->pieces)) != TV_OK)
        status =
            TV_ERR(status, "--partition %s%s: %s", names[partition],
                   p.args.stage_bytes_limit > 0 ? " with --memory-limit" : "", tv_error_message());
    problem_free(&p);
    if (profile != NULL) {
        run->has_profile = 1;
        run->profile = *profile;
    }
    return status == TV_OK ? tv_run_accept_split(run) : status;
}

tv_status_t tv_split_seconds(const struct tv_run *run, const struct tv_profile *profile,
                             int is_uniform, double *seconds_out)
{
    struct problem p;
    struct tv_unit_range *ranges = NULL;
    int64_t *bytes = NULL;
    tv_status_t status = problem_create(run, TV_PARTITION_PROFILE, profile, &p);
    if (status == TV_OK) {
        ranges = calloc((size_t)p.args.num_pieces, sizeof(*ranges));
        bytes = calloc((size_t)p.args.num_stages, sizeof(*bytes));
        if (ranges == NULL || bytes == NULL)
            status = TV_ERR(TV_NO_MEMORY, "split of %d layers", run->model.num_layers);
    }
    if (status == TV_OK && is_uniform)
        status = tv_partition_uniform(run->model.num_layers, p.args.num_pieces, ranges);
    if (status == TV_OK)
        tv_partition_costs(&p.args, is_uniform ? ranges : run->pieces, seconds_out, bytes);
    free(ranges);
    free(bytes);
    problem_free(&p);
    return status;
}

/* Of the replica that `sharding` is of. `bytes` has what the model takes when it holds all weights and gradients. */
static tv_status_t add_replica_bytes(const struct tv_run *run, const struct tv_sharding *sharding,
                                     int64_t *bytes)
{
    int64_t optimizer[2];
    TV_TRY(tv_sharding_optimizer_bytes(run, sharding, optimizer));
    bytes[TV_MEM_OPTIMIZER] += optimizer[0] + optimizer[1];
    if (run->zero_stage < 2)
        return TV_OK;
    bytes[TV_MEM_PARAMS] = bytes[TV_MEM_GRADS] = 0;
    return tv_store_bytes(run, sharding, bytes);
}

static int64_t total_of(const int64_t *bytes)
{
    int64_t total = 0;
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++)
        total += bytes[k];
    return total;
}

tv_status_t tv_run_stage_bytes(const struct tv_run *run, int stage, int64_t *bytes_out)
{
    struct tv_model_chunk *chunks = calloc((size_t)run->num_chunks, sizeof(*chunks));
    if (chunks == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d chunks", run->num_chunks);
    const struct tv_model_args args = tv_run_model_args(run, stage, chunks);
    int64_t model[TV_NUM_MEM_KINDS];
    tv_status_t status = tv_model_memory(&args, run->extent.at[TV_TENSOR], run->dtype, model);
    free(chunks);
    TV_TRY(status);
    model[TV_MEM_BUFFERS] += run->message_bytes[stage];
    struct tv_sharding sharding = {0};
    status = tv_sharding_create(run, stage, 0, &sharding);
    for (int d = 0; d < sharding.shards.num_ranks && status == TV_OK; d++) {
        int64_t replica[TV_NUM_MEM_KINDS];
        memcpy(replica, model, sizeof(replica));
        tv_sharding_become(&sharding, d);
        status = add_replica_bytes(run, &sharding, replica);
        if (d == 0 || total_of(replica) > total_of(bytes_out))
            memcpy(bytes_out, replica, sizeof(replica));
    }
    tv_sharding_destroy(&sharding);
    return status;
}

tv_status_t tv_run_accept_split(struct tv_run *run)
{
    const int P = run->extent.at[TV_PIPE];
    const double limit = run->options.memory_limit_mib;
    TV_TRY(tv_partition_check(run->model.num_layers, P * run->num_chunks, run->pieces));
    for (int stage = 0; limit > 0 && stage < P; stage++) {
        int64_t bytes[TV_NUM_MEM_KINDS];
        TV_TRY(tv_run_stage_bytes(run, stage, bytes));
        const int64_t total = total_of(bytes);
        if ((double)total > limit * 1048576.0)
            return TV_ERR(TV_INVALID,
                          "--memory-limit %g: stage %d needs %.1f MiB; see --dry-run, and "
                          "--recompute, --slot-limit or more stages",
                          limit, stage, (double)total / 1048576.0);
    }
    run->has_split = 1;
    return TV_OK;
}
