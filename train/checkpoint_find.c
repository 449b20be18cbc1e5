/* train/checkpoint_find.c -- which checkpoint --load means, and the proof that its bytes are as they were written. */
#include "base/clock.h"
#include "base/log.h"
#include "train/checkpoint_internal.h"
#include "train/files.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { MAX_TEXT_BYTES = 1 << 30, ROOM_BYTES = 1 << 20 };

/* ---- one checkpoint ---- */

static tv_status_t path_in(const struct tv_checkpoint *c, const char *name, char path[PATH_MAX])
{
    if (snprintf(path, PATH_MAX, "%s/%s", c->path, name) >= PATH_MAX)
        return TV_ERR(TV_BAD_FILE, "%s: a path is too long", c->path);
    return TV_OK;
}

static tv_status_t map_text(const char *path, struct tv_file_map *map)
{
    TV_TRY(tv_file_map(path, map));
    if (map->bytes > 0 && map->bytes <= MAX_TEXT_BYTES)
        return TV_OK;
    const int64_t bytes = map->bytes;
    tv_file_unmap(map);
    return TV_ERR(TV_BAD_FILE, "%s: %" PRId64 " bytes; at most %d and not empty", path, bytes,
                  MAX_TEXT_BYTES);
}

static tv_status_t refuse_digest(const char *path, const struct tv_file_digest *is,
                                 const struct tv_file_digest *says)
{
    if (is->bytes != says->bytes)
        return TV_ERR(TV_BAD_FILE, "%s has %" PRId64 " bytes, the index says %" PRId64, path,
                      is->bytes, says->bytes);
    return TV_ERR(TV_BAD_FILE,
                  "%s is damaged: its hash is %016" PRIx64 ", the index says %016" PRIx64, path,
                  is->hash, says->hash);
}

static tv_status_t read_texts(struct tv_checkpoint *c)
{
    char path[PATH_MAX];
    struct tv_file_map map = {0};
    TV_TRY(path_in(c, TV_INDEX_NAME, path));
    TV_TRY(map_text(path, &map));
    tv_status_t status = tv_index_parse(path, (const char *)map.data, (size_t)map.bytes, &c->index);
    tv_file_unmap(&map);
    TV_TRY(status);
    TV_TRY(path_in(c, TV_STATE_NAME, path));
    TV_TRY(map_text(path, &map));
    const struct tv_file_digest is = tv_digest_of(map.data, (size_t)map.bytes);
    if (is.bytes != c->index.state.bytes || is.hash != c->index.state.hash)
        status = refuse_digest(path, &is, &c->index.state);
    else
        status = tv_saved_state_parse(path, (const char *)map.data, (size_t)map.bytes, &c->state);
    tv_file_unmap(&map);
    return status;
}

static tv_status_t open_checkpoint(const char *path, int64_t step, struct tv_checkpoint **c_out)
{
    struct tv_checkpoint *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", path, sizeof(*c));
    snprintf(c->path, sizeof(c->path), "%s", path);
    tv_status_t status = read_texts(c);
    if (status == TV_OK && step >= 0 && c->state.step != step)
        status =
            TV_ERR(TV_BAD_FILE, "%s/%s says step %" PRId64, path, TV_STATE_NAME, c->state.step);
    if (status == TV_OK) {
        c->files = calloc((size_t)c->index.num_shards + 1, sizeof(*c->files));
        if (c->files == NULL)
            status = TV_ERR(TV_NO_MEMORY, "%s: %d shards", path, c->index.num_shards);
    }
    if (status != TV_OK) {
        tv_checkpoint_close(c);
        return status;
    }
    *c_out = c;
    return TV_OK;
}

void tv_checkpoint_close(struct tv_checkpoint *c)
{
    if (c == NULL)
        return;
    for (int i = 0; c->files != NULL && i < c->index.num_shards; i++)
        tv_safetensors_close(c->files[i]);
    free(c->files);
    tv_index_free(&c->index);
    tv_saved_state_free(&c->state);
    free(c);
}

tv_status_t tv_checkpoint_shard(struct tv_checkpoint *c, int shard,
                                struct tv_safetensors **file_out)
{
    char path[PATH_MAX];
    if (c->files[shard] == NULL) {
        TV_TRY(path_in(c, c->index.shards[shard].name, path));
        TV_TRY(tv_safetensors_open(path, &c->files[shard]));
    }
    *file_out = c->files[shard];
    return TV_OK;
}

/* ---- its shards ---- */

/* Read rather than mapped: the disk reads ahead, and an error of it is one of ours. */
static tv_status_t hash_file(const char *path, int fd, XXH3_state_t *hash, char *room,
                             const struct tv_work *work)
{
    XXH3_64bits_reset(hash);
    while (!tv_work_must_stop(work)) {
        const ssize_t n = read(fd, room, ROOM_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return TV_ERR(TV_BAD_FILE, "%s: reading failed: %s", path, strerror(errno));
        if (n == 0)
            break;
        XXH3_64bits_update(hash, room, (size_t)n);
    }
    return TV_OK;
}

static tv_status_t check_open_file(const char *path, int fd, const struct tv_file_digest *says,
                                   const struct tv_work *work)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return TV_ERR(TV_BAD_FILE, "%s is not a plain file", path);
    struct tv_file_digest is = {.bytes = info.st_size};
    if (is.bytes != says->bytes)
        return refuse_digest(path, &is, says);
    XXH3_state_t *hash = XXH3_createState();
    char *room = malloc(ROOM_BYTES);
    tv_status_t status = TV_OK;
    if (hash == NULL || room == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%s: %d bytes to read through", path, ROOM_BYTES);
    else
        status = hash_file(path, fd, hash, room, work);
    if (status == TV_OK && !tv_work_must_stop(work)) {
        is.hash = XXH3_64bits_digest(hash);
        if (is.hash != says->hash)
            status = refuse_digest(path, &is, says);
    }
    XXH3_freeState(hash);
    free(room);
    return status;
}

static tv_status_t check_bytes(const char *path, const struct tv_file_digest *says,
                               const struct tv_work *work)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block here */
    if (fd < 0)
        return TV_ERR(TV_BAD_FILE, "%s: %s", path, strerror(errno));
    const tv_status_t status = check_open_file(path, fd, says, work);
    close(fd);
    return status;
}

/* A slice of the index as its shard has it. */
static tv_status_t check_slice(const struct tv_safetensors *file,
                               const struct tv_index_tensor *tensor,
                               const struct tv_index_slice *slice)
{
    char name[TV_SLICE_NAME_BYTES];
    tv_slice_name(tensor->kind, tensor->name, slice->row, slice->col, name);
    const struct tv_safetensor *found = tv_safetensors_find(file, name);
    if (found == NULL)
        return TV_ERR(TV_BAD_FILE, "%s has no %s, which the index says it has",
                      tv_safetensors_path(file), name);
    if (found->num_dims != tensor->num_dims || found->shape[0] != slice->num_rows ||
        (tensor->num_dims == 2 && found->shape[1] != slice->num_cols) ||
        strcmp(found->dtype, tensor->dtype) != 0)
        return TV_ERR(TV_BAD_FILE, "%s: %s has another shape or dtype than the index says",
                      tv_safetensors_path(file), name);
    return TV_OK;
}

static tv_status_t check_shard(struct tv_checkpoint *c, int shard, const struct tv_work *work)
{
    char path[PATH_MAX];
    struct tv_safetensors *file = NULL;
    int num = 0;
    TV_TRY(path_in(c, c->index.shards[shard].name, path));
    TV_TRY(check_bytes(path, &c->index.shards[shard].digest, work));
    TV_TRY(tv_checkpoint_shard(c, shard, &file));
    for (int i = 0; i < c->index.num_tensors; i++) {
        const struct tv_index_tensor *tensor = &c->index.tensors[i];
        for (int k = 0; k < tensor->num_slices; k++) {
            if (tensor->slices[k].shard != shard)
                continue;
            TV_TRY(check_slice(file, tensor, &tensor->slices[k]));
            num++;
        }
    }
    if (num != tv_safetensors_count(file))
        return TV_ERR(TV_BAD_FILE, "%s holds %d tensors, the index lists %d of them", path,
                      tv_safetensors_count(file), num);
    return TV_OK;
}

/* This rank's share of the shards. */
struct share {
    struct tv_checkpoint *checkpoint;
    int rank, num_ranks;
};

static tv_status_t check_share(void *context, const struct tv_work *work)
{
    const struct share *share = context;
    struct tv_checkpoint *c = share->checkpoint;
    for (int i = share->rank; i < c->index.num_shards && !tv_work_must_stop(work);
         i += share->num_ranks)
        TV_TRY(check_shard(c, i, work));
    return TV_OK;
}

int64_t tv_checkpoint_bytes(const struct tv_checkpoint *c)
{
    int64_t bytes = 0;
    for (int i = 0; i < c->index.num_shards; i++)
        bytes += c->index.shards[i].digest.bytes;
    return bytes;
}

/* What --load may mean: a checkpoint itself, or steps of a folder. */
struct candidates {
    char folder[PATH_MAX];
    int64_t is_itself, num;
    int64_t *steps; /* [num], ascending; owned */
    struct tv_checkpoint_trial trial;
    int is_over; /* the trial has refused one */
};

static tv_status_t run_trial(struct tv_comm *world, struct candidates *all, struct tv_checkpoint *c)
{
    int first_failed;
    if (all->trial.check == NULL)
        return TV_OK;
    const tv_status_t status =
        tv_comm_agree(world, all->trial.check(all->trial.context, c), &first_failed);
    all->is_over = status != TV_OK;
    return status;
}

/* All ranks open it, and check it together. */
static tv_status_t try_checkpoint(struct tv_comm *world, struct candidates *all, const char *path,
                                  int64_t step, struct tv_checkpoint **c_out)
{
    int first_failed;
    struct tv_checkpoint *c = NULL;
    const double started = tv_clock_seconds();
    tv_status_t status = tv_comm_agree(world, open_checkpoint(path, step, &c), &first_failed);
    if (status == TV_OK)
        status = run_trial(world, all, c);
    if (status == TV_OK) {
        struct share share = {c, tv_comm_rank(world), tv_comm_size(world)};
        status = tv_work_do(world, check_share, &share);
    }
    if (status != TV_OK || c == NULL) {
        tv_checkpoint_close(c);
        return status;
    }
    if (tv_comm_rank(world) == 0)
        tv_log(TV_LOG_DEBUG, "checked %" PRId64 " bytes in %.6f s", tv_checkpoint_bytes(c),
               tv_clock_seconds() - started);
    *c_out = c;
    return TV_OK;
}

/* ---- which one ---- */

/* Rank 0 looks, so that all see the same. */
static tv_status_t list_candidates(const char *folder, int rank, struct candidates *all)
{
    char path[PATH_MAX];
    struct stat info;
    int num = 0;
    if (snprintf(all->folder, sizeof(all->folder), "%s", folder) > PATH_MAX - 128)
        return TV_ERR(TV_INVALID, "--load: a path of %zu bytes is too long", strlen(folder));
    if (rank != 0)
        return TV_OK;
    snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 64, folder, TV_INDEX_NAME);
    all->is_itself = stat(path, &info) == 0;
    if (!all->is_itself)
        TV_TRY(tv_folder_steps(folder, &all->steps, &num));
    all->num = num;
    return TV_OK;
}

static tv_status_t share_candidates(struct tv_comm *world, struct candidates *all)
{
    int first_failed;
    tv_status_t status = TV_OK;
    int64_t head[2] = {all->is_itself, all->num};
    TV_TRY(tv_comm_broadcast_now(world, head, 2, TV_I64, 0));
    all->is_itself = head[0];
    all->num = head[1];
    if (all->steps == NULL) {
        all->steps = calloc((size_t)all->num + 1, sizeof(*all->steps));
        if (all->steps == NULL)
            status = TV_ERR(TV_NO_MEMORY, "%" PRId64 " checkpoints", all->num);
    }
    TV_TRY(tv_comm_agree(world, status, &first_failed));
    return tv_comm_broadcast_now(world, all->steps, all->num, TV_I64, 0);
}

/* The newest that is whole; NULL when there is none at all. */
static tv_status_t try_candidates(struct tv_comm *world, struct candidates *all,
                                  struct tv_checkpoint **c_out)
{
    char path[PATH_MAX], why[1024] = "";
    for (int64_t i = all->num - 1; i >= 0; i--) {
        tv_checkpoint_path(all->folder, all->steps[i], path, sizeof(path));
        const tv_status_t status = try_checkpoint(world, all, path, all->steps[i], c_out);
        if (status != TV_BAD_FILE || all->is_over)
            return status;
        if (tv_comm_rank(world) == 0)
            tv_log(TV_LOG_WARN, "step %" PRId64 " is skipped: %s", all->steps[i],
                   tv_error_message());
        if (why[0] == '\0')
            snprintf(why, sizeof(why), "%s", tv_error_message());
    }
    if (all->num > 0)
        return TV_ERR(TV_BAD_FILE, "%s: none of its %" PRId64 " checkpoint(s) can be loaded: %s",
                      all->folder, all->num, why);
    return TV_OK;
}

tv_status_t tv_checkpoint_find_in(struct tv_comm *world, const char *folder,
                                  struct tv_checkpoint_trial trial, struct tv_checkpoint **c_out)
{
    struct candidates all = {.trial = trial};
    int first_failed;
    tv_status_t status =
        tv_comm_agree(world, list_candidates(folder, tv_comm_rank(world), &all), &first_failed);
    if (status == TV_OK)
        status = share_candidates(world, &all);
    if (status == TV_OK)
        status = all.is_itself ? try_checkpoint(world, &all, folder, -1, c_out)
                               : try_candidates(world, &all, c_out);
    free(all.steps);
    return status;
}

static tv_status_t check_flags(const struct tv_train_options *o)
{
    const int is_auto = o->load != NULL && strcmp(o->load, "auto") == 0;
    if (is_auto && o->save == NULL)
        return TV_ERR(TV_INVALID, "--load auto looks in --save, which is not given");
    if (is_auto && o->is_finetune)
        return TV_ERR(TV_INVALID,
                      "--finetune would begin again whenever --load auto finds the run's own "
                      "checkpoint; name the folder: --load DIR, or --init-from");
    if (o->load == NULL && (o->is_finetune || o->is_optimizer_fresh))
        return TV_ERR(TV_INVALID, "--%s needs --load",
                      o->is_finetune ? "finetune" : "no-load-optim");
    if (o->is_rate_own && o->is_rate_stored)
        return TV_ERR(TV_INVALID,
                      "--override-opt_param-scheduler and "
                      "--use-checkpoint-opt_param-scheduler say opposite things; give one");
    if (o->save == NULL && (o->save_interval > 0 || o->keep > 0 || o->is_save_async))
        return TV_ERR(TV_INVALID, "--%s needs --save",
                      o->save_interval > 0 ? "save-interval"
                      : o->keep > 0        ? "keep"
                                           : "save-async");
    return TV_OK;
}

tv_status_t tv_checkpoint_find(struct tv_comm *world, const struct tv_train_options *options,
                               struct tv_checkpoint_trial trial,
                               struct tv_checkpoint **checkpoint_out)
{
    struct tv_checkpoint *found = NULL;
    TV_TRY(check_flags(options)); /* the same on every rank */
    *checkpoint_out = NULL;
    if (options->load == NULL)
        return TV_OK;
    const int is_auto = strcmp(options->load, "auto") == 0;
    TV_TRY(tv_checkpoint_find_in(world, is_auto ? options->save : options->load, trial, &found));
    if (found == NULL && !is_auto)
        return TV_ERR(TV_BAD_FILE,
                      "--load %s: there is no checkpoint: neither %s nor a folder step-N in it",
                      options->load, TV_INDEX_NAME);
    if (found != NULL && tv_comm_rank(world) == 0)
        tv_log(TV_LOG_INFO, "%s step %" PRId64 " from %s",
               options->is_finetune ? "weights of" : "continuing after", found->state.step,
               found->path);
    *checkpoint_out = found;
    return TV_OK;
}
