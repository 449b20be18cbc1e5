/* train/checkpoint_index.c -- index.json: reads it and proves what can be proved without the shards. */
#include "train/checkpoint_internal.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tv_shard_name(int mesh_rank, char *name_out)
{
    snprintf(name_out, TV_SHARD_NAME_BYTES, "shard-%05d.safetensors", mesh_rank);
}

void tv_slice_name(const char *kind, const char *tensor, int64_t row, int64_t col, char *name_out)
{
    snprintf(name_out, TV_SLICE_NAME_BYTES, "%s/%s/%" PRId64 ",%" PRId64, kind, tensor, row, col);
}

static int compare_shards(const void *left, const void *right)
{
    const struct tv_index_shard *a = left, *b = right;
    return strcmp(a->name, b->name);
}

static int compare_tensors(const void *left, const void *right)
{
    const struct tv_index_tensor *a = left, *b = right;
    const int by_kind = strcmp(a->kind, b->kind);
    return by_kind != 0 ? by_kind : strcmp(a->name, b->name);
}

static int compare_slices(const void *left, const void *right)
{
    const struct tv_index_slice *a = left, *b = right;
    if (a->row != b->row)
        return a->row < b->row ? -1 : 1;
    return a->col < b->col ? -1 : a->col > b->col;
}

const struct tv_index_tensor *tv_index_find(const struct tv_index *index, const char *kind,
                                            const char *name)
{
    const struct tv_index_tensor key = {.kind = kind, .name = name};
    return bsearch(&key, index->tensors, (size_t)index->num_tensors, sizeof(key), compare_tensors);
}

static tv_status_t parse_shards(const char *path, struct tv_index *index)
{
    json_t *shards, *entry;
    const char *name;
    TV_TRY(tv_member_object(path, index->json, "shards", &shards));
    index->shards = calloc(json_object_size(shards) + 1, sizeof(*index->shards));
    if (index->shards == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu shards", path, json_object_size(shards));
    json_object_foreach(shards, name, entry)
    {
        if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL ||
            strlen(name) > NAME_MAX)
            return TV_ERR(TV_BAD_FILE, "%s: '%s' is not the name of a file in this folder", path,
                          name);
        struct tv_index_shard *shard = &index->shards[index->num_shards++];
        shard->name = name;
        TV_TRY(tv_member_digest(path, name, entry, &shard->digest));
    }
    qsort(index->shards, (size_t)index->num_shards, sizeof(*index->shards), compare_shards);
    return TV_OK;
}

/* A list of num_dims whole numbers, each at least `low`; what is missing to two is `rest`. */
static tv_status_t parse_pair(const char *path, const struct tv_index_tensor *tensor,
                              const json_t *entry, const char *key, int64_t low, int64_t rest,
                              int64_t pair[2])
{
    const json_t *list = json_object_get(entry, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)tensor->num_dims)
        return TV_ERR(TV_BAD_FILE, "%s: %s %s: \"%s\" is not a list of %d numbers", path,
                      tensor->kind, tensor->name, key, tensor->num_dims);
    pair[1] = rest;
    for (int i = 0; i < tensor->num_dims; i++) {
        const json_t *number = json_array_get(list, (size_t)i);
        pair[i] = json_integer_value(number);
        if (!json_is_integer(number) || pair[i] < low)
            return TV_ERR(TV_BAD_FILE, "%s: %s %s: \"%s\" is not made of numbers from %" PRId64,
                          path, tensor->kind, tensor->name, key, low);
    }
    return TV_OK;
}

static tv_status_t parse_slice(const char *path, const struct tv_index *index,
                               const struct tv_index_tensor *tensor, const json_t *entry,
                               struct tv_index_slice *slice)
{
    int64_t start[2], shape[2];
    struct tv_index_shard key = {0};
    TV_TRY(tv_member_text(path, tensor->name, entry, "shard", &key.name));
    const struct tv_index_shard *shard =
        bsearch(&key, index->shards, (size_t)index->num_shards, sizeof(key), compare_shards);
    if (shard == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s %s: '%s' is not among \"shards\"", path, tensor->kind,
                      tensor->name, key.name);
    TV_TRY(parse_pair(path, tensor, entry, "start", 0, 0, start));
    TV_TRY(parse_pair(path, tensor, entry, "shape", 1, 1, shape));
    for (int i = 0; i < 2; i++) {
        if (start[i] > tensor->shape[i] || shape[i] > tensor->shape[i] - start[i])
            return TV_ERR(TV_BAD_FILE,
                          "%s: %s %s: a slice [%" PRId64 ", +%" PRId64 ") leaves a dim of %" PRId64,
                          path, tensor->kind, tensor->name, start[i], shape[i], tensor->shape[i]);
    }
    *slice = (struct tv_index_slice){(int)(shard - index->shards), start[0], start[1], shape[0],
                                     shape[1]};
    return TV_OK;
}

/* Sorted, inside, apart and as large as the tensor together: so they are all of it, once. */
static tv_status_t check_cover(const char *path, const struct tv_index_tensor *tensor)
{
    int64_t left = tensor->shape[0] * tensor->shape[1];
    for (int i = 0; i < tensor->num_slices; i++) {
        const struct tv_index_slice *a = &tensor->slices[i];
        left -= a->num_rows * a->num_cols;
        for (int k = i + 1; k < tensor->num_slices; k++) {
            const struct tv_index_slice *b = &tensor->slices[k];
            if (b->row >= a->row + a->num_rows)
                break;
            if (b->col < a->col + a->num_cols && a->col < b->col + b->num_cols)
                return TV_ERR(
                    TV_BAD_FILE, "%s: %s %s: element [%" PRId64 ", %" PRId64 "] is in two slices",
                    path, tensor->kind, tensor->name, b->row, b->col > a->col ? b->col : a->col);
        }
    }
    if (left != 0)
        return TV_ERR(TV_BAD_FILE, "%s: %s %s: %" PRId64 " elements are in no slice", path,
                      tensor->kind, tensor->name, left);
    return TV_OK;
}

static tv_status_t parse_tensor(const char *path, const struct tv_index *index, const json_t *entry,
                                struct tv_index_tensor *tensor)
{
    const json_t *shape = json_object_get(entry, "shape"),
                 *slices = json_object_get(entry, "slices");
    int64_t bytes = 0;
    tensor->num_dims = (int)json_array_size(shape);
    if (json_array_size(shape) < 1 || json_array_size(shape) > 2)
        return TV_ERR(TV_BAD_FILE, "%s: %s %s: \"shape\" is not a list of one or two sizes", path,
                      tensor->kind, tensor->name);
    TV_TRY(parse_pair(path, tensor, entry, "shape", 1, 1, tensor->shape));
    TV_TRY(tv_member_text(path, tensor->name, entry, "dtype", &tensor->dtype));
    if (tv_safetensors_dtype_bytes(tensor->dtype) == 0)
        return TV_ERR(TV_BAD_FILE, "%s: %s %s: the dtype '%s' is not known", path, tensor->kind,
                      tensor->name, tensor->dtype);
    if (__builtin_mul_overflow(tensor->shape[0], tensor->shape[1], &bytes) ||
        __builtin_mul_overflow(bytes, (int64_t)8, &bytes))
        return TV_ERR(TV_BAD_FILE, "%s: %s %s: the shape is too large for any file", path,
                      tensor->kind, tensor->name);
    const size_t num = json_array_size(slices); /* 0 when it is no list */
    tensor->slices = calloc(num + 1, sizeof(*tensor->slices));
    if (tensor->slices == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu slices", path, num);
    for (; (size_t)tensor->num_slices < num; tensor->num_slices++)
        TV_TRY(parse_slice(path, index, tensor, json_array_get(slices, (size_t)tensor->num_slices),
                           &tensor->slices[tensor->num_slices]));
    qsort(tensor->slices, num, sizeof(*tensor->slices), compare_slices);
    return check_cover(path, tensor);
}

static tv_status_t parse_tensors(const char *path, struct tv_index *index)
{
    json_t *kinds, *names, *entry;
    const char *kind, *name;
    size_t num = 0;
    TV_TRY(tv_member_object(path, index->json, "tensors", &kinds));
    json_object_foreach(kinds, kind, names) num += json_object_size(names);
    index->tensors = calloc(num + 1, sizeof(*index->tensors));
    if (index->tensors == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu tensors", path, num);
    json_object_foreach(kinds, kind, names)
    {
        json_object_foreach(names, name, entry)
        {
            struct tv_index_tensor *tensor = &index->tensors[index->num_tensors++];
            tensor->kind = kind;
            tensor->name = name;
            if (strlen(kind) >= TV_KIND_BYTES || strlen(name) >= TV_PARAM_MAX_NAME)
                return TV_ERR(TV_BAD_FILE, "%s: %s %s: the name is too long", path, kind, name);
            TV_TRY(parse_tensor(path, index, entry, tensor));
        }
    }
    qsort(index->tensors, num, sizeof(*index->tensors), compare_tensors);
    return TV_OK;
}

/* The XXH3 of the object's compact text with sorted keys, without the member that holds it. */
static tv_status_t own_digest(const char *path, const json_t *json, struct tv_file_digest *digest)
{
    json_t *rest = json_copy((json_t *)(uintptr_t)json); /* shallow; jansson has no const here */
    char *text = NULL;
    if (rest != NULL) {
        json_object_del(rest, "self");
        text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS);
    }
    json_decref(rest);
    if (text == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: its text", path);
    *digest = tv_digest_of(text, strlen(text));
    free(text);
    return TV_OK;
}

static tv_status_t check_own(const char *path, const struct tv_index *index)
{
    struct tv_file_digest says, is;
    TV_TRY(tv_member_digest(path, "self", json_object_get(index->json, "self"), &says));
    TV_TRY(own_digest(path, index->json, &is));
    if (says.bytes != is.bytes || says.hash != is.hash)
        return TV_ERR(TV_BAD_FILE, "%s: it was changed: its hash is another one", path);
    return TV_OK;
}

static tv_status_t parse_all(const char *path, struct tv_index *index)
{
    TV_TRY(parse_shards(path, index));
    TV_TRY(tv_member_digest(path, "state", json_object_get(index->json, "state"), &index->state));
    TV_TRY(tv_member_int(path, "its head", index->json, "vocab_size", 1, INT32_MAX,
                         &index->vocab_size));
    TV_TRY(parse_tensors(path, index));
    return check_own(path, index);
}

tv_status_t tv_index_parse(const char *path, const char *text, size_t bytes,
                           struct tv_index *index_out)
{
    struct tv_index index = {0};
    tv_status_t status = tv_checkpoint_json(path, text, bytes, &index.json);
    if (status == TV_OK)
        status = parse_all(path, &index);
    if (status != TV_OK) {
        tv_index_free(&index);
        return status;
    }
    *index_out = index;
    return TV_OK;
}

void tv_index_free(struct tv_index *index)
{
    for (int i = 0; i < index->num_tensors; i++)
        free(index->tensors[i].slices);
    free(index->tensors);
    free(index->shards);
    json_decref(index->json);
    memset(index, 0, sizeof(*index));
}

/* ---- the text for a run ---- */

/* "[first]" or "[first, second]", as many as the tensor has dims. */
static json_t *pair_json(const struct tv_param *param, int64_t first, int64_t second)
{
    if (param->num_dims == 1)
        return json_pack("[I]", (json_int_t)first);
    return json_pack("[I, I]", (json_int_t)first, (json_int_t)second);
}

/* The member of that key, made when it is not there. Borrowed. */
static json_t *member_of(json_t *object, const char *key, json_t *made)
{
    json_t *member = json_object_get(object, key);
    if (member != NULL) {
        json_decref(made);
        return member;
    }
    json_object_set_new(object, key, made);
    return json_object_get(object, key);
}

static void add_slice(const struct tv_run *run, const struct tv_save_slice *slice,
                      const char *shard, json_t *kinds)
{
    const struct tv_param *param = slice->param;
    json_t *names = member_of(kinds, tv_state_name(slice->kind), json_object());
    json_t *fresh = json_pack("{s:s, s:o, s:[]}", "dtype",
                              tv_safetensors_dtype_name(tv_state_dtype(run, slice->kind)), "shape",
                              pair_json(param, param->shape[0], param->shape[1]), "slices");
    json_t *tensor = member_of(names, param->name, fresh);
    json_array_append_new(json_object_get(tensor, "slices"),
                          json_pack("{s:s, s:o, s:o}", "shard", shard, "start",
                                    pair_json(param, slice->rect.row, slice->rect.col), "shape",
                                    pair_json(param, slice->rect.num_rows, slice->rect.num_cols)));
}

static tv_status_t add_rank(const struct tv_run *run, int rank, const struct tv_file_digest *digest,
                            json_t *shards, json_t *kinds)
{
    char shard[TV_SHARD_NAME_BYTES];
    struct tv_save_plan plan;
    TV_TRY(tv_save_plan_create(run, tv_mesh_coord_of(run->extent, rank), &plan));
    tv_shard_name(rank, shard);
    if (plan.num_slices > 0)
        json_object_set_new(shards, shard, tv_digest_json(digest));
    for (int i = 0; i < plan.num_slices; i++)
        add_slice(run, &plan.slices[i], shard, kinds);
    tv_save_plan_destroy(&plan);
    return TV_OK;
}

tv_status_t tv_index_make(const struct tv_run *run, const struct tv_file_digest *digests,
                          const struct tv_file_digest *state, char **text_out)
{
    const int ranks = run->extent.at[TV_PIPE] * run->extent.at[TV_DATA] * run->extent.at[TV_TENSOR];
    json_t *json = tv_checkpoint_json_new();
    json_t *shards = json_object(), *kinds = json_object();
    struct tv_file_digest own;
    tv_status_t status = TV_OK;
    for (int rank = 0; rank < ranks && status == TV_OK; rank++)
        status = add_rank(run, rank, &digests[rank], shards, kinds);
    json_object_set_new(json, "vocab_size", json_integer(run->model.vocab_size));
    json_object_set_new(json, "state", tv_digest_json(state));
    json_object_set_new(json, "shards", shards);
    json_object_set_new(json, "tensors", kinds);
    if (status == TV_OK)
        status = own_digest(TV_INDEX_NAME, json, &own);
    if (status == TV_OK) {
        json_object_set_new(json, "self", tv_digest_json(&own));
        *text_out = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
        if (*text_out == NULL)
            status = TV_ERR(TV_NO_MEMORY, "%s: its text", TV_INDEX_NAME);
    }
    json_decref(json);
    return status;
}
