/* train/saved_hf.c -- Hugging Face folders, safetensors files and indexes as saved models. */
#include "train/saved_model.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int fits(const char *path)
{
    (void)path;
    return 1;
}

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

/* files become the model's, or are closed on failure. */
static tv_status_t place(struct tv_hf_files *files, struct tv_saved_model *model)
{
    struct tv_hf *hf = NULL;
    tv_status_t status = tv_saved_model_check_claim(tv_hf_files_path(files),
                                                    tv_hf_files_num_tensors(files), &model->config);
    if (status == TV_OK)
        status = tv_model_param_table(&model->config, &model->table);
    if (status != TV_OK) {
        tv_hf_files_close(files);
        return status;
    }
    TV_TRY(tv_hf_place(files, &model->config, &model->table, &hf));
    model->state = hf;
    model->dtype = tv_hf_dtype_of(tv_hf_dtype(hf));
    return TV_OK;
}

static tv_status_t open_model(const char *path, const char *config_path,
                              struct tv_saved_model *model)
{
    char config[PATH_MAX];
    struct tv_hf_files *files = NULL;
    TV_TRY(config_beside(path, config, sizeof(config)));
    TV_TRY(tv_hf_config_read(config_path != NULL ? config_path : config, &model->config));
    TV_TRY(tv_hf_files_open(path, &files));
    return place(files, model);
}

static void close_model(void *state)
{
    tv_hf_close(state);
}

static tv_status_t read_rows(const struct tv_saved_model *model, const struct tv_param *param,
                             int64_t first, int64_t num, float *out)
{
    return tv_hf_read_rows(model->state, param, first, num, out);
}

static void forget(const struct tv_saved_model *model, const struct tv_param *param)
{
    tv_hf_forget(model->state, param);
}

const struct tv_saved_kind tv_saved_hf = {"Hugging Face model", fits,      open_model,
                                          close_model,          read_rows, forget};
