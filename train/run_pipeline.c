/* train/run_pipeline.c -- from flags to a schedule, and to the units that each of its positions holds. */
#include "pipeline/executor.h"
#include "train/profile.h"
#include "train/run_internal.h"
#include "train/schedule_file.h"
#include "train/split.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static tv_status_t read_schedule(struct tv_run *run, const char *path)
{
    TV_TRY(tv_schedule_read_file(path, &run->schedule));
    const int P = run->extent.at[TV_PIPE], vpp = run->options.vpp;
    if (run->schedule.num_stages != P)
        return TV_ERR(TV_INVALID, "--schedule %s has %d stages, --pp is %d", path,
                      run->schedule.num_stages, P);
    if (run->schedule.num_micro != run->num_micro)
        return TV_ERR(TV_INVALID,
                      "--schedule %s is for %d micro-batches, a step of each replica has %d", path,
                      run->schedule.num_micro, run->num_micro);
    if (vpp != 0 && run->schedule.num_chunks != vpp)
        return TV_ERR(TV_INVALID, "--schedule %s has %d chunks per stage, --vpp is %d", path,
                      run->schedule.num_chunks, vpp);
    return tv_schedule_check(&run->schedule, run->options.slot_limit);
}

static tv_status_t resolve_schedule(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    if (o->schedule == NULL)
        run->options.schedule = tv_schedule_default_name(o->vpp);
    const char *name = o->schedule;
    if (tv_schedule_is_file(name)) {
        TV_TRY(read_schedule(run, name));
        run->num_chunks = run->schedule.num_chunks;
        return TV_OK;
    }
    if (!tv_schedule_is_known(name))
        return TV_ERR(TV_INVALID, "--schedule %s is not one of %s, and no FILE.csv", name,
                      tv_schedule_names());
    run->num_chunks = o->vpp != 0 ? o->vpp : tv_schedule_default_chunks(name);
    if (tv_schedule_check_chunks(name, run->num_chunks) != TV_OK)
        return TV_ERR(TV_INVALID, "--vpp %d: %s", run->num_chunks, tv_error_message());
    const struct tv_schedule_args args = {name, run->extent.at[TV_PIPE], run->num_chunks,
                                          run->num_micro, o->slot_limit};
    return tv_schedule_build(&args, &run->schedule);
}

tv_status_t tv_run_build_schedule(const struct tv_run *run, int num_micro,
                                  struct tv_schedule *schedule_out)
{
    const struct tv_schedule_args args = {run->schedule.name, run->schedule.num_stages,
                                          run->num_chunks, num_micro, run->options.slot_limit};
    return tv_schedule_build(&args, schedule_out);
}

static int most(int a, int b)
{
    return a > b ? a : b;
}

/* Raises the needs of the run to those of one of its schedules. */
static void note_needs(struct tv_run *run, const struct tv_schedule *schedule)
{
    const int v = run->num_chunks;
    for (int s = 0; s < schedule->num_stages; s++) {
        const int64_t bytes =
            tv_executor_buffer_bytes(schedule, s, tv_run_message_count(run), run->dtype);
        run->message_bytes[s] = bytes > run->message_bytes[s] ? bytes : run->message_bytes[s];
        for (int c = 0; c < v; c++) {
            const int i = s * v + c;
            run->chunk_slots[i] =
                most(run->chunk_slots[i], tv_schedule_chunk_slots(schedule, s, c));
            run->chunk_works[i] =
                most(run->chunk_works[i], tv_schedule_chunk_works(schedule, s, c));
            run->stage_splits[s] |= tv_schedule_splits_backward(schedule, s, c);
        }
    }
}

static tv_status_t resolve_needs(struct tv_run *run)
{
    const size_t P = (size_t)run->extent.at[TV_PIPE], places = P * (size_t)run->num_chunks;
    const int64_t per_micro = run->micro_batch * run->extent.at[TV_DATA];
    run->chunk_slots = calloc(places, sizeof(*run->chunk_slots));
    run->chunk_works = calloc(places, sizeof(*run->chunk_works));
    run->stage_splits = calloc(P, sizeof(*run->stage_splits));
    run->message_bytes = calloc(P, sizeof(*run->message_bytes));
    if (!run->chunk_slots || !run->chunk_works || !run->stage_splits || !run->message_bytes)
        return TV_ERR(TV_NO_MEMORY, "needs of %zu chunks", places);
    note_needs(run, &run->schedule);
    const int64_t smaller = tv_batch_ramp_num(&run->ramp) - 1;
    if (smaller > 0 && tv_schedule_is_file(run->options.schedule))
        return TV_ERR(TV_INVALID,
                      "--rampup-batch-size: --schedule %s is for one number of "
                      "micro-batches only; name a built-in schedule",
                      run->options.schedule);
    for (int64_t i = 0; i < smaller; i++) {
        struct tv_schedule schedule;
        const int64_t batch = tv_batch_ramp_batch(&run->ramp, i);
        if (tv_run_build_schedule(run, (int)(batch / per_micro), &schedule) != TV_OK)
            return TV_ERR(TV_INVALID, "--rampup-batch-size: a batch of %" PRId64 ": %s", batch,
                          tv_error_message());
        note_needs(run, &schedule);
        tv_schedule_destroy(&schedule);
    }
    return TV_OK;
}

static tv_status_t resolve_split(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    const int num_pieces = run->extent.at[TV_PIPE] * run->num_chunks;
    tv_partition_t partition;
    run->pieces = calloc((size_t)num_pieces, sizeof(*run->pieces));
    if (run->pieces == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d pieces of the model", num_pieces);
    TV_TRY(tv_partition_parse(o->partition, &partition));
    if (partition != TV_PARTITION_PROFILE && (o->load_profile || o->save_profile))
        return TV_ERR(TV_INVALID, "--%s-profile needs --partition profile",
                      o->load_profile ? "load" : "save");
    if (o->load_profile != NULL && o->save_profile != NULL)
        return TV_ERR(TV_INVALID, "--load-profile takes the times that --save-profile would write; "
                                  "give one");
    if (o->stage_layout != NULL && tv_train_options_has(o, "partition"))
        return TV_ERR(TV_INVALID, "--stage-layout and --partition both say how to split; give one");
    if (o->stage_layout != NULL) {
        if (tv_partition_layout(o->stage_layout, run->model.num_layers, num_pieces, run->pieces) !=
            TV_OK)
            return TV_ERR(TV_INVALID, "--stage-layout: %s", tv_error_message());
        return tv_run_accept_split(run);
    }
    if (partition != TV_PARTITION_PROFILE)
        return tv_run_split(run, partition, NULL);
    if (o->load_profile != NULL) {
        struct tv_profile profile;
        TV_TRY(tv_profile_load(o->load_profile, run, &profile));
        return tv_run_split(run, partition, &profile);
    }
    if (num_pieces > run->model.num_layers + 2) /* not only after measuring */
        return TV_ERR(TV_INVALID,
                      "--partition profile: %d layers, the embedding and the head cannot be split "
                      "into %d pieces",
                      run->model.num_layers, num_pieces);
    return o->is_dry_run ? TV_ERR(TV_INVALID, "--partition profile measures on the ranks of a run: "
                                              "with --dry-run give --load-profile FILE")
                         : TV_OK; /* measured by the ranks, train/loop.c */
}

tv_status_t tv_run_resolve_pipeline(struct tv_run *run)
{
    if (tv_recompute_parse(run->options.recompute, &run->recompute) != TV_OK)
        return TV_ERR(TV_INVALID, "--recompute %s is not one of none, selective, full",
                      run->options.recompute);
    TV_TRY(resolve_schedule(run));
    TV_TRY(resolve_needs(run));
    return resolve_split(run);
}

int tv_run_stage_of_unit(const struct tv_run *run, int unit)
{
    int position = 0;
    while (unit >= run->pieces[position].first + run->pieces[position].num)
        position++;
    return tv_schedule_stage_of(&run->schedule, position);
}

int64_t tv_run_message_count(const struct tv_run *run)
{
    const int parts = run->options.is_sequence_parallel ? run->extent.at[TV_TENSOR] : 1;
    return run->micro_batch * run->seq_length / parts * run->model.hidden_size;
}

struct tv_model_args tv_run_args_of(const struct tv_run *run, int num_chunks,
                                    const struct tv_model_chunk *chunks)
{
    const struct tv_train_options *o = &run->options;
    return (struct tv_model_args){
        .config = run->model,
        .micro_batch = (int)run->micro_batch,
        .seq_length = (int)run->seq_length,
        .num_chunks = num_chunks,
        .chunks = chunks,
        .device = run->device_kind,
        .recompute = run->recompute,
        .is_sequence_parallel = o->is_sequence_parallel,
        .is_tensor_overlapped = o->is_tensor_overlapped,
        .attention_dropout = o->attention_dropout,
        .hidden_dropout = o->hidden_dropout,
        .label_smoothing = o->label_smoothing,
        .seed = (uint64_t)o->seed,
        .resets_positions = o->resets_position_ids,
        .resets_attention = o->resets_attention_mask,
    };
}

struct tv_model_args tv_run_model_args(const struct tv_run *run, int stage,
                                       struct tv_model_chunk *chunks)
{
    for (int c = 0; c < run->num_chunks; c++) {
        const struct tv_unit_range units =
            run->pieces[tv_schedule_position(&run->schedule, stage, c)];
        const int place = stage * run->num_chunks + c;
        chunks[c] = (struct tv_model_chunk){.first_unit = units.first,
                                            .num_units = units.num,
                                            .num_slots = run->chunk_slots[place],
                                            .num_works = run->chunk_works[place]};
    }
    struct tv_model_args args = tv_run_args_of(run, run->num_chunks, chunks);
    args.is_backward_whole = !run->stage_splits[stage];
    return args;
}
