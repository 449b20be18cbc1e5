/* train/inspect_checkpoint.c -- a checkpoint: held against its hashes when it is opened, then its logical tensors. */
#include "train/checkpoint_internal.h"
#include "train/inspect_internal.h"
#include "train/saved_model.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static int64_t columns(const struct tv_index_tensor *tensor)
{
    return tensor->num_dims == 2 ? tensor->shape[1] : 1;
}

static tv_status_t read_numbers(struct tv_checkpoint *c, const struct tv_index_tensor *tensor,
                                float *block, struct tv_inspect_numbers *numbers)
{
    const int64_t rows = tensor->shape[0], cols = columns(tensor);
    const int64_t step = cols < TV_INSPECT_BLOCK ? TV_INSPECT_BLOCK / cols : 1;
    for (int64_t first = 0; first < rows; first += step) {
        const int64_t num = rows - first < step ? rows - first : step;
        TV_TRY(tv_checkpoint_read_rows(c, tensor, first, num, block));
        tv_inspect_count(block, num * cols, numbers);
    }
    tv_checkpoint_forget(c, tensor);
    return TV_OK;
}

static json_t *describe(const struct tv_index_tensor *tensor, int64_t bytes)
{
    json_t *shape = json_pack("[I]", (json_int_t)tensor->shape[0]);
    if (tensor->num_dims == 2)
        json_array_append_new(shape, json_integer(tensor->shape[1]));
    return json_pack("{s:s, s:s, s:s, s:o, s:I, s:i}", "name", tensor->name, "state", tensor->kind,
                     "dtype", tensor->dtype, "shape", shape, "bytes", (json_int_t)bytes, "slices",
                     tensor->num_slices);
}

static tv_status_t add_tensors(const struct tv_inspect_options *options, struct tv_checkpoint *c,
                               float *block, json_t *tensors, json_t *report)
{
    int64_t nonfinite = 0, total = 0;
    for (int i = 0; i < c->index.num_tensors; i++) {
        const struct tv_index_tensor *tensor = &c->index.tensors[i];
        const int64_t bytes =
            tensor->shape[0] * columns(tensor) * tv_safetensors_dtype_bytes(tensor->dtype);
        struct tv_inspect_numbers numbers = {0};
        json_t *entry = describe(tensor, bytes);
        if (entry == NULL || json_array_append_new(tensors, entry) != 0)
            return TV_ERR(TV_NO_MEMORY, "%s: its description", tensor->name);
        total += bytes;
        if (options->is_quick)
            continue;
        TV_TRY(read_numbers(c, tensor, block, &numbers));
        tv_inspect_describe_numbers(&numbers, entry);
        nonfinite += numbers.nonfinite;
    }
    json_object_set_new(report, "tensor_bytes", json_integer(total));
    if (!options->is_quick)
        json_object_set_new(report, "nonfinite", json_integer(nonfinite));
    return TV_OK;
}

static json_t *describe_shards(const struct tv_checkpoint *c)
{
    json_t *shards = json_array();
    for (int i = 0; i < c->index.num_shards; i++) {
        char hash[24];
        const struct tv_index_shard *shard = &c->index.shards[i];
        snprintf(hash, sizeof(hash), "%016" PRIx64, shard->digest.hash);
        json_array_append_new(shards, json_pack("{s:s, s:I, s:s}", "file", shard->name, "bytes",
                                                (json_int_t)shard->digest.bytes, "xxh3", hash));
    }
    return shards;
}

static tv_status_t describe_checkpoint(const struct tv_inspect_options *options,
                                       struct tv_checkpoint *c, json_t *report)
{
    int64_t widest = TV_INSPECT_BLOCK;
    json_object_set_new(report, "checkpoint", json_string(c->path));
    json_object_set_new(report, "step", json_integer(c->state.step));
    json_object_set_new(report, "samples", json_integer(c->state.consumed));
    json_object_set_new(report, "optimizer", json_string(c->state.optimizer));
    tv_inspect_describe_config(&c->state.model, report);
    json_object_set_new(report, "hashes", json_string("verified"));
    json_object_set_new(report, "shards", describe_shards(c));
    for (int i = 0; i < c->index.num_tensors; i++) {
        const int64_t cols = columns(&c->index.tensors[i]);
        widest = cols > widest ? cols : widest;
    }
    json_t *tensors = json_array();
    float *block = malloc((size_t)widest * sizeof(*block));
    tv_status_t status = tensors == NULL || block == NULL
                             ? TV_ERR(TV_NO_MEMORY, "%" PRId64 " numbers", widest)
                             : add_tensors(options, c, block, tensors, report);
    free(block);
    json_object_set_new(report, "tensors", tensors);
    return status;
}

/* As a model, so that weights which are missing or of another shape show. */
tv_status_t tv_inspect_checkpoint(const struct tv_inspect_options *options, struct json_t *report)
{
    struct tv_saved_model model;
    TV_TRY(tv_saved_model_open(options->path, NULL, &model));
    const tv_status_t status = describe_checkpoint(options, model.state, report);
    tv_saved_model_close(&model);
    return status;
}
