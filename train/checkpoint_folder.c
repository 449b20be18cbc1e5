/* train/checkpoint_folder.c -- names of steps, temporary names, renames that survive a power cut, old steps, disk. */
#include "base/log.h"
#include "train/checkpoint_internal.h"
#include "train/files.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Behind the name of a step: being written or removed; replaced by a new one of the same step. */
static const char temporary_end[] = ".tmp", replaced_end[] = ".old";

void tv_checkpoint_path(const char *folder, int64_t step, char *path_out, size_t bytes)
{
    snprintf(path_out, bytes, "%s/step-%08" PRId64, folder, step);
}

void tv_folder_temporary(const char *folder, int64_t step, const char *name,
                         char path_out[PATH_MAX])
{
    snprintf(path_out, PATH_MAX, "%s/step-%08" PRId64 "%s%s%s", folder, step, temporary_end,
             name[0] != '\0' ? "/" : "", name);
}

static void replaced_path(const char *folder, int64_t step, char path_out[PATH_MAX])
{
    snprintf(path_out, PATH_MAX, "%s/step-%08" PRId64 "%s", folder, step, replaced_end);
}

/* The step that a folder's name says, with `end` behind the number; -1: another name. */
static int64_t step_of(const char *name, const char *end)
{
    char again[64];
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9' || strlen(name) > 40)
        return -1;
    const int64_t step = strtoll(name + 5, NULL, 10);
    snprintf(again, sizeof(again), "step-%08" PRId64 "%s", step, end);
    return strcmp(name, again) == 0 ? step : -1;
}

static int compare_steps(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

/* Steps of the entries whose names end so, ascending. */
static tv_status_t list_steps(const char *folder, const char *end, int64_t **steps_out,
                              int *num_out)
{
    int num = 0, room = 0;
    int64_t *steps = NULL;
    DIR *listing = opendir(folder);
    *steps_out = NULL;
    *num_out = 0;
    if (listing == NULL)
        return errno == ENOENT ? TV_OK : TV_ERR(TV_BAD_FILE, "%s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        const int64_t step = step_of(entry->d_name, end);
        if (step < 0)
            continue;
        if (num == room) {
            room = 2 * room + 16;
            int64_t *more = realloc(steps, (size_t)room * sizeof(*steps));
            if (more == NULL) {
                free(steps);
                closedir(listing);
                return TV_ERR(TV_NO_MEMORY, "%s: %d steps", folder, room);
            }
            steps = more;
        }
        steps[num++] = step;
    }
    closedir(listing);
    if (num > 0)
        qsort(steps, (size_t)num, sizeof(*steps), compare_steps);
    *steps_out = steps;
    *num_out = num;
    return TV_OK;
}

tv_status_t tv_folder_steps(const char *folder, int64_t **steps_out, int *num_out)
{
    return list_steps(folder, "", steps_out, num_out);
}

/* A folder and the files in it. Returns 0, or -1 with errno. */
static int remove_folder(const char *path)
{
    DIR *listing = opendir(path);
    int failed = listing == NULL && errno != ENOENT;
    if (listing == NULL)
        return failed ? -1 : 0;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlinkat(dirfd(listing), entry->d_name, 0) != 0)
            failed = errno;
    }
    closedir(listing);
    if (!failed && rmdir(path) == 0)
        return 0;
    if (failed)
        errno = failed;
    return -1;
}

tv_status_t tv_folder_begin(const char *folder, int64_t step)
{
    char path[PATH_MAX];
    tv_folder_temporary(folder, step, "", path);
    if (remove_folder(path) != 0 || mkdir(path, 0777) != 0)
        return TV_ERR(TV_IO, "%s: the folder cannot be made: %s", path, strerror(errno));
    return TV_OK;
}

/* Under its temporary name a folder is no step any more, whatever of it is left if this is cut short. */
static int remove_step(const char *folder, int64_t step)
{
    char path[PATH_MAX], temporary[PATH_MAX];
    tv_checkpoint_path(folder, step, path, sizeof(path));
    tv_folder_temporary(folder, step, "", temporary);
    if (remove_folder(temporary) != 0 || rename(path, temporary) != 0)
        return -1;
    return remove_folder(temporary);
}

/* A step that is there already goes aside first: not every shared file system can exchange two names. */
static int take_name(const char *temporary, const char *path, const char *replaced)
{
    struct stat info;
    if (stat(path, &info) == 0 && (remove_folder(replaced) != 0 || rename(path, replaced) != 0))
        return -1;
    return rename(temporary, path);
}

tv_status_t tv_folder_commit(const char *folder, int64_t step)
{
    char path[PATH_MAX], temporary[PATH_MAX], replaced[PATH_MAX];
    tv_checkpoint_path(folder, step, path, sizeof(path));
    tv_folder_temporary(folder, step, "", temporary);
    replaced_path(folder, step, replaced);
    if (take_name(temporary, path, replaced) != 0)
        return TV_ERR(TV_IO, "%s cannot be renamed to %s: %s", temporary, path, strerror(errno));
    if (tv_folder_sync(folder) != 0)
        return TV_ERR(TV_IO, "%s: the folder cannot be synced: %s", folder, strerror(errno));
    if (remove_folder(replaced) != 0)
        tv_log(TV_LOG_WARN, "%s cannot be removed: %s", replaced, strerror(errno));
    return TV_OK;
}

/* One that was replaced gets its name back where the new one did not come to take it. */
static void clean_step(const char *folder, int64_t step, int is_replaced)
{
    char path[PATH_MAX], name[PATH_MAX];
    struct stat info;
    tv_folder_temporary(folder, step, "", path);
    tv_checkpoint_path(folder, step, name, sizeof(name));
    if (is_replaced)
        replaced_path(folder, step, path);
    const int is_alone = is_replaced && stat(name, &info) != 0;
    if ((is_alone ? rename(path, name) : remove_folder(path)) != 0)
        tv_log(TV_LOG_WARN, "%s cannot be removed: %s", path, strerror(errno));
}

void tv_folder_clean(const char *folder)
{
    for (int is_replaced = 0; is_replaced < 2; is_replaced++) {
        int64_t *steps = NULL;
        int num = 0;
        if (list_steps(folder, is_replaced ? replaced_end : temporary_end, &steps, &num) != TV_OK)
            return; /* whoever writes there will say so */
        for (int i = 0; i < num; i++)
            clean_step(folder, steps[i], is_replaced);
        free(steps);
    }
}

void tv_folder_prune(const char *folder, int64_t newest, int64_t keep)
{
    int64_t *steps = NULL;
    int num = 0;
    if (keep == 0 || tv_folder_steps(folder, &steps, &num) != TV_OK)
        return;
    int64_t too_many = num - keep;
    for (int i = 0; i < num && too_many > 0; i++) {
        if (steps[i] == newest)
            continue;
        too_many--;
        if (remove_step(folder, steps[i]) != 0)
            tv_log(TV_LOG_WARN, "--keep %" PRId64 ": step %" PRId64 " in %s cannot be removed: %s",
                   keep, steps[i], folder, strerror(errno));
    }
    free(steps);
}

/* ---- before training ---- */

/* How many checkpoints will be on the disk at once, beyond those that are there and stay. */
static int64_t num_to_hold(const struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    const int64_t left = run->train_iters - tv_checkpoint_first_step(run);
    int64_t num = left > 0; /* the one at the end */
    if (o->save_interval > 0 && left > 0)
        num = (run->train_iters - 1) / o->save_interval -
              tv_checkpoint_first_step(run) / o->save_interval + 1;
    int64_t *steps = NULL;
    int num_there = 0;
    if (o->keep == 0 || tv_folder_steps(o->save, &steps, &num_there) != TV_OK)
        return num;
    free(steps);
    /* A new one is written before an old one goes; those there make room as new ones come. */
    const int64_t there = num_there < o->keep ? num_there : o->keep;
    const int64_t most = o->keep + 1 - there;
    return num < most ? num : most;
}

static tv_status_t check_space(const struct tv_run *run)
{
    const char *folder = run->options.save;
    struct statvfs disk;
    int64_t bytes = 0;
    TV_TRY(tv_state_bytes(run, &bytes));
    if (statvfs(folder, &disk) != 0)
        return TV_ERR(TV_INVALID, "--save %s: %s", folder, strerror(errno));
    /* 256 KiB: the text beside the numbers of a small model; of a large one it is far less than 1/256. */
    const double each = (double)bytes + (double)bytes / 256 + 0x1p18;
    const double num = (double)num_to_hold(run);
    const double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    if (num * each <= free_bytes)
        return TV_OK;
    const double fit = free_bytes / each;
    if (fit < 2)
        return TV_ERR(
            TV_INVALID,
            "--save %s: a checkpoint takes %.1f MiB, %.1f MiB are free on its disk; there must be "
            "room for %.0f",
            folder, each / 0x1p20, free_bytes / 0x1p20, num);
    return TV_ERR(
        TV_INVALID,
        "--save %s: %.0f checkpoints of %.1f MiB will be written, %.1f MiB are free on its disk; "
        "--keep %.0f would fit, or a larger --save-interval",
        folder, num, each / 0x1p20, free_bytes / 0x1p20, fit - 1);
}

tv_status_t tv_folder_prepare(const struct tv_run *run)
{
    const char *folder = run->options.save;
    char path[PATH_MAX];
    if (strlen(folder) > PATH_MAX - 128)
        return TV_ERR(TV_INVALID, "--save: a path of %zu bytes is too long", strlen(folder));
    if (tv_folder_make(folder) != TV_OK)
        return TV_ERR(TV_INVALID, "--save %s", tv_error_message());
    tv_folder_clean(folder);
    tv_folder_temporary(folder, 0, "", path);
    if (mkdir(path, 0777) != 0 || rmdir(path) != 0)
        return TV_ERR(TV_INVALID, "--save %s: folders cannot be made in it: %s", folder,
                      strerror(errno));
    return check_space(run);
}
