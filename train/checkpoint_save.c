/* train/checkpoint_save.c -- saving: every rank writes its shard, then one writes what makes a checkpoint of them.
 *
 *   started   the temporary folder is there, a copy of this rank's elements was taken (--save-async)
 *   writing   each rank's thread writes and syncs its shard
 *   ending    the root's thread writes state.json and index.json, renames the folder, removes old ones
 *
 * A blocking save is the same without the copy, waited for. The time is that of the slowest disk; between ranks go only
 * length and hash of each shard. */
#include "base/clock.h"
#include "base/log.h"
#include "train/checkpoint_internal.h"
#include "train/files.h"
#include "train/trainer_internal.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ROOM_BYTES = 1 << 20 }; /* written and hashed at a time, while it is in the cache */

enum stage { IDLE, WRITING, ENDING };

struct tv_saver {
    struct tv_trainer *trainer; /* borrowed */
    const char *folder;         /* --save */
    struct tv_save_plan plan;   /* of this rank */
    const char **data;          /* [num_slices] first element of each */
    /* ROOM_BYTES to pass elements through, or with --save-async all of this rank's. */
    char *room;
    size_t room_bytes, used;
    struct tv_safetensors_writer *writer; /* of the thread that writes */

    enum stage stage;
    double started_at;
    int64_t step;       /* being written, or the last that was: not to be written again */
    int64_t ended_step; /* to be reported, or 0 */
    struct tv_work work;
    struct tv_file_digest shard;
    struct tv_file_digest *shards; /* root: [ranks] */
    char *state_text;              /* root: of `step` */
};

static int num_ranks(const struct tv_saver *saver)
{
    return tv_comm_size(tv_mesh_world(saver->trainer->mesh));
}

/* ---- elements ---- */

/* The first element of each slice: in the piece that this rank owns, which has all of it. */
static tv_status_t find_data(struct tv_saver *saver)
{
    struct tv_trainer *tr = saver->trainer;
    struct tv_state_part *parts = NULL;
    int num = 0;
    TV_TRY(tv_state_parts(tr, &parts, &num));
    for (int i = 0; i < saver->plan.num_slices; i++) {
        const struct tv_save_slice *slice = &saver->plan.slices[i];
        const int64_t bytes = (int64_t)tv_dtype_bytes(tv_state_dtype(tr->run, slice->kind));
        const struct tv_rect *rect = &slice->rect;
        const int64_t end = rect->local + (rect->num_rows - 1) * rect->local_cols + rect->num_cols;
        for (int p = 0; p < num && saver->data[i] == NULL; p++) {
            const struct tv_state_part *part = &parts[p];
            if (part->kind == slice->kind && part->local == slice->local &&
                part->first <= rect->local && end <= part->first + part->count)
                saver->data[i] = (const char *)part->data + (rect->local - part->first) * bytes;
        }
        if (saver->data[i] == NULL) {
            free(parts);
            return TV_ERR(TV_INTERNAL, "%s of %s is not on this rank", tv_state_name(slice->kind),
                          slice->param->name);
        }
    }
    free(parts);
    return TV_OK;
}

/* Hand on what is in the room. */
static tv_status_t flush(struct tv_saver *saver)
{
    TV_TRY(tv_stream_synchronize(saver->trainer->stream));
    TV_TRY(tv_safetensors_write_bytes(saver->writer, saver->room, (int64_t)saver->used));
    saver->used = 0;
    return TV_OK;
}

/* Bytes that lie side by side; flushes when the room is full. */
static tv_status_t take(struct tv_saver *saver, const char *from, int64_t bytes,
                        const struct tv_work *work)
{
    while (bytes > 0) {
        const size_t left = saver->room_bytes - saver->used;
        const size_t n = (size_t)bytes < left ? (size_t)bytes : left;
        TV_TRY(tv_stream_copy(saver->trainer->stream, saver->room + saver->used, from, n));
        saver->used += n;
        from += n;
        bytes -= (int64_t)n;
        if (saver->used == saver->room_bytes && work != NULL) {
            TV_TRY(flush(saver));
            if (tv_work_must_stop(work))
                return TV_OK;
        }
    }
    return TV_OK;
}

/* All elements of this rank, in the order of the plan. work NULL: into the room, which is large enough. */
static tv_status_t take_all(struct tv_saver *saver, const struct tv_work *work)
{
    saver->used = 0;
    for (int i = 0; i < saver->plan.num_slices; i++) {
        const struct tv_save_slice *slice = &saver->plan.slices[i];
        const struct tv_rect *rect = &slice->rect;
        const int64_t element =
            (int64_t)tv_dtype_bytes(tv_state_dtype(saver->trainer->run, slice->kind));
        const int is_dense = rect->num_cols == rect->local_cols;
        const int64_t rows = is_dense ? 1 : rect->num_rows;
        const int64_t cols = is_dense ? rect->num_rows * rect->num_cols : rect->num_cols;
        for (int64_t r = 0; r < rows; r++)
            TV_TRY(
                take(saver, saver->data[i] + r * rect->local_cols * element, cols * element, work));
        if (work != NULL && tv_work_must_stop(work))
            return TV_OK;
    }
    return work != NULL ? flush(saver) : tv_stream_synchronize(saver->trainer->stream);
}

/* ---- the thread that writes a shard ---- */

static tv_status_t create_shard(struct tv_saver *saver)
{
    const struct tv_save_plan *plan = &saver->plan;
    const size_t num = (size_t)plan->num_slices;
    char name[TV_SHARD_NAME_BYTES], path[PATH_MAX];
    struct tv_safetensors_entry *entries = calloc(num, sizeof(*entries));
    char(*names)[TV_SLICE_NAME_BYTES] = calloc(num, sizeof(*names));
    tv_status_t status = TV_OK;
    if (entries == NULL || names == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%zu slices of a shard", num);
    for (size_t i = 0; i < num && status == TV_OK; i++) {
        const struct tv_save_slice *slice = &plan->slices[i];
        tv_slice_name(tv_state_name(slice->kind), slice->param->name, slice->rect.row,
                      slice->rect.col, names[i]);
        entries[i] = (struct tv_safetensors_entry){
            .name = names[i],
            .dtype = tv_safetensors_dtype_name(tv_state_dtype(saver->trainer->run, slice->kind)),
            .num_dims = slice->param->num_dims,
            .shape = {slice->rect.num_rows, slice->rect.num_cols}};
    }
    tv_shard_name(tv_mesh_rank(saver->trainer->mesh), name);
    tv_folder_temporary(saver->folder, saver->step, name, path);
    if (status == TV_OK)
        status = tv_safetensors_create(path, (int)num, entries, &saver->writer);
    free(entries);
    free(names);
    return status;
}

static tv_status_t write_elements(struct tv_saver *saver, const struct tv_work *work)
{
    if (!saver->trainer->run->options.is_save_async)
        return take_all(saver, work);
    for (size_t at = 0; at < saver->used && !tv_work_must_stop(work); at += ROOM_BYTES) {
        const size_t left = saver->used - at, n = left < ROOM_BYTES ? left : ROOM_BYTES;
        TV_TRY(tv_safetensors_write_bytes(saver->writer, saver->room + at, (int64_t)n));
    }
    return TV_OK;
}

static tv_status_t write_shard(void *context, const struct tv_work *work)
{
    struct tv_saver *saver = context;
    TV_TRY(create_shard(saver));
    tv_status_t status = write_elements(saver, work);
    if (status == TV_OK && !tv_work_must_stop(work)) {
        saver->shard = tv_safetensors_digest(saver->writer);
        status = tv_safetensors_finish(&saver->writer);
    }
    tv_safetensors_abandon(&saver->writer);
    return status;
}

/* ---- the thread that ends a save, on the root ---- */

/* On several machines the folder must be the same one for all. */
static tv_status_t check_shards(const struct tv_saver *saver)
{
    char name[TV_SHARD_NAME_BYTES], path[PATH_MAX];
    for (int rank = 0; rank < num_ranks(saver); rank++) {
        struct stat info;
        tv_shard_name(rank, name);
        tv_folder_temporary(saver->folder, saver->step, name, path);
        if (saver->shards[rank].bytes == 0)
            continue;
        if (stat(path, &info) != 0)
            return TV_ERR(
                TV_IO,
                "%s, which mesh rank %d wrote, is not there for rank 0: %s; --save must be on "
                "a disk that all nodes share",
                path, rank, strerror(errno));
        if (info.st_size != saver->shards[rank].bytes)
            return TV_ERR(TV_IO, "%s has %" PRId64 " bytes of the %" PRId64 " that were written",
                          path, (int64_t)info.st_size, saver->shards[rank].bytes);
    }
    return TV_OK;
}

static tv_status_t write_text(const struct tv_saver *saver, const char *name, const char *text)
{
    char path[PATH_MAX];
    struct tv_new_file file;
    tv_folder_temporary(saver->folder, saver->step, name, path);
    TV_TRY(tv_new_file_open(path, &file));
    const tv_status_t status = tv_new_file_write(&file, text, strlen(text));
    if (status == TV_OK)
        return tv_new_file_finish(&file);
    tv_new_file_abandon(&file);
    return status;
}

static tv_status_t end_save(void *context, const struct tv_work *work)
{
    struct tv_saver *saver = context;
    const struct tv_run *run = saver->trainer->run;
    const struct tv_file_digest state = tv_digest_of(saver->state_text, strlen(saver->state_text));
    char *index = NULL;
    (void)work; /* nobody else can fail now */
    TV_TRY(check_shards(saver));
    TV_TRY(tv_index_make(run, saver->shards, &state, &index));
    tv_status_t status = write_text(saver, TV_STATE_NAME, saver->state_text);
    if (status == TV_OK)
        status = write_text(saver, TV_INDEX_NAME, index);
    free(index);
    TV_TRY(status);
    TV_TRY(tv_folder_commit(saver->folder, saver->step));
    tv_folder_prune(saver->folder, saver->step, run->options.keep);
    return TV_OK;
}

/* ---- the stages, on all ranks ---- */

/* Root only: an empty folder, and what there is to say of this step. */
static tv_status_t begin_folder(struct tv_saver *saver)
{
    if (!tv_trainer_is_root(saver->trainer))
        return TV_OK;
    free(saver->state_text);
    saver->state_text = NULL;
    TV_TRY(tv_saved_state_make(saver->trainer, saver->step, &saver->state_text));
    return tv_folder_begin(saver->folder, saver->step);
}

/* The step has no checkpoint: a later call may try again. */
static tv_status_t give_up(struct tv_saver *saver, tv_status_t status)
{
    saver->stage = IDLE;
    saver->step = -1;
    if (status != TV_PEER && tv_trainer_is_root(saver->trainer))
        tv_folder_clean(saver->folder);
    return status;
}

/* Lengths and hashes of all shards, for the root's index. */
static tv_status_t gather_digests(struct tv_saver *saver)
{
    struct tv_comm *world = tv_mesh_world(saver->trainer->mesh);
    struct tv_request *request = NULL;
    _Static_assert(sizeof(struct tv_file_digest) == 2 * sizeof(int64_t), "two numbers");
    TV_TRY(tv_comm_all_gather(world, &saver->shard, saver->shards, 2, TV_I64, NULL, &request));
    return tv_request_wait(&request);
}

static void log_speed(const struct tv_saver *saver)
{
    int64_t bytes = 0;
    for (int rank = 0; rank < num_ranks(saver); rank++)
        bytes += saver->shards[rank].bytes;
    if (tv_trainer_is_root(saver->trainer))
        tv_log(TV_LOG_DEBUG, "saved %" PRId64 " bytes in %.6f s", bytes,
               tv_clock_seconds() - saver->started_at);
}

/* From one stage to the next, when the work of all ranks has ended. */
static tv_status_t advance(struct tv_saver *saver)
{
    if (saver->stage == ENDING) {
        saver->stage = IDLE;
        saver->ended_step = saver->step;
        log_speed(saver);
        return TV_OK;
    }
    TV_TRY(gather_digests(saver));
    tv_work_start(&saver->work, tv_trainer_is_root(saver->trainer) ? end_save : NULL, saver);
    saver->stage = ENDING;
    return TV_OK;
}

static tv_status_t wait_all(struct tv_saver *saver)
{
    while (saver->stage != IDLE) {
        tv_status_t status = tv_work_wait(tv_mesh_world(saver->trainer->mesh), &saver->work);
        if (status == TV_OK)
            status = advance(saver);
        if (status != TV_OK)
            return give_up(saver, status);
    }
    return TV_OK;
}

tv_status_t tv_checkpoint_save(struct tv_trainer *tr, int64_t step)
{
    struct tv_saver *saver = tr->saver;
    int first_failed;
    if (saver == NULL || saver->step == step)
        return TV_OK;
    const double started = tv_clock_seconds();
    TV_TRY(wait_all(saver));
    saver->step = step;
    saver->started_at = tv_clock_seconds();
    saver->shard = (struct tv_file_digest){0};
    tv_status_t status = begin_folder(saver);
    if (status == TV_OK && tr->run->options.is_save_async)
        status = take_all(saver, NULL);
    status = tv_comm_agree(tv_mesh_world(tr->mesh), status, &first_failed);
    if (status != TV_OK)
        return give_up(saver, status);
    tv_work_start(&saver->work, saver->plan.num_slices > 0 ? write_shard : NULL, saver);
    saver->stage = WRITING;
    if (!tr->run->options.is_save_async)
        TV_TRY(wait_all(saver));
    tr->step_started_at += tv_clock_seconds() - started; /* a step's time is without saving */
    return TV_OK;
}

static int64_t take_ended(struct tv_saver *saver)
{
    const int64_t step = saver->ended_step;
    saver->ended_step = 0;
    return step;
}

tv_status_t tv_checkpoint_poll(struct tv_trainer *tr, int64_t *step_out)
{
    struct tv_saver *saver = tr->saver;
    int is_done = 0;
    *step_out = 0;
    if (saver == NULL)
        return TV_OK;
    if (saver->stage != IDLE) {
        tv_status_t status = tv_work_poll(tv_mesh_world(tr->mesh), &saver->work, &is_done);
        if (status == TV_OK && is_done)
            status = advance(saver);
        if (status != TV_OK)
            return give_up(saver, status);
    }
    *step_out = take_ended(saver);
    return TV_OK;
}

tv_status_t tv_checkpoint_finish(struct tv_trainer *tr, int64_t *step_out)
{
    *step_out = 0;
    if (tr->saver == NULL)
        return TV_OK;
    TV_TRY(wait_all(tr->saver));
    *step_out = take_ended(tr->saver);
    return TV_OK;
}

/* ---- */

static tv_status_t fill_saver(struct tv_saver *saver)
{
    const struct tv_trainer *tr = saver->trainer;
    const int is_async = tr->run->options.is_save_async;
    TV_TRY(tv_save_plan_create(tr->run, tr->here, &saver->plan));
    saver->room_bytes = is_async ? (size_t)saver->plan.bytes : ROOM_BYTES;
    saver->room = malloc(saver->room_bytes + 1);
    saver->data = calloc((size_t)saver->plan.num_slices + 1, sizeof(*saver->data));
    saver->shards = calloc((size_t)num_ranks(saver), sizeof(*saver->shards));
    if (saver->room == NULL || saver->data == NULL || saver->shards == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes to save from",
                      is_async ? "--save-async" : "--save", saver->room_bytes);
    return find_data(saver);
}

/* Is `step` of --save what this run was loaded from? */
static int is_loaded_from(const struct tv_run *run, const char *folder)
{
    char path[PATH_MAX], loaded[PATH_MAX], here[PATH_MAX];
    if (run->checkpoint == NULL || tv_checkpoint_first_step(run) == 0)
        return 0;
    tv_checkpoint_path(folder, tv_checkpoint_first_step(run), path, sizeof(path));
    return realpath(path, here) != NULL && realpath(run->checkpoint->path, loaded) != NULL &&
           strcmp(here, loaded) == 0;
}

tv_status_t tv_saver_create(struct tv_trainer *tr, struct tv_saver **saver_out)
{
    struct tv_saver *saver = calloc(1, sizeof(*saver));
    if (saver == NULL)
        return TV_ERR(TV_NO_MEMORY, "--save: %zu bytes", sizeof(*saver));
    saver->trainer = tr;
    saver->folder = tr->run->options.save;
    saver->step = is_loaded_from(tr->run, saver->folder) ? tv_checkpoint_first_step(tr->run) : -1;
    const tv_status_t status = fill_saver(saver);
    if (status != TV_OK) {
        tv_saver_destroy(saver);
        return status;
    }
    *saver_out = saver;
    return TV_OK;
}

void tv_saver_destroy(struct tv_saver *saver)
{
    if (saver == NULL)
        return;
    tv_work_abandon(&saver->work);
    tv_save_plan_destroy(&saver->plan);
    free(saver->data);
    free(saver->room);
    free(saver->shards);
    free(saver->state_text);
    free(saver);
}
