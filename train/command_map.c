/* train/command_map.c -- `trivet map`: where the ranks of a mesh belong. Starts no ranks. */
#include "train/commands.h"
#include "train/files.h"
#include "train/map_emit.h"
#include "train/map_report.h"
#include "train/ranks.h"
#include "train/terminal.h"
#include <string.h>

static tv_status_t write_svg(const struct tv_map_plan *plan, const char *path)
{
    FILE *file = NULL;
    TV_TRY(tv_text_file_open("svg", path, &file));
    return tv_text_file_close("svg", path, file, tv_map_draw_svg(plan, file));
}

static tv_status_t report(const struct tv_map_options *options, const struct tv_map_plan *plan,
                          int emits_to_stdout)
{
    FILE *out = stdout;
    if (options->svg != NULL)
        TV_TRY(write_svg(plan, options->svg));
    if (options->emit != NULL)
        TV_TRY(tv_map_emit(plan, options->emit, out));
    if (options->is_json)
        tv_map_print_json(plan, out);
    else if (!emits_to_stdout)
        tv_map_print_text(plan, tv_terminal_columns(options->width, out),
                          tv_terminal_is_coloured(out), out);
    return tv_output_check();
}

static tv_status_t map(const struct tv_map_options *options)
{
    int emits_to_stdout;
    struct tv_map_plan plan;
    TV_TRY(tv_map_emit_check(options->emit, &emits_to_stdout));
    if (emits_to_stdout && options->is_json)
        return TV_ERR(TV_INVALID, "--emit without a FILE and --json both want standard output");
    TV_TRY(tv_map_plan_make(options, &plan));
    const tv_status_t status = report(options, &plan, emits_to_stdout);
    tv_map_plan_free(&plan);
    return status;
}

int tv_command_map(int argc, char **argv)
{
    struct tv_map_options options;
    tv_log_level_t level = TV_LOG_INFO;
    if (!tv_is_first_process()) /* under a launcher all would say the same */
        return 0;
    tv_status_t status = tv_map_options_parse(argc, argv, &options);
    if (status == TV_OK)
        status = tv_log_level_parse(options.log_level, &level);
    if (status == TV_OK)
        tv_log_set_level(level);
    if (status == TV_OK && options.wants_help)
        tv_map_options_help(stdout);
    else if (status == TV_OK)
        status = map(&options);
    if (status != TV_OK)
        tv_print_error();
    return tv_status_exit_code(status);
}
