/* train/command_inspect.c -- `trivet inspect`: what a file or folder holds, and whether it is whole.
 * Starts no ranks. */
#include "train/commands.h"
#include "train/inspect.h"
#include "train/ranks.h"
#include <errno.h>
#include <jansson.h>
#include <string.h>

static tv_status_t print(const struct tv_inspect_options *options, const json_t *report)
{
    if (options->is_json) {
        json_dumpf(report, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        fputc('\n', stdout);
    } else {
        tv_inspect_print(report, stdout);
    }
    if (fflush(stdout) != 0 || ferror(stdout))
        return TV_ERR(TV_IO, "standard output cannot be written: %s", strerror(errno));
    return TV_OK;
}

static tv_status_t inspect(const struct tv_inspect_options *options)
{
    json_t *report = NULL;
    TV_TRY(tv_inspect(options, &report));
    tv_status_t status = print(options, report);
    const json_int_t nonfinite = json_integer_value(json_object_get(report, "nonfinite"));
    json_decref(report);
    if (status == TV_OK && nonfinite > 0)
        status = TV_ERR(TV_NUMERIC, "%s: %" JSON_INTEGER_FORMAT " numbers are not finite",
                        options->path, nonfinite);
    return status;
}

int tv_command_inspect(int argc, char **argv)
{
    struct tv_inspect_options options;
    tv_log_level_t level = TV_LOG_INFO;
    if (!tv_is_first_process()) /* under a launcher all would say the same */
        return 0;
    tv_status_t status = tv_inspect_options_parse(argc, argv, &options);
    if (status == TV_OK)
        status = tv_log_level_parse(options.log_level, &level);
    if (status == TV_OK)
        tv_log_set_level(level);
    if (status == TV_OK && options.wants_help)
        tv_options_help(&tv_inspect_option_table, stdout);
    else if (status == TV_OK)
        status = inspect(&options);
    if (status != TV_OK)
        tv_print_error();
    return tv_status_exit_code(status);
}
