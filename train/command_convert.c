/* train/command_convert.c -- `trivet convert`: a model from disk to a Hugging Face folder, row by row.
 * Starts no ranks. */
#include "train/commands.h"
#include "train/convert_options.h"
#include "train/ranks.h"
#include "train/saved_model.h"
#include <string.h>

static tv_status_t write_rows(void *context, const struct tv_param *param, int64_t first,
                              int64_t num, const float *numbers)
{
    (void)first;
    return tv_hf_export_numbers(context, numbers, num * param->shape[1]);
}

static tv_status_t write_model(const struct tv_convert_options *options,
                               const struct tv_saved_model *model)
{
    struct tv_hf_export *file = NULL;
    struct tv_hf_export_form form = {model->dtype, options->max_shard_bytes};
    if (strcmp(options->dtype, "keep") != 0)
        TV_TRY(tv_hf_dtype_parse(options->dtype, &form.dtype));
    TV_TRY(tv_hf_export_begin(options->to, &model->config, &model->table, form, &file));
    const struct tv_saved_model_visitor visitor = {file, write_rows};
    tv_status_t status = tv_saved_model_stream(model, &visitor);
    if (status == TV_OK)
        status = tv_hf_export_finish(&file);
    tv_hf_export_abandon(&file);
    if (status == TV_OK)
        tv_log(TV_LOG_INFO, "%s: %s, %d tensors, %lld weights in %s", options->to,
               tv_model_family_name(model->config.family), model->table.num_params,
               (long long)tv_model_num_params(&model->config), tv_hf_dtype_name(form.dtype));
    return status;
}

static tv_status_t convert(const struct tv_convert_options *options)
{
    struct tv_saved_model model;
    TV_TRY(tv_saved_model_open(options->from, options->config, &model));
    const tv_status_t status = write_model(options, &model);
    tv_saved_model_close(&model);
    return status;
}

int tv_command_convert(int argc, char **argv)
{
    struct tv_convert_options options;
    tv_log_level_t level = TV_LOG_INFO;
    if (!tv_is_first_process()) /* under a launcher all would write the same */
        return 0;
    tv_status_t status = tv_convert_options_parse(argc, argv, &options);
    if (status == TV_OK)
        status = tv_log_level_parse(options.log_level, &level);
    if (status == TV_OK)
        tv_log_set_level(level);
    if (status == TV_OK && options.wants_help)
        tv_options_help(&tv_convert_option_table, stdout);
    else if (status == TV_OK)
        status = convert(&options);
    if (status != TV_OK)
        tv_print_error();
    return tv_status_exit_code(status);
}
