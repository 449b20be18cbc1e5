/* train/inspect.c -- finds the kind of a path, and asks it. */
#include "train/inspect_internal.h"
#include "train/saved_model.h"
#include "train/tokens.h"
#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int has_file(const char *folder, const char *name)
{
    char path[PATH_MAX];
    return is_folder(folder) &&
           snprintf(path, sizeof(path), "%s/%s", folder, name) < (int)sizeof(path) &&
           access(path, F_OK) == 0;
}

static int has_end(const char *path, const char *end)
{
    const size_t length = strlen(path), end_length = strlen(end);
    return length >= end_length && strcmp(path + length - end_length, end) == 0;
}

void tv_inspect_describe_config(const struct tv_model_config *c, json_t *report)
{
    json_t *config = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:i, s:b}", "family", tv_model_family_name(c->family),
        "layers", c->num_layers, "hidden_size", c->hidden_size, "heads", c->num_heads, "kv_heads",
        c->num_kv_heads, "ffn_size", c->ffn_size, "vocab_size", (json_int_t)c->vocab_size,
        "context", c->max_positions, "tied", c->is_tied);
    json_object_update_missing_new(report, config);
}

static tv_status_t inspect_config(const struct tv_inspect_options *options, json_t *report)
{
    struct tv_model_config config;
    TV_TRY(tv_hf_config_read(options->path, &config));
    tv_inspect_describe_config(&config, report);
    return TV_OK;
}

/* Every weight of the configuration is there, once, with its shape. */
static tv_status_t inspect_model(const struct tv_inspect_options *options, json_t *report)
{
    struct tv_saved_model model;
    TV_TRY(tv_saved_model_open(options->path, NULL, &model));
    tv_inspect_describe_config(&model.config, report);
    json_object_set_new(report, "parameters", json_integer(tv_model_num_params(&model.config)));
    tv_saved_model_close(&model);
    return tv_inspect_safetensors(options, report);
}

/* Largest of all ids; -1 of an empty file. */
static tv_status_t largest_id(const struct tv_tokens *tokens, int64_t *largest_out)
{
    enum { BLOCK = 1 << 16 };
    const int64_t count = tv_tokens_count(tokens);
    int64_t largest = -1;
    int32_t *ids = malloc(BLOCK * sizeof(*ids));
    tv_status_t status = ids == NULL ? TV_ERR(TV_NO_MEMORY, "%d ids", BLOCK) : TV_OK;
    for (int64_t first = 0; first < count && status == TV_OK; first += BLOCK) {
        const int64_t num = count - first < BLOCK ? count - first : BLOCK;
        status = tv_tokens_read(tokens, first, num, ids);
        for (int64_t i = 0; i < num && status == TV_OK; i++)
            largest = (int64_t)(uint32_t)ids[i] > largest ? (int64_t)(uint32_t)ids[i] : largest;
    }
    free(ids);
    *largest_out = largest;
    return status;
}

static tv_status_t describe_tokens(const struct tv_inspect_options *options,
                                   const struct tv_tokens *tokens, json_t *report)
{
    int64_t largest;
    json_object_set_new(report, "tokens", json_integer(tv_tokens_count(tokens)));
    if (tv_tokens_num_documents(tokens) > 0)
        json_object_set_new(report, "documents", json_integer(tv_tokens_num_documents(tokens)));
    if (options->vocab_size > 0)
        TV_TRY(tv_tokens_check(tokens, options->vocab_size));
    if (options->is_quick)
        return TV_OK;
    TV_TRY(largest_id(tokens, &largest));
    json_object_set_new(report, "largest_id", json_integer(largest));
    return TV_OK;
}

static tv_status_t inspect_tokens(const struct tv_inspect_options *options, json_t *report)
{
    tv_tokens_format_t format;
    struct tv_tokens *tokens = NULL;
    TV_TRY(tv_tokens_format_of(options->path, options->data_format, &format));
    TV_TRY(tv_tokens_open(options->path, format, &tokens));
    json_object_set_new(report, "format", json_string(tv_tokens_format_name(format)));
    const tv_status_t status = describe_tokens(options, tokens, report);
    tv_tokens_close(tokens);
    return status;
}

static int is_checkpoint(const char *path)
{
    return tv_saved_checkpoint.fits(path);
}

static int is_model(const char *path)
{
    return has_file(path, "config.json");
}

static int is_weights(const char *path)
{
    return is_folder(path) || has_end(path, ".safetensors") || has_end(path, ".index.json");
}

static int is_config(const char *path)
{
    return has_end(path, ".json");
}

static int is_any(const char *path)
{
    (void)path;
    return 1;
}

/* The first that fits. */
static const struct {
    const char *name;
    int (*fits)(const char *path);
    tv_status_t (*inspect)(const struct tv_inspect_options *options, json_t *report);
} kinds[] = {
    {"checkpoint", is_checkpoint, tv_inspect_checkpoint},
    {"Hugging Face model", is_model, inspect_model},
    {"safetensors", is_weights, tv_inspect_safetensors},
    {"Hugging Face configuration", is_config, inspect_config},
    {"token file", is_any, inspect_tokens},
};
enum { NUM_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

tv_status_t tv_inspect(const struct tv_inspect_options *options, struct json_t **report_out)
{
    size_t i = 0;
    while (i + 1 < NUM_KINDS && !kinds[i].fits(options->path))
        i++;
    json_t *report = json_pack("{s:s, s:s}", "kind", kinds[i].name, "path", options->path);
    if (report == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: a report, or the path is not UTF-8", options->path);
    const tv_status_t status = kinds[i].inspect(options, report);
    if (status == TV_OK)
        *report_out = report;
    else
        json_decref(report);
    return status;
}

/* "[50257, 768]" */
static void print_shape(const json_t *shape, char *text, size_t bytes)
{
    size_t used = (size_t)snprintf(text, bytes, "[");
    for (size_t i = 0; i < json_array_size(shape) && used < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%" JSON_INTEGER_FORMAT,
                                 i > 0 ? ", " : "", json_integer_value(json_array_get(shape, i)));
    if (used < bytes)
        snprintf(text + used, bytes - used, "]");
}

/* "exp_avg model.norm.weight", without the state where there is none. */
static int tensor_name(const json_t *tensor, char *text, size_t bytes)
{
    const char *state = json_string_value(json_object_get(tensor, "state"));
    const char *name = json_string_value(json_object_get(tensor, "name"));
    const int length = state == NULL ? snprintf(text, bytes, "%s", name)
                                     : snprintf(text, bytes, "%s %s", state, name);
    for (char *c = text; bytes > 0 && *c != '\0'; c++) {
        if (iscntrl((unsigned char)*c)) /* names are the file's: a terminal must not obey them */
            *c = '?';
    }
    return length;
}

static void print_tensor(const json_t *tensor, int width, FILE *out)
{
    char shape[192], name[256];
    const json_t *rms = json_object_get(tensor, "rms");
    const json_int_t nonfinite = json_integer_value(json_object_get(tensor, "nonfinite"));
    print_shape(json_object_get(tensor, "shape"), shape, sizeof(shape));
    tensor_name(tensor, name, sizeof(name));
    fprintf(out, "  %-*s  %-7s  %-16s", width, name,
            json_string_value(json_object_get(tensor, "dtype")), shape);
    if (rms != NULL)
        fprintf(out, "  %-10.4g  %.4g", json_real_value(rms),
                json_real_value(json_object_get(tensor, "largest")));
    if (nonfinite > 0)
        fprintf(out, "  %" JSON_INTEGER_FORMAT " NOT FINITE", nonfinite);
    fputc('\n', out);
}

static void print_tensors(const json_t *tensors, FILE *out)
{
    int width = 4;
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const int length = tensor_name(json_array_get(tensors, i), NULL, 0);
        width = length > width ? length : width;
    }
    width = width < 60 ? width : 60;
    fprintf(out, "\n  %-*s  %-7s  %-16s  %-10s  %s\n", width, "tensor", "dtype", "shape", "rms",
            "largest");
    for (size_t i = 0; i < json_array_size(tensors); i++)
        print_tensor(json_array_get(tensors, i), width, out);
}

static void print_shards(const json_t *shards, FILE *out)
{
    for (size_t i = 0; i < json_array_size(shards); i++) {
        const json_t *shard = json_array_get(shards, i);
        fprintf(out, "  %s  %" JSON_INTEGER_FORMAT " bytes  xxh3 %s\n",
                json_string_value(json_object_get(shard, "file")),
                json_integer_value(json_object_get(shard, "bytes")),
                json_string_value(json_object_get(shard, "xxh3")));
    }
}

void tv_inspect_print(const struct json_t *report, FILE *out)
{
    const char *key;
    json_t *value;
    fprintf(out, "%s: %s\n", json_string_value(json_object_get(report, "path")),
            json_string_value(json_object_get(report, "kind")));
    json_object_foreach((json_t *)(uintptr_t)report, key, value)
    {
        if (strcmp(key, "path") == 0 || strcmp(key, "kind") == 0 || json_is_array(value))
            continue;
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        fprintf(out, "  %-14s %s\n", key,
                json_is_string(value) ? json_string_value(value)
                : text != NULL        ? text
                                      : "");
        free(text);
    }
    print_shards(json_object_get(report, "shards"), out);
    const json_t *tensors = json_object_get(report, "tensors");
    if (tensors != NULL)
        print_tensors(tensors, out);
}
