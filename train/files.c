/* train/files.c -- folders, maps, and files that appear whole or not at all. */
#include "train/files.h"
#include "train/file_faults.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static tv_status_t make_one(const char *folder)
{
    struct stat info;
    if (mkdir(folder, 0777) == 0)
        return TV_OK;
    const int reason = errno;
    if (reason == EEXIST && stat(folder, &info) == 0 && S_ISDIR(info.st_mode))
        return TV_OK;
    return TV_ERR(TV_INVALID, "%s: the folder cannot be made: %s", folder,
                  strerror(reason == EEXIST ? ENOTDIR : reason));
}

tv_status_t tv_folder_make(const char *folder)
{
    char path[PATH_MAX];
    const size_t length = strlen(folder);
    if (length == 0 || length >= sizeof(path))
        return TV_ERR(TV_INVALID, "a folder's name of %zu bytes cannot be used", length);
    memcpy(path, folder, length + 1);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        TV_TRY(make_one(path));
        *slash = '/';
    }
    return make_one(path);
}

/* Length of the folder part of a path: 0 when it has none. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return 0;
    return slash == path ? 1 : (size_t)(slash - path);
}

tv_status_t tv_folder_make_parent(const char *path)
{
    char folder[PATH_MAX];
    const size_t length = folder_length(path);
    if (length == 0)
        return TV_OK;
    if (length >= sizeof(folder))
        return TV_ERR(TV_INVALID, "a folder's name of %zu bytes cannot be used", length);
    memcpy(folder, path, length);
    folder[length] = '\0';
    return tv_folder_make(folder);
}

static tv_status_t map_open_file(int fd, const char *path, struct tv_file_map *map)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return TV_ERR(TV_BAD_FILE, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return TV_ERR(TV_BAD_FILE, "%s is not a plain file", path);
    map->bytes = info.st_size;
    if (map->bytes == 0) /* nothing to map */
        return TV_OK;
    void *data = mmap(NULL, (size_t)map->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return TV_ERR(TV_BAD_FILE, "%s: %" PRId64 " bytes cannot be mapped: %s", path, map->bytes,
                      strerror(errno));
    map->data = data;
    tv_file_faults_add(path, data, (size_t)map->bytes);
    return TV_OK;
}

tv_status_t tv_file_map(const char *path, struct tv_file_map *map_out)
{
    struct tv_file_map map = {0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block here */
    if (fd < 0)
        return TV_ERR(TV_BAD_FILE, "%s: %s", path, strerror(errno));
    const tv_status_t status = map_open_file(fd, path, &map);
    close(fd);
    if (status == TV_OK)
        *map_out = map;
    return status;
}

void tv_file_unmap(struct tv_file_map *map)
{
    if (map->data != NULL) {
        tv_file_faults_remove(map->data);
        munmap((void *)(uintptr_t)map->data, (size_t)map->bytes);
    }
    *map = (struct tv_file_map){0};
}

void tv_file_map_forget(const struct tv_file_map *map, int64_t first, int64_t bytes)
{
    const int64_t page = sysconf(_SC_PAGESIZE), start = first / page * page;
    if (map->data != NULL && bytes > 0 && page > 0) /* only a hint: a failure changes nothing */
        (void)madvise((void *)((uintptr_t)map->data + (uintptr_t)start),
                      (size_t)(first + bytes - start), MADV_DONTNEED);
}

tv_status_t tv_file_read_json(const char *path, int64_t max_bytes, struct json_t **json_out)
{
    struct tv_file_map map = {0};
    json_error_t error;
    TV_TRY(tv_file_map(path, &map));
    tv_status_t status = TV_OK;
    json_t *json = NULL;
    if (map.bytes == 0 || map.bytes > max_bytes) {
        status = TV_ERR(TV_BAD_FILE, "%s: %" PRId64 " bytes; at most %" PRId64 " and not empty",
                        path, map.bytes, max_bytes);
    } else {
        json =
            json_loadb((const char *)map.data, (size_t)map.bytes, JSON_REJECT_DUPLICATES, &error);
        if (json == NULL)
            status = TV_ERR(TV_BAD_FILE, "%s: line %d: %s", path, error.line, error.text);
        else if (!json_is_object(json))
            status = TV_ERR(TV_BAD_FILE, "%s is not a JSON object", path);
    }
    tv_file_unmap(&map);
    if (status == TV_OK)
        *json_out = json;
    else
        json_decref(json);
    return status;
}

/* Where a path leads, links and dots resolved; what is not there yet as a name in its folder. Empty: nowhere, or to a
 * device. */
static void lead(const char *path, char place[PATH_MAX])
{
    char folder[PATH_MAX];
    struct stat info;
    place[0] = '\0';
    if (stat(path, &info) == 0) {
        if ((!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) || realpath(path, place) == NULL)
            place[0] = '\0';
        return;
    }
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    const size_t length = slash != NULL ? (size_t)(slash + 1 - path) : 0;
    if (length >= sizeof(folder))
        return;
    memcpy(folder, path, length);
    folder[length] = '\0';
    if (realpath(length > 0 ? folder : ".", place) == NULL) /* a folder still to be made */
        snprintf(place, PATH_MAX, "%s", folder);
    const size_t used = strlen(place);
    snprintf(place + used, PATH_MAX - used, "/%s", name);
}

tv_status_t tv_files_check_apart(int num, const struct tv_flag_file *files)
{
    char one[PATH_MAX], other[PATH_MAX];
    for (int i = 0; i < num; i++) {
        if (files[i].path == NULL || !files[i].is_written)
            continue;
        lead(files[i].path, one);
        for (int j = 0; j < num && one[0] != '\0'; j++) {
            if (files[j].path == NULL || j == i)
                continue;
            lead(files[j].path, other);
            if (strcmp(one, other) == 0)
                return TV_ERR(TV_INVALID, "--%s %s is also --%s %s: give it another name",
                              files[i].flag, files[i].path, files[j].flag, files[j].path);
        }
    }
    return TV_OK;
}

tv_status_t tv_text_file_open(const char *flag, const char *path, FILE **file_out)
{
    TV_TRY(tv_folder_make_parent(path));
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return TV_ERR(TV_INVALID, "--%s %s cannot be written: %s", flag, path, strerror(errno));
    *file_out = file;
    return TV_OK;
}

tv_status_t tv_text_file_close(const char *flag, const char *path, FILE *file, tv_status_t status)
{
    const int failed = ferror(file);
    if ((fclose(file) != 0 || failed) && (status == TV_OK || status == TV_IO))
        return TV_ERR(TV_IO, "--%s %s: writing failed: %s", flag, path, strerror(errno));
    return status;
}

tv_status_t tv_new_file_open(const char *path, struct tv_new_file *file_out)
{
    struct tv_new_file file = {.fd = -1};
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) /* a device would be renamed over */
        return TV_ERR(TV_INVALID, "%s is there and is not a plain file", path);
    const size_t length = strlen(path);
    file.path = strdup(path);
    file.temporary = malloc(length + sizeof(".tmp"));
    if (file.path == NULL || file.temporary == NULL) {
        tv_new_file_abandon(&file);
        return TV_ERR(TV_NO_MEMORY, "%s: its name", path);
    }
    memcpy(file.temporary, path, length);
    memcpy(file.temporary + length, ".tmp", sizeof(".tmp"));
    file.fd = open(file.temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file.fd < 0) {
        const int reason = errno;
        tv_new_file_abandon(&file);
        return TV_ERR(TV_IO, "%s cannot be written: %s", path, strerror(reason));
    }
    *file_out = file;
    return TV_OK;
}

tv_status_t tv_new_file_write(struct tv_new_file *file, const void *data, size_t bytes)
{
    const char *next = data;
    while (bytes > 0) {
        const ssize_t wrote = write(file->fd, next, bytes);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return TV_ERR(TV_IO, "%s: writing failed: %s", file->path, strerror(errno));
        next += wrote;
        bytes -= (size_t)wrote;
    }
    return TV_OK;
}

int tv_folder_sync(const char *folder)
{
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    const int failed = fsync(fd) != 0 && errno != EINVAL; /* some file systems have no such sync */
    close(fd);
    return failed ? -1 : 0;
}

static int sync_folder_of(const char *path)
{
    char folder[PATH_MAX] = ".";
    const size_t length = folder_length(path);
    if (length > 0 && length < sizeof(folder)) {
        memcpy(folder, path, length);
        folder[length] = '\0';
    }
    return tv_folder_sync(folder);
}

tv_status_t tv_new_file_finish(struct tv_new_file *file)
{
    tv_status_t status = TV_OK;
    const int synced = fsync(file->fd);
    const int reason = errno;
    const int closed = close(file->fd); /* a network file system may report a full disk here */
    file->fd = -1;
    if (synced != 0 || closed != 0)
        status = TV_ERR(TV_IO, "%s: writing failed: %s", file->path,
                        strerror(synced != 0 ? reason : errno));
    else if (rename(file->temporary, file->path) != 0)
        status = TV_ERR(TV_IO, "%s cannot be renamed to %s: %s", file->temporary, file->path,
                        strerror(errno));
    else if (sync_folder_of(file->path) != 0)
        status = TV_ERR(TV_IO, "%s: its folder cannot be synced: %s", file->path, strerror(errno));
    tv_new_file_abandon(file); /* after the rename there is nothing left to remove */
    return status;
}

void tv_new_file_abandon(struct tv_new_file *file)
{
    if (file->fd > 0) /* 0 is a zeroed struct */
        close(file->fd);
    if (file->temporary != NULL)
        unlink(file->temporary);
    free(file->path);
    free(file->temporary);
    *file = (struct tv_new_file){.fd = -1};
}
