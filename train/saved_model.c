/* train/saved_model.c -- opens a model by what its path holds, and walks through its weights. */
#include "train/saved_model.h"
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Numbers that a walk holds at once, unless one row has more. */
enum { BLOCK_NUMBERS = 1 << 20 };

/* "folder/config.json" for a folder or a file in it. */
static tv_status_t config_beside(const char *path, char *config, size_t bytes)
{
    struct stat info;
    const int is_folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    const char *slash = strrchr(path, '/');
    const int length = is_folder ? (int)strlen(path) : slash != NULL ? (int)(slash - path) : 0;
    const char *between = length > 0 || path[0] == '/' ? "/" : "";
    if (snprintf(config, bytes, "%.*s%sconfig.json", length, path, between) >= (int)bytes)
        return TV_ERR(TV_BAD_FILE, "a path of %zu bytes is too long", strlen(path));
    return TV_OK;
}

/* Every layer has at least so many weights: what a configuration claims is held against the files
 * before memory is taken for it. */
static tv_status_t check_claim(const struct tv_hf_files *files,
                               const struct tv_model_config *config)
{
    enum { LEAST_PER_LAYER = 9 };
    const int64_t num = tv_hf_files_num_tensors(files);
    if (num < LEAST_PER_LAYER * (int64_t)config->num_layers)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %" PRId64 " tensors are too few for the %d layers of the configuration",
                      tv_hf_files_path(files), num, config->num_layers);
    return TV_OK;
}

/* files become the model's, or are closed on failure. */
static tv_status_t place(struct tv_hf_files *files, struct tv_saved_model *model)
{
    struct tv_hf *hf = NULL;
    tv_status_t status = check_claim(files, &model->config);
    if (status == TV_OK)
        status = tv_model_param_table(&model->config, &model->table);
    if (status != TV_OK) {
        tv_hf_files_close(files);
        return status;
    }
    status = tv_hf_place(files, &model->config, &model->table, &hf);
    if (status != TV_OK) {
        tv_param_table_destroy(&model->table);
        return status;
    }
    model->state = hf;
    model->dtype = tv_hf_dtype_of(tv_hf_dtype(hf));
    return TV_OK;
}

tv_status_t tv_saved_model_open(const char *path, const char *config_path,
                                struct tv_saved_model *model_out)
{
    char config[PATH_MAX];
    struct tv_saved_model model = {.kind = "Hugging Face model"};
    struct tv_hf_files *files = NULL;
    TV_TRY(config_beside(path, config, sizeof(config)));
    TV_TRY(tv_hf_config_read(config_path != NULL ? config_path : config, &model.config));
    TV_TRY(tv_hf_files_open(path, &files));
    TV_TRY(place(files, &model));
    *model_out = model;
    return TV_OK;
}

void tv_saved_model_close(struct tv_saved_model *model)
{
    tv_hf_close(model->state);
    tv_param_table_destroy(&model->table);
    *model = (struct tv_saved_model){0};
}

tv_status_t tv_saved_model_read(const struct tv_saved_model *model, const struct tv_param *param,
                                int64_t first, int64_t num, float *out)
{
    return tv_hf_read_rows(model->state, param, first, num, out);
}

void tv_saved_model_forget(const struct tv_saved_model *model, const struct tv_param *param)
{
    tv_hf_forget(model->state, param);
}

static int64_t rows_at_once(const struct tv_param *param)
{
    const int64_t rows = BLOCK_NUMBERS / (param->shape[1] > 0 ? param->shape[1] : 1);
    return rows > 0 ? rows : 1;
}

static tv_status_t stream_param(const struct tv_saved_model *model, const struct tv_param *param,
                                const struct tv_saved_model_visitor *visitor, float *block)
{
    const int64_t step = rows_at_once(param);
    for (int64_t first = 0; first < param->shape[0]; first += step) {
        const int64_t left = param->shape[0] - first, num = left < step ? left : step;
        TV_TRY(tv_saved_model_read(model, param, first, num, block));
        TV_TRY(visitor->visit(visitor->context, param, first, num, block));
    }
    tv_saved_model_forget(model, param);
    return TV_OK;
}

tv_status_t tv_saved_model_stream(const struct tv_saved_model *model,
                                  const struct tv_saved_model_visitor *visitor)
{
    int64_t numbers = BLOCK_NUMBERS;
    for (int i = 0; i < model->table.num_params; i++) {
        const int64_t cols = model->table.params[i].shape[1];
        numbers = cols > numbers ? cols : numbers;
    }
    float *block = malloc((size_t)numbers * sizeof(*block));
    if (block == NULL)
        return TV_ERR(TV_NO_MEMORY, "%" PRId64 " numbers", numbers);
    tv_status_t status = TV_OK;
    for (int i = 0; i < model->table.num_params && status == TV_OK; i++)
        status = stream_param(model, &model->table.params[i], visitor, block);
    free(block);
    return status;
}
