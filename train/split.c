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

/* Bytes of a stage that depend on the replica; what they are made of beside the total. */
struct replica_bytes {
    int64_t kinds[TV_NUM_MEM_KINDS];
    int64_t room, work; /* in which units take turns; of the optimizer, one however many layers */
};

/* Of the replica that `sharding` is of. bytes: the model's when it holds all weights and gradients; those of the
 * replica on return. */
static tv_status_t add_replica_bytes(const struct tv_run *run, const struct tv_sharding *sharding,
                                     struct replica_bytes *bytes)
{
    int64_t optimizer[2];
    TV_TRY(tv_sharding_optimizer_bytes(run, sharding, optimizer));
    bytes->kinds[TV_MEM_OPTIMIZER] += optimizer[0] + optimizer[1];
    bytes->work = optimizer[1];
    bytes->room = 0;
    if (run->zero_stage < 2)
        return TV_OK;
    bytes->kinds[TV_MEM_PARAMS] = bytes->kinds[TV_MEM_GRADS] = 0;
    return tv_store_bytes(run, sharding, bytes->kinds, &bytes->room);
}

static int64_t total_of(const int64_t *bytes)
{
    int64_t total = 0;
    for (int k = 0; k < TV_NUM_MEM_KINDS; k++)
        total += bytes[k];
    return total;
}

/* Of the replica with most; args: of a stage's model. */
static tv_status_t model_bytes(const struct tv_run *run, const struct tv_model_args *args,
                               struct replica_bytes *most)
{
    struct replica_bytes model = {0};
    struct tv_sharding sharding = {0};
    TV_TRY(tv_model_memory(args, run->extent.at[TV_TENSOR], run->dtype, model.kinds));
    tv_status_t status = tv_sharding_create_of(run, args->num_chunks, args->chunks, 0, &sharding);
    for (int d = 0; d < sharding.shards.num_ranks && status == TV_OK; d++) {
        struct replica_bytes replica = model;
        tv_sharding_become(&sharding, d);
        status = add_replica_bytes(run, &sharding, &replica);
        if (d == 0 || total_of(replica.kinds) > total_of(most->kinds))
            *most = replica;
    }
    tv_sharding_destroy(&sharding);
    return status;
}

static tv_status_t chunks_bytes(const struct tv_run *run, int num_chunks,
                                const struct tv_model_chunk *chunks, struct replica_bytes *most)
{
    const struct tv_model_args args = tv_run_args_of(run, num_chunks, chunks);
    return model_bytes(run, &args, most);
}

/* What is there once for each unit: weights, gradients, optimizer state, gradients kept or packed. scratch: the model's
 * room to work in, the same whatever its units. */
static int64_t fixed_bytes(const struct replica_bytes *bytes, int64_t scratch)
{
    return total_of(bytes->kinds) - bytes->kinds[TV_MEM_ACTIVATIONS] - bytes->room - bytes->work -
           scratch;
}

/* The input of a unit, or of a stage. */
static int64_t message_bytes(const struct tv_run *run)
{
    return tv_run_message_count(run) * (int64_t)tv_dtype_bytes(run->dtype);
}

/* An embedding packs no gradients of rows. */
static tv_status_t scratch_bytes(const struct tv_run *run, int64_t *bytes_out)
{
    int64_t bytes[TV_NUM_MEM_KINDS];
    TV_TRY(one_unit_bytes(run, 0, 1, 1, bytes));
    *bytes_out = bytes[TV_MEM_BUFFERS];
    return TV_OK;
}

/* What a unit adds to a stage; activations of a slot and of a working set with the input that a unit behind another one
 * keeps. */
static tv_status_t count_bytes(const struct tv_run *run, int unit, int64_t scratch,
                               struct tv_unit_cost *cost)
{
    const struct tv_model_chunk only = {unit, 1, 1, 1};
    struct replica_bytes one;
    int64_t slot[TV_NUM_MEM_KINDS], work[TV_NUM_MEM_KINDS];
    TV_TRY(chunks_bytes(run, 1, &only, &one));
    TV_TRY(one_unit_bytes(run, unit, 2, 1, slot));
    TV_TRY(one_unit_bytes(run, unit, 1, 2, work));
    const int64_t activations = one.kinds[TV_MEM_ACTIVATIONS];
    const int64_t input = unit > 0 ? message_bytes(run) : 0;
    const int is_full = run->recompute == TV_RECOMPUTE_FULL;
    cost->fixed_bytes = fixed_bytes(&one, scratch);
    cost->slot_bytes = slot[TV_MEM_ACTIVATIONS] - activations + (is_full ? 0 : input);
    cost->work_bytes = work[TV_MEM_ACTIVATIONS] - activations + (is_full ? input : 0);
    return TV_OK;
}

static tv_status_t fill_units(const struct tv_run *run, tv_partition_t partition,
                              const struct tv_profile *profile, struct tv_unit_cost *units)
{
    const int num_units = run->model.num_layers + 2;
    int64_t scratch;
    TV_TRY(scratch_bytes(run, &scratch));
    for (int unit = 0; unit < num_units; unit++) {
        const int like = unit > 1 && unit < num_units - 1 ? 1 : unit; /* layers are alike */
        if (like != unit)
            units[unit] = units[like];
        else
            TV_TRY(count_bytes(run, unit, scratch, &units[unit]));
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
static tv_status_t tied_bytes(const struct tv_run *run, const struct problem *p, int64_t *bytes_out)
{
    const int head = run->model.num_layers + 1;
    const struct tv_model_chunk ends[] = {{0, 1, 1, 1}, {head, 1, 1, 1}};
    const int64_t more_tokens = 2 * run->micro_batch * run->seq_length * (int64_t)sizeof(int32_t);
    struct replica_bytes both;
    int64_t scratch;
    TV_TRY(scratch_bytes(run, &scratch));
    TV_TRY(chunks_bytes(run, 2, ends, &both));
    *bytes_out = p->units[0].fixed_bytes + p->units[head].fixed_bytes -
                 fixed_bytes(&both, scratch + more_tokens);
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
    TV_TRY(tied_bytes(run, p, &tied));
    if (p->stage_of[0] == p->stage_of[last])
        p->stage_fixed_bytes[p->stage_of[0]] -= tied;
    return TV_OK;
}

/* All units of the stage take turns in one working set (struct tv_model_args). */
static int shares_work(const struct tv_run *run, int stage)
{
    return run->recompute == TV_RECOMPUTE_SELECTIVE && !run->stage_splits[stage];
}

/* What no split changes: room to work in, that of the store's largest unit, messages, tokens of the slots. A stage
 * without a layer counts as if it had one. */
static tv_status_t fill_stages(const struct tv_run *run, struct problem *p)
{
    const int head = run->model.num_layers + 1, last = p->args.num_pieces - 1;
    const int units[] = {1, 0, head}, held_by[] = {-1, p->stage_of[0], p->stage_of[last]};
    const int64_t tokens = 2 * run->micro_batch * run->seq_length * (int64_t)sizeof(int32_t);
    struct replica_bytes of[3];
    int64_t scratch;
    TV_TRY(scratch_bytes(run, &scratch));
    for (int i = 0; i < 3; i++) {
        const struct tv_model_chunk only = {units[i], 1, 1, 1};
        TV_TRY(chunks_bytes(run, 1, &only, &of[i]));
    }
    for (int stage = 0; stage < p->args.num_stages; stage++) {
        int64_t room = 0;
        for (int i = 0; i < 3; i++) {
            if ((held_by[i] < 0 || held_by[i] == stage) && of[i].room > room)
                room = of[i].room;
        }
        p->stage_fixed_bytes[stage] = scratch - tokens + room + of[0].work +
                                      run->message_bytes[stage] + tv_run_workspace_bytes(run) +
                                      (shares_work(run, stage) ? p->units[1].work_bytes : 0);
    }
    for (int i = 0; i <= last; i++)
        p->stage_fixed_bytes[p->stage_of[i]] += p->num_slots[i] * tokens;
    return take_off(run, p);
}

static tv_status_t fill_places(const struct tv_run *run, struct problem *p)
{
    for (int position = 0; position < p->args.num_pieces; position++) {
        const int stage = tv_schedule_stage_of(&run->schedule, position),
                  chunk = tv_schedule_chunk_of(&run->schedule, position);
        p->stage_of[position] = stage;
        p->num_slots[position] = run->chunk_slots[stage * run->num_chunks + chunk];
        p->num_works[position] =
            shares_work(run, stage) ? 0 : run->chunk_works[stage * run->num_chunks + chunk];
    }
    return fill_stages(run, p);
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

tv_status_t tv_split_costs(const struct tv_run *run, const struct tv_profile *profile,
                           int is_uniform, double *seconds_out, int64_t *bytes_out)
{
    struct problem p;
    struct tv_unit_range *ranges = NULL;
    tv_status_t status = problem_create(run, TV_PARTITION_PROFILE, profile, &p);
    if (status == TV_OK) {
        ranges = calloc((size_t)p.args.num_pieces, sizeof(*ranges));
        if (ranges == NULL)
            status = TV_ERR(TV_NO_MEMORY, "split of %d layers", run->model.num_layers);
    }
    if (status == TV_OK && is_uniform)
        status = tv_partition_uniform(run->model.num_layers, p.args.num_pieces, ranges);
    if (status == TV_OK)
        tv_partition_costs(&p.args, is_uniform ? ranges : run->pieces, seconds_out, bytes_out);
    free(ranges);
    problem_free(&p);
    return status;
}

tv_status_t tv_run_stage_bytes(const struct tv_run *run, int stage, int64_t *bytes_out)
{
    struct tv_model_chunk *chunks = calloc((size_t)run->num_chunks, sizeof(*chunks));
    if (chunks == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d chunks", run->num_chunks);
    const struct tv_model_args args = tv_run_model_args(run, stage, chunks);
    struct replica_bytes most = {0};
    const tv_status_t status = model_bytes(run, &args, &most);
    free(chunks);
    TV_TRY(status);
    most.kinds[TV_MEM_BUFFERS] += run->message_bytes[stage] + tv_run_workspace_bytes(run);
    memcpy(bytes_out, most.kinds, sizeof(most.kinds));
    return TV_OK;
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
