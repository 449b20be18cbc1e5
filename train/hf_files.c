/* train/hf_files.c -- finds and opens the safetensors files of a model. */
#include "train/hf_files.h"
#include "train/files.h"
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_INDEX_BYTES = 64 << 20 };

struct tv_hf_files {
    char path[PATH_MAX];
    int num, max;
    struct tv_safetensors **files; /* [max] */
};

static tv_status_t reserve(struct tv_hf_files *files, size_t num)
{
    files->files = calloc(num + 1, sizeof(*files->files));
    if (files->files == NULL)
        return TV_ERR(TV_NO_MEMORY, "%zu files", num);
    files->max = (int)num;
    return TV_OK;
}

static tv_status_t open_one(struct tv_hf_files *files, const char *path)
{
    TV_TRY(tv_safetensors_open(path, &files->files[files->num]));
    files->num++;
    return TV_OK;
}

/* `folder/name`, where name must not lead out of the folder. */
static tv_status_t shard_path(const char *index, const char *name, char *path, size_t bytes)
{
    const char *slash = strrchr(index, '/');
    const int folder_bytes = slash == NULL ? 0 : (int)(slash - index) + 1;
    if (name == NULL || name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        return TV_ERR(TV_BAD_FILE, "%s: '%s' is not the name of a file in this folder", index,
                      name == NULL ? "(not a string)" : name);
    if (snprintf(path, bytes, "%.*s%s", folder_bytes, index, name) >= (int)bytes)
        return TV_ERR(TV_BAD_FILE, "%s: a path is too long", index);
    return TV_OK;
}

static const struct tv_safetensors *find_file(const struct tv_hf_files *files, const char *path)
{
    for (int i = files->num - 1; i >= 0; i--) { /* neighbours in the map are often in one file */
        if (strcmp(tv_safetensors_path(files->files[i]), path) == 0)
            return files->files[i];
    }
    return NULL;
}

/* Each shard once; every tensor in the shard that the index says, and no tensor besides. */
static tv_status_t open_shards(struct tv_hf_files *files, json_t *map)
{
    const char *name;
    json_t *value;
    char path[PATH_MAX];
    int64_t listed = 0;
    json_object_foreach(map, name, value)
    {
        TV_TRY(shard_path(files->path, json_string_value(value), path, sizeof(path)));
        if (find_file(files, path) == NULL)
            TV_TRY(open_one(files, path));
        if (tv_safetensors_find(find_file(files, path), name) == NULL)
            return TV_ERR(TV_BAD_FILE, "%s: %s is not in %s", files->path, name, path);
        listed++;
    }
    if (listed != tv_hf_files_num_tensors(files))
        return TV_ERR(TV_BAD_FILE, "%s lists %lld tensors, its files hold %lld", files->path,
                      (long long)listed, (long long)tv_hf_files_num_tensors(files));
    return TV_OK;
}

static tv_status_t open_index(struct tv_hf_files *files)
{
    json_t *json = NULL;
    TV_TRY(tv_file_read_json(files->path, MAX_INDEX_BYTES, &json));
    json_t *map = json_object_get(json, "weight_map");
    tv_status_t status = TV_OK;
    if (!json_is_object(map))
        status = TV_ERR(TV_BAD_FILE, "%s: \"weight_map\" is missing or not an object", files->path);
    if (status == TV_OK)
        status = reserve(files, json_object_size(map));
    if (status == TV_OK)
        status = open_shards(files, map);
    json_decref(json);
    return status;
}

/* The file that a path means: itself, or one of two in a folder. */
static tv_status_t resolve_path(const char *path, char *file, size_t bytes)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        if (snprintf(file, bytes, "%s", path) >= (int)bytes)
            return TV_ERR(TV_BAD_FILE, "a path of %zu bytes is too long", strlen(path));
        return TV_OK;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (snprintf(file, bytes, "%s/%s", path, names[i]) < (int)bytes && stat(file, &info) == 0)
            return TV_OK;
    }
    return TV_ERR(TV_BAD_FILE, "%s has neither %s nor %s", path, names[0], names[1]);
}

static int is_index(const char *path)
{
    const size_t length = strlen(path);
    return length >= 5 && strcmp(path + length - 5, ".json") == 0;
}

static tv_status_t open_path(struct tv_hf_files *files, const char *path)
{
    TV_TRY(resolve_path(path, files->path, sizeof(files->path)));
    if (is_index(files->path))
        return open_index(files);
    TV_TRY(reserve(files, 1));
    return open_one(files, files->path);
}

tv_status_t tv_hf_files_open(const char *path, struct tv_hf_files **files_out)
{
    struct tv_hf_files *files = calloc(1, sizeof(*files));
    if (files == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", path, sizeof(*files));
    const tv_status_t status = open_path(files, path);
    if (status == TV_OK)
        *files_out = files;
    else
        tv_hf_files_close(files);
    return status;
}

void tv_hf_files_close(struct tv_hf_files *files)
{
    if (files == NULL)
        return;
    for (int i = 0; i < files->num; i++)
        tv_safetensors_close(files->files[i]);
    free(files->files);
    free(files);
}

const char *tv_hf_files_path(const struct tv_hf_files *files)
{
    return files->path;
}

int tv_hf_files_count(const struct tv_hf_files *files)
{
    return files->num;
}

const struct tv_safetensors *tv_hf_files_at(const struct tv_hf_files *files, int index)
{
    return files->files[index];
}

int64_t tv_hf_files_num_tensors(const struct tv_hf_files *files)
{
    int64_t num = 0;
    for (int i = 0; i < files->num; i++)
        num += tv_safetensors_count(files->files[i]);
    return num;
}
