/* train/hf_export.c -- writes a Hugging Face folder: config.json and one model.safetensors, in the
 * order of the table, so that every mesh writes the same bytes. */
#include "train/files.h"
#include "train/hf.h"
#include "train/safetensors.h"
#include <jansson.h>
#include <limits.h>
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

static json_t *gpt2_json(const struct tv_model_config *c)
{
    return json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:I, s:f, s:f, s:s, s:f, s:f, s:f, "
                     "s:b, s:s}",
                     "architectures", "GPT2LMHeadModel", "model_type", "gpt2", "n_layer",
                     c->num_layers, "n_embd", c->hidden_size, "n_head", c->num_heads, "n_positions",
                     c->max_positions, "n_inner", c->ffn_size, "vocab_size",
                     (json_int_t)c->vocab_size, "layer_norm_epsilon", c->norm_eps,
                     "initializer_range", c->init_std, "activation_function", "gelu_new",
                     "resid_pdrop", 0.0, "embd_pdrop", 0.0, "attn_pdrop", 0.0,
                     "tie_word_embeddings", c->is_tied, "torch_dtype", "float32");
}

static json_t *llama_json(const struct tv_model_config *c)
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
        "tie_word_embeddings", c->is_tied, "torch_dtype", "float32");
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

tv_status_t tv_hf_config_write(const char *path, const struct tv_model_config *config)
{
    json_t *json = config->family == TV_GPT2 ? gpt2_json(config) : llama_json(config);
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

struct tv_hf_export {
    char folder[PATH_MAX - 32]; /* room for the names in it */
    struct tv_model_config config;
    const struct tv_param_table *table; /* borrowed */
    int next;                           /* row whose numbers come next */
    struct tv_safetensors_writer *writer;
};

static tv_status_t create_writer(struct tv_hf_export *file)
{
    const struct tv_param_table *table = file->table;
    char path[PATH_MAX];
    struct tv_safetensors_entry *entries = calloc((size_t)table->num_params + 1, sizeof(*entries));
    if (entries == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %d tensors", file->folder, table->num_params);
    for (int i = 0; i < table->num_params; i++) {
        const struct tv_param *param = &table->params[i];
        entries[i].name = param->name;
        entries[i].num_dims = param->num_dims;
        entries[i].shape[0] = param->shape[0];
        entries[i].shape[1] = param->shape[1];
    }
    snprintf(path, sizeof(path), "%s/model.safetensors", file->folder);
    const tv_status_t status =
        tv_safetensors_create(path, table->num_params, entries, &file->writer);
    free(entries);
    return status;
}

tv_status_t tv_hf_export_begin(const char *folder, const struct tv_model_config *config,
                               const struct tv_param_table *table, struct tv_hf_export **file_out)
{
    TV_TRY(tv_hf_folder_prepare(folder));
    struct tv_hf_export *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", folder, sizeof(*file));
    file->config = *config;
    file->table = table;
    tv_status_t status = TV_OK;
    if (snprintf(file->folder, sizeof(file->folder), "%s", folder) >= (int)sizeof(file->folder))
        status = TV_ERR(TV_INVALID, "a folder's name of %zu bytes is too long", strlen(folder));
    else
        status = create_writer(file);
    if (status == TV_OK)
        *file_out = file;
    else
        tv_hf_export_abandon(&file);
    return status;
}

tv_status_t tv_hf_export_tensor(struct tv_hf_export *file, const float *global)
{
    if (file->next >= file->table->num_params)
        return TV_ERR(TV_INTERNAL, "%s: all %d tensors are written", file->folder, file->next);
    const struct tv_param *param = &file->table->params[file->next++];
    return tv_safetensors_write(file->writer, global, tv_param_count(param));
}

/* The configuration goes first: without weights it misleads nobody. */
static tv_status_t finish(struct tv_hf_export *file)
{
    char path[PATH_MAX];
    if (file->next != file->table->num_params)
        return TV_ERR(TV_INTERNAL, "%s: %d of %d tensors were written", file->folder, file->next,
                      file->table->num_params);
    snprintf(path, sizeof(path), "%s/config.json", file->folder);
    TV_TRY(tv_hf_config_write(path, &file->config));
    return tv_safetensors_finish(&file->writer);
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
    free(*file);
    *file = NULL;
}
