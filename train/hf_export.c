/* train/hf_export.c -- writes a Hugging Face folder: config.json and the weights in the order of the
 * table, so that every mesh writes the same bytes.
 *
 * Shards as transformers cuts them: a tensor goes into the file at hand unless that has some and
 * would become too large. */
#include "base/dtype.h"
#include "train/files.h"
#include "train/hf.h"
#include "train/narrow.h"
#include "train/safetensors.h"
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The fewest digits with which all the real numbers of a config read back exactly, so that 1e-5
 * does not become 1.0000000000000001e-5. */
static size_t digits_for(const struct tv_model_config *config)
{
    const double reals[] = {config->norm_eps, config->rope_theta, config->init_std};
    size_t digits = 1;
    for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
        char text[64];
        snprintf(text, sizeof(text), "%.*g", (int)digits, reals[i]);
        while (digits < 17 && strtod(text, NULL) != reals[i])
            snprintf(text, sizeof(text), "%.*g", (int)++digits, reals[i]);
    }
    return digits;
}

static const struct {
    const char *word, *safetensors, *torch;
    int64_t bytes;
    uint16_t (*narrow)(float value); /* NULL: as it is; every target is little-endian */
    float (*widen)(uint16_t bits);
} dtypes[TV_HF_NUM_DTYPES] = {
    [TV_HF_FP32] = {"fp32", "F32", "float32", 4, NULL, NULL},
    [TV_HF_BF16] = {"bf16", "BF16", "bfloat16", 2, tv_bf16_from_f32, tv_bf16_to_f32},
    [TV_HF_FP16] = {"fp16", "F16", "float16", 2, tv_f16_of_f32, tv_f32_of_f16}};

tv_status_t tv_hf_dtype_parse(const char *word, tv_hf_dtype_t *dtype_out)
{
    for (int i = 0; i < TV_HF_NUM_DTYPES; i++) {
        if (strcmp(word, dtypes[i].word) == 0) {
            *dtype_out = (tv_hf_dtype_t)i;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "%s is not one of fp32, bf16, fp16", word);
}

tv_hf_dtype_t tv_hf_dtype_of(const char *safetensors_name)
{
    for (int i = 0; safetensors_name != NULL && i < TV_HF_NUM_DTYPES; i++) {
        if (strcmp(safetensors_name, dtypes[i].safetensors) == 0)
            return (tv_hf_dtype_t)i;
    }
    return TV_HF_FP32;
}

const char *tv_hf_dtype_name(tv_hf_dtype_t dtype)
{
    return dtypes[dtype].word;
}

static json_t *gpt2_json(const struct tv_model_config *c, const char *dtype)
{
    enum { DEFAULT_END = 50256 };
    json_t *json =
        json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:f, s:f, s:s, s:f, s:f, s:f, "
                  "s:b, s:s}",
                  "architectures", "GPT2LMHeadModel", "model_type", "gpt2", "n_layer",
                  c->num_layers, "n_embd", c->hidden_size, "n_head", c->num_heads, "n_positions",
                  c->max_positions, "n_inner", c->ffn_size, "vocab_size", (json_int_t)c->vocab_size,
                  "layer_norm_epsilon", c->norm_eps, "initializer_range", c->init_std,
                  "activation_function", "gelu_new", "resid_pdrop", 0.0, "embd_pdrop", 0.0,
                  "attn_pdrop", 0.0, "tie_word_embeddings", c->is_tied, "torch_dtype", dtype);
    if (json != NULL && c->vocab_size <= DEFAULT_END) { /* what transformers takes is no id then */
        json_object_set_new(json, "bos_token_id", json_null());
        json_object_set_new(json, "eos_token_id", json_null());
    }
    return json;
}

static json_t *llama_json(const struct tv_model_config *c, const char *dtype)
{
    return json_pack(
        "{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:f, s:f, s:n, s:f, s:s, s:b, s:b, s:b, "
        "s:s}",
        "architectures", "LlamaForCausalLM", "model_type", "llama", "num_hidden_layers",
        c->num_layers, "hidden_size", c->hidden_size, "num_attention_heads", c->num_heads,
        "num_key_value_heads", c->num_kv_heads, "intermediate_size", c->ffn_size,
        "max_position_embeddings", c->max_positions, "vocab_size", (json_int_t)c->vocab_size,
        "rms_norm_eps", c->norm_eps, "rope_theta", c->rope_theta, "rope_scaling",
        "initializer_range", c->init_std, "hidden_act", "silu", "attention_bias", 0, "mlp_bias", 0,
        "tie_word_embeddings", c->is_tied, "torch_dtype", dtype);
}

static tv_status_t write_text(const char *path, const char *text)
{
    struct tv_new_file file;
    TV_TRY(tv_new_file_open(path, &file));
    tv_status_t status = tv_new_file_write(&file, text, strlen(text));
    if (status == TV_OK)
        status = tv_new_file_write(&file, "\n", 1);
    if (status == TV_OK)
        return tv_new_file_finish(&file);
    tv_new_file_abandon(&file);
    return status;
}

tv_status_t tv_hf_config_write(const char *path, const struct tv_model_config *config,
                               tv_hf_dtype_t dtype)
{
    const char *torch = dtypes[dtype].torch;
    json_t *json = config->family == TV_GPT2 ? gpt2_json(config, torch) : llama_json(config, torch);
    char *text = json == NULL
                     ? NULL
                     : json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(digits_for(config)));
    const tv_status_t status =
        text == NULL ? TV_ERR(TV_NO_MEMORY, "%s: its text", path) : write_text(path, text);
    free(text);
    json_decref(json);
    return status;
}

tv_status_t tv_hf_folder_prepare(const char *folder)
{
    TV_TRY(tv_folder_make(folder));
    if (access(folder, W_OK | X_OK) != 0)
        return TV_ERR(TV_INVALID, "%s: no files can be made in this folder", folder);
    return TV_OK;
}

enum { BLOCK = 1 << 14 }; /* numbers that are narrowed at once */

/* Rows [first, first + num) of the table, in one file. */
struct shard {
    int first, num;
};

struct tv_hf_export {
    char folder[PATH_MAX - 64]; /* room for the names in it */
    struct tv_model_config config;
    const struct tv_param_table *table; /* borrowed */
    struct tv_hf_export_form form;
    int num_shards, shard; /* the one that is written */
    struct shard *shards;  /* [num_shards] */
    int next;              /* row whose numbers come next */
    int64_t left;          /* of its numbers; those of rows behind it do not count */
    struct tv_safetensors_writer *writer;
    uint16_t block[BLOCK];
};

static int64_t bytes_of(const struct tv_hf_export *file, int row)
{
    return tv_param_count(&file->table->params[row]) * dtypes[file->form.dtype].bytes;
}

static tv_status_t cut_shards(struct tv_hf_export *file)
{
    const int num_params = file->table->num_params;
    const int64_t limit = file->form.max_shard_bytes;
    int64_t bytes = 0;
    file->shards = calloc((size_t)num_params + 1, sizeof(*file->shards));
    if (file->shards == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %d tensors", file->folder, num_params);
    file->num_shards = 1;
    for (int i = 0; i < num_params; i++) {
        struct shard *shard = &file->shards[file->num_shards - 1];
        if (limit > 0 && shard->num > 0 && bytes + bytes_of(file, i) > limit) {
            *++shard = (struct shard){.first = i};
            file->num_shards++;
            bytes = 0;
        }
        bytes += bytes_of(file, i);
        shard->num++;
    }
    return TV_OK;
}

/* "model.safetensors", "model-00001-of-00003.safetensors" */
static void shard_name(const struct tv_hf_export *file, int shard, char *name, size_t bytes)
{
    if (file->num_shards == 1)
        snprintf(name, bytes, "model.safetensors");
    else
        snprintf(name, bytes, "model-%05d-of-%05d.safetensors", shard + 1, file->num_shards);
}

/* What readers would take in place of new shards, or with them. */
static tv_status_t check_folder(const struct tv_hf_export *file)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    char path[PATH_MAX];
    for (size_t i = 0; file->num_shards > 1 && i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", file->folder, names[i]);
        if (access(path, F_OK) == 0)
            return TV_ERR(TV_INVALID,
                          "%s holds %s, which readers would mix up with %d new shards: remove it, "
                          "or take another folder",
                          file->folder, names[i], file->num_shards);
    }
    return TV_OK;
}

static tv_status_t create_writer(struct tv_hf_export *file)
{
    const struct shard *shard = &file->shards[file->shard];
    char path[PATH_MAX], name[64];
    struct tv_safetensors_entry *entries = calloc((size_t)shard->num + 1, sizeof(*entries));
    if (entries == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %d tensors", file->folder, shard->num);
    for (int i = 0; i < shard->num; i++) {
        const struct tv_param *param = &file->table->params[shard->first + i];
        entries[i] = (struct tv_safetensors_entry){.name = param->name,
                                                   .dtype = dtypes[file->form.dtype].safetensors,
                                                   .num_dims = param->num_dims,
                                                   .shape = {param->shape[0], param->shape[1]}};
    }
    shard_name(file, file->shard, name, sizeof(name));
    snprintf(path, sizeof(path), "%s/%s", file->folder, name);
    const tv_status_t status = tv_safetensors_create(path, shard->num, entries, &file->writer);
    free(entries);
    return status;
}

static tv_status_t begin(struct tv_hf_export *file, const char *folder)
{
    if (snprintf(file->folder, sizeof(file->folder), "%s", folder) >= (int)sizeof(file->folder))
        return TV_ERR(TV_INVALID, "a folder's name of %zu bytes is too long", strlen(folder));
    TV_TRY(cut_shards(file));
    TV_TRY(check_folder(file));
    return create_writer(file);
}

tv_status_t tv_hf_export_begin(const char *folder, const struct tv_model_config *config,
                               const struct tv_param_table *table, struct tv_hf_export_form form,
                               struct tv_hf_export **file_out)
{
    TV_TRY(tv_hf_folder_prepare(folder));
    struct tv_hf_export *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", folder, sizeof(*file));
    file->config = *config;
    file->table = table;
    file->form = form;
    const tv_status_t status = begin(file, folder);
    if (status == TV_OK)
        *file_out = file;
    else
        tv_hf_export_abandon(&file);
    return status;
}

/* The shard of row `next` is the one that is written. */
static tv_status_t enter_row(struct tv_hf_export *file)
{
    const struct shard *shard = &file->shards[file->shard];
    if (file->next >= file->table->num_params)
        return TV_ERR(TV_INTERNAL, "%s: all %d tensors are written", file->folder, file->next);
    if (file->next == shard->first + shard->num) {
        TV_TRY(tv_safetensors_finish(&file->writer));
        file->shard++;
        TV_TRY(create_writer(file));
    }
    file->left = tv_param_count(&file->table->params[file->next]);
    return TV_OK;
}

static tv_status_t write_narrow(struct tv_hf_export *file, const float *numbers, int64_t count)
{
    for (int64_t i = 0, used = 0; i < count; i++) {
        const uint16_t bits = dtypes[file->form.dtype].narrow(numbers[i]);
        if (isinf(dtypes[file->form.dtype].widen(bits)) && isfinite(numbers[i]))
            return TV_ERR(TV_INVALID, "%s: %s has %.9g, which is beyond the largest %s number",
                          file->folder, file->table->params[file->next].name, (double)numbers[i],
                          dtypes[file->form.dtype].word);
        file->block[used++] = bits;
        if (used < BLOCK && i + 1 < count)
            continue;
        TV_TRY(tv_safetensors_write_bytes(file->writer, file->block,
                                          used * (int64_t)sizeof(uint16_t)));
        used = 0;
    }
    return TV_OK;
}

tv_status_t tv_hf_export_numbers(struct tv_hf_export *file, const float *numbers, int64_t count)
{
    if (file->left == 0)
        TV_TRY(enter_row(file));
    if (count > file->left)
        return TV_ERR(TV_INTERNAL, "%s: %lld numbers where %lld are left",
                      file->table->params[file->next].name, (long long)count,
                      (long long)file->left);
    if (dtypes[file->form.dtype].narrow == NULL)
        TV_TRY(tv_safetensors_write(file->writer, numbers, count));
    else
        TV_TRY(write_narrow(file, numbers, count));
    file->left -= count;
    file->next += file->left == 0;
    return TV_OK;
}

static json_t *index_json(const struct tv_hf_export *file)
{
    json_t *map = json_object();
    int64_t bytes = 0;
    char name[64];
    for (int s = 0; s < file->num_shards; s++) {
        const struct shard *shard = &file->shards[s];
        shard_name(file, s, name, sizeof(name));
        for (int i = shard->first; i < shard->first + shard->num; i++) {
            json_object_set_new(map, file->table->params[i].name, json_string(name));
            bytes += bytes_of(file, i);
        }
    }
    return json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)bytes, "weight_map",
                     map);
}

static tv_status_t write_index(const struct tv_hf_export *file)
{
    char path[PATH_MAX];
    json_t *json = index_json(file);
    char *text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS);
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", file->folder);
    const tv_status_t status =
        text == NULL ? TV_ERR(TV_NO_MEMORY, "%s: its text", path) : write_text(path, text);
    free(text);
    json_decref(json);
    return status;
}

/* The configuration goes first: without weights it misleads nobody. */
static tv_status_t finish(struct tv_hf_export *file)
{
    char path[PATH_MAX];
    if (file->next != file->table->num_params || file->left != 0)
        return TV_ERR(TV_INTERNAL, "%s: %d of %d tensors were written", file->folder, file->next,
                      file->table->num_params);
    snprintf(path, sizeof(path), "%s/config.json", file->folder);
    TV_TRY(tv_hf_config_write(path, &file->config, file->form.dtype));
    TV_TRY(tv_safetensors_finish(&file->writer));
    return file->num_shards > 1 ? write_index(file) : TV_OK;
}

tv_status_t tv_hf_export_finish(struct tv_hf_export **file)
{
    const tv_status_t status = finish(*file);
    tv_hf_export_abandon(file);
    return status;
}

void tv_hf_export_abandon(struct tv_hf_export **file)
{
    if (*file == NULL)
        return;
    tv_safetensors_abandon(&(*file)->writer);
    free((*file)->shards);
    free(*file);
    *file = NULL;
}
