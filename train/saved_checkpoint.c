/* train/saved_checkpoint.c -- checkpoints of training as saved models: their weights alone. */
#include "train/checkpoint_internal.h"
#include "train/saved_model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int has_file(const char *folder, const char *name)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof(path), "%s/%s", folder, name) < (int)sizeof(path) &&
           access(path, F_OK) == 0;
}

/* A checkpoint itself, or a folder with steps; an export that lies in it too goes first. */
static int fits(const char *path)
{
    int64_t *steps = NULL;
    int num = 0;
    if (has_file(path, "config.json"))
        return 0;
    if (has_file(path, TV_INDEX_NAME) && has_file(path, TV_STATE_NAME))
        return 1;
    if (tv_folder_steps(path, &steps, &num) != TV_OK) /* a plain file is none */
        return 0;
    free(steps);
    return num > 0;
}

/* The weights as they were trained: masters where there are any. */
static const struct tv_index_tensor *find(const struct tv_checkpoint *c, const char *name)
{
    const struct tv_index_tensor *found = NULL;
    for (const char *const *kind = tv_state_sources(TV_STATE_WEIGHT); *kind != NULL && !found;
         kind++)
        found = tv_index_find(&c->index, *kind, name);
    return found;
}

static tv_status_t check_param(const struct tv_checkpoint *c, const struct tv_param *param,
                               const char **dtype)
{
    const struct tv_index_tensor *found = find(c, param->name);
    if (found == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: the weight %s is missing", c->path, param->name);
    if (found->num_dims != param->num_dims || found->shape[0] != param->shape[0] ||
        (param->num_dims == 2 && found->shape[1] != param->shape[1]))
        return TV_ERR(TV_BAD_FILE, "%s: the weight %s has another shape than the model's", c->path,
                      param->name);
    *dtype = *dtype == NULL || strcmp(*dtype, found->dtype) == 0 ? found->dtype : "";
    return TV_OK;
}

static tv_status_t find_checkpoint(const char *path, struct tv_checkpoint **c_out)
{
    struct tv_comm *self = NULL;
    TV_TRY(tv_comm_self_create(&self));
    tv_status_t status = tv_checkpoint_find_in(self, path, (struct tv_checkpoint_trial){0}, c_out);
    tv_comm_destroy(self);
    if (status == TV_OK && *c_out == NULL)
        status = TV_ERR(TV_BAD_FILE, "%s: no checkpoint is in it", path);
    return status;
}

static tv_status_t open_model(const char *path, const char *config_path,
                              struct tv_saved_model *model)
{
    struct tv_checkpoint *c = NULL;
    const char *dtype = NULL;
    if (config_path != NULL)
        return TV_ERR(TV_INVALID, "--config %s: %s is a checkpoint, which says its own model",
                      config_path, path);
    TV_TRY(find_checkpoint(path, &c));
    model->state = c;
    model->config = c->state.model;
    model->step = c->state.step;
    TV_TRY(tv_saved_model_check_claim(c->path, c->index.num_tensors, &model->config));
    TV_TRY(tv_model_param_table(&model->config, &model->table));
    for (int i = 0; i < model->table.num_params; i++)
        TV_TRY(check_param(c, &model->table.params[i], &dtype));
    model->dtype = tv_hf_dtype_of(dtype);
    return TV_OK;
}

static void close_model(void *state)
{
    tv_checkpoint_close(state);
}

static tv_status_t read_rows(const struct tv_saved_model *model, const struct tv_param *param,
                             int64_t first, int64_t num, float *out)
{
    return tv_checkpoint_read_rows(model->state, find(model->state, param->name), first, num, out);
}

static void forget(const struct tv_saved_model *model, const struct tv_param *param)
{
    tv_checkpoint_forget(model->state, find(model->state, param->name));
}

const struct tv_saved_kind tv_saved_checkpoint = {"checkpoint", fits,      open_model,
                                                  close_model,  read_rows, forget};
