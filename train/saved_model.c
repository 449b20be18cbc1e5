/* train/saved_model.c -- opens a model by what its path holds, and walks through its weights. */
#include "train/saved_model.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Numbers that a walk holds at once, unless one row has more. */
enum { BLOCK_NUMBERS = 1 << 20 };

/* The first that fits; the last fits anything. */
static const struct tv_saved_kind *const kinds[] = {&tv_saved_checkpoint, &tv_saved_hf};
enum { NUM_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

tv_status_t tv_saved_model_check_claim(const char *path, int64_t num_tensors,
                                       const struct tv_model_config *config)
{
    enum { LEAST_PER_LAYER = 9 };
    if (num_tensors < LEAST_PER_LAYER * (int64_t)config->num_layers)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %" PRId64 " tensors are too few for the %d layers of the configuration",
                      path, num_tensors, config->num_layers);
    return TV_OK;
}

tv_status_t tv_saved_model_open(const char *path, const char *config_path,
                                struct tv_saved_model *model_out)
{
    struct tv_saved_model model = {.step = -1};
    struct stat info;
    size_t i = 0;
    if (stat(path, &info) != 0)
        return TV_ERR(TV_BAD_FILE, "%s: %s", path, strerror(errno));
    while (i + 1 < NUM_KINDS && !kinds[i]->fits(path))
        i++;
    model.kind = kinds[i];
    const tv_status_t status = model.kind->open(path, config_path, &model);
    if (status == TV_OK)
        *model_out = model;
    else
        tv_saved_model_close(&model);
    return status;
}

void tv_saved_model_close(struct tv_saved_model *model)
{
    if (model->kind != NULL)
        model->kind->close(model->state);
    tv_param_table_destroy(&model->table);
    *model = (struct tv_saved_model){0};
}

tv_status_t tv_saved_model_read(const struct tv_saved_model *model, const struct tv_param *param,
                                int64_t first, int64_t num, float *out)
{
    return model->kind->read(model, param, first, num, out);
}

void tv_saved_model_forget(const struct tv_saved_model *model, const struct tv_param *param)
{
    model->kind->forget(model, param);
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
