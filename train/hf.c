/* train/hf.c -- finds every weight of a table in a Hugging Face file or folder, and nothing else in
 * it. */
#include "train/hf.h"
#include "train/hf_files.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SLICES = 8 };

/* Where a weight is. */
struct weight {
    const struct tv_safetensors *file;
    const struct tv_safetensor *tensor; /* NULL: not found yet */
};

struct tv_hf {
    struct tv_param_table table;  /* its params are borrowed */
    int is_tied, may_lack_prefix; /* GPT-2 files come with and without `transformer.` */
    struct tv_hf_files *files;
    struct weight *weights; /* [num_params] */
    struct weight head;     /* a lm_head.weight beside a tied embedding */
};

static const char prefix[] = "transformer.";
static const char head_name[] = "lm_head.weight";

static int has_end(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* The name without the prefix that only some files have. */
static const char *bare_name(const struct tv_hf *hf, const char *name)
{
    const size_t length = sizeof(prefix) - 1;
    return hf->may_lack_prefix && strncmp(name, prefix, length) == 0 ? name + length : name;
}

static int find_param(const struct tv_hf *hf, const char *name)
{
    const char *bare = bare_name(hf, name);
    for (int i = 0; i < hf->table.num_params; i++) {
        if (strcmp(bare_name(hf, hf->table.params[i].name), bare) == 0)
            return i;
    }
    return -1;
}

/* Constants that some versions of transformers stored beside the weights. */
static int is_buffer(const struct tv_hf *hf, const char *name)
{
    if (hf->may_lack_prefix)
        return has_end(name, ".attn.bias") || has_end(name, ".attn.masked_bias");
    return has_end(name, ".rotary_emb.inv_freq");
}

/* "[50257, 768]" */
static const char *shape_text(const int64_t *shape, int num_dims, char *text, size_t bytes)
{
    size_t used = (size_t)snprintf(text, bytes, "[");
    for (int i = 0; i < num_dims && used < bytes; i++)
        used +=
            (size_t)snprintf(text + used, bytes - used, "%s%" PRId64, i > 0 ? ", " : "", shape[i]);
    if (used < bytes)
        snprintf(text + used, bytes - used, "]");
    return text;
}

static tv_status_t check_weight(const struct weight *found, const struct tv_param *param)
{
    const char *path = tv_safetensors_path(found->file);
    const struct tv_safetensor *tensor = found->tensor;
    char has[96], wants[96];
    int is_same = tensor->num_dims == param->num_dims;
    for (int i = 0; is_same && i < param->num_dims; i++)
        is_same = tensor->shape[i] == param->shape[i];
    if (!is_same)
        return TV_ERR(TV_BAD_FILE, "%s: %s is %s, the model needs %s", path, tensor->name,
                      shape_text(tensor->shape, tensor->num_dims, has, sizeof(has)),
                      shape_text(param->shape, param->num_dims, wants, sizeof(wants)));
    if (strcmp(tensor->dtype, "F32") != 0 && strcmp(tensor->dtype, "BF16") != 0 &&
        strcmp(tensor->dtype, "F16") != 0)
        return TV_ERR(TV_BAD_FILE, "%s: %s is %s; F32, BF16 and F16 are read", path, tensor->name,
                      tensor->dtype);
    return TV_OK;
}

static tv_status_t place_tensor(struct tv_hf *hf, const struct weight *found)
{
    const char *path = tv_safetensors_path(found->file), *name = found->tensor->name;
    const int i = find_param(hf, name);
    struct weight *place = NULL;
    if (i >= 0)
        place = &hf->weights[i];
    else if (hf->is_tied && strcmp(name, head_name) == 0)
        place = &hf->head;
    else if (is_buffer(hf, name))
        return TV_OK;
    else
        return TV_ERR(TV_BAD_FILE, "%s: %s does not belong to this model (%d units in a chain)",
                      path, name, hf->table.num_units);
    if (place->tensor != NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s is there twice: also as %s of %s", path, name,
                      place->tensor->name, tv_safetensors_path(place->file));
    if (i >= 0)
        TV_TRY(check_weight(found, &hf->table.params[i]));
    *place = *found;
    return TV_OK;
}

static const struct weight *tied_weight(const struct tv_hf *hf, const struct tv_param **param_out)
{
    for (int i = 0; i < hf->table.num_params; i++) {
        if (hf->table.params[i].tied_unit >= 0) {
            *param_out = &hf->table.params[i];
            return &hf->weights[i];
        }
    }
    return NULL;
}

/* Two matrices of the same shape, row by row; NaNs are equal to themselves here. */
static tv_status_t compare(const struct weight *a, const struct weight *b, int64_t rows,
                           int64_t cols)
{
    tv_status_t status = TV_OK;
    float *row_a = malloc((size_t)cols * sizeof(float));
    float *row_b = malloc((size_t)cols * sizeof(float));
    if (row_a == NULL || row_b == NULL)
        status = TV_ERR(TV_NO_MEMORY, "two rows of %" PRId64 " numbers", cols);
    for (int64_t r = 0; status == TV_OK && r < rows; r++) {
        const struct tv_safetensors_rect row = {r, 1, 0, cols};
        status = tv_safetensors_read(a->file, a->tensor, &row, row_a, cols);
        if (status == TV_OK)
            status = tv_safetensors_read(b->file, b->tensor, &row, row_b, cols);
        if (status == TV_OK && memcmp(row_a, row_b, (size_t)cols * sizeof(float)) != 0)
            status = TV_ERR(TV_BAD_FILE,
                            "%s: the model ties its embeddings and output weights, but %s and %s "
                            "differ in row %" PRId64,
                            tv_safetensors_path(a->file), a->tensor->name, b->tensor->name, r);
    }
    free(row_a);
    free(row_b);
    return status;
}

static tv_status_t check_complete(const struct tv_hf *hf, const char *path)
{
    const struct tv_param *param = NULL;
    for (int i = 0; i < hf->table.num_params; i++) {
        const char *name = hf->table.params[i].name;
        if (hf->weights[i].tensor == NULL)
            return TV_ERR(TV_BAD_FILE, "%s: %s is missing%s", path, name,
                          strcmp(name, head_name) == 0
                              ? "; a model with one matrix for both says tie_word_embeddings"
                              : "");
    }
    const struct weight *embedding = tied_weight(hf, &param);
    if (hf->head.tensor == NULL || embedding == NULL)
        return TV_OK;
    TV_TRY(check_weight(&hf->head, param));
    return compare(embedding, &hf->head, param->shape[0], param->shape[1]);
}

static tv_status_t place_files(struct tv_hf *hf)
{
    for (int f = 0; f < tv_hf_files_count(hf->files); f++) {
        const struct tv_safetensors *file = tv_hf_files_at(hf->files, f);
        for (int i = 0; i < tv_safetensors_count(file); i++)
            TV_TRY(place_tensor(hf, &(struct weight){file, tv_safetensors_at(file, i)}));
    }
    return check_complete(hf, tv_hf_files_path(hf->files));
}

tv_status_t tv_hf_place(struct tv_hf_files *files, const struct tv_model_config *config,
                        const struct tv_param_table *table, struct tv_hf **hf_out)
{
    tv_status_t status = TV_OK;
    struct tv_hf *hf = calloc(1, sizeof(*hf));
    if (hf == NULL) {
        tv_hf_files_close(files);
        return TV_ERR(TV_NO_MEMORY, "%zu bytes", sizeof(*hf));
    }
    hf->files = files;
    hf->table = *table;
    hf->is_tied = config->is_tied;
    hf->may_lack_prefix = config->family == TV_GPT2;
    hf->weights = calloc((size_t)table->num_params + 1, sizeof(*hf->weights));
    if (hf->weights == NULL) {
        status = TV_ERR(TV_NO_MEMORY, "%s: %d tensors", tv_hf_files_path(files), table->num_params);
        goto fail;
    }
    status = place_files(hf);
    if (status != TV_OK)
        goto fail;
    *hf_out = hf;
    return TV_OK;

fail:
    tv_hf_close(hf);
    return status;
}

tv_status_t tv_hf_open(const char *path, const struct tv_model_config *config,
                       const struct tv_param_table *table, struct tv_hf **hf_out)
{
    struct tv_hf_files *files = NULL;
    TV_TRY(tv_hf_files_open(path, &files));
    return tv_hf_place(files, config, table, hf_out);
}

void tv_hf_close(struct tv_hf *hf)
{
    if (hf == NULL)
        return;
    tv_hf_files_close(hf->files);
    free(hf->weights);
    free(hf);
}

/* Where `param` is; an error when it belongs to another model. */
static tv_status_t weight_of(const struct tv_hf *hf, const struct tv_param *param,
                             const struct weight **weight_out)
{
    const int i = find_param(hf, param->name);
    if (i < 0)
        return TV_ERR(TV_INTERNAL, "%s is not in the table that the file was opened with",
                      param->name);
    *weight_out = &hf->weights[i];
    return TV_OK;
}

tv_status_t tv_hf_read_piece(const struct tv_hf *hf, const struct tv_param *param, int T, int t,
                             float *local_out)
{
    struct tv_param_slice slices[MAX_SLICES];
    int64_t shape[2];
    const struct weight *weight = NULL;
    TV_TRY(weight_of(hf, param, &weight));
    tv_param_local_shape(param, T, shape);
    memset(local_out, 0, (size_t)tv_param_local_count(param, T) * sizeof(float));
    const int num = tv_param_slices(param, T, t, slices, MAX_SLICES);
    for (int s = 0; s < num; s++) {
        const struct tv_param_slice *c = &slices[s];
        const struct tv_safetensors_rect rect = {c->global_row, c->num_rows, c->global_col,
                                                 c->num_cols};
        TV_TRY(tv_safetensors_read(weight->file, weight->tensor, &rect,
                                   local_out + c->local_row * shape[1] + c->local_col, shape[1]));
    }
    return TV_OK;
}

tv_status_t tv_hf_read_rows(const struct tv_hf *hf, const struct tv_param *param, int64_t first,
                            int64_t num, float *out)
{
    const struct weight *weight = NULL;
    TV_TRY(weight_of(hf, param, &weight));
    const struct tv_safetensors_rect rows = {first, num, 0, param->shape[1]};
    return tv_safetensors_read(weight->file, weight->tensor, &rows, out, param->shape[1]);
}

void tv_hf_forget(const struct tv_hf *hf, const struct tv_param *param)
{
    const struct weight *weight = NULL;
    if (weight_of(hf, param, &weight) == TV_OK)
        tv_safetensors_forget(weight->file, weight->tensor);
}

const char *tv_hf_dtype(const struct tv_hf *hf)
{
    const char *dtype = NULL;
    for (int i = 0; i < hf->table.num_params; i++) {
        if (dtype != NULL && strcmp(dtype, hf->weights[i].tensor->dtype) != 0)
            return NULL;
        dtype = hf->weights[i].tensor->dtype;
    }
    return dtype;
}
